//! Root file systems that the shim mounts itself, as containerd's snapshotters ask.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration::client::messages::Mount;
use integration::client::{Streams, Target};
use integration::lane::{Draft, Lane};
use integration::mounts;
use serde_json::json;

integration::tests![
    a_bound_root_is_mounted_and_unmounted,
    an_overlay_of_layers_is_mounted_and_unmounted,
    a_read_only_root_mount_cannot_be_written,
    an_overlay_of_very_many_layers_is_mounted,
    a_failed_mount_is_named_and_leaves_nothing,
];

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    Mount { type_: kind.to_owned(), source: source.to_owned(), options, ..Default::default() }
}

/// Runs the draft's task on a root made of mounts, and returns its exit status.
fn run(lane: &Lane, draft: &Draft, mounts: &[Mount]) -> Result<u32> {
    let Draft { name, spec, .. } = draft;
    // Relative to the bundle, which is where containerd has the shim mount it.
    let spec = spec.clone().set("/root", json!({ "path": "rootfs" }));
    let target = lane.bundle(name).join("rootfs");
    let mounted = || Ok::<_, anyhow::Error>(mounts::all()?.iter().any(|m| m.target == target));
    lane.talk(async |client| {
        let init = Target::init(name);
        client.create_container(name, &spec, None).await?;
        client.create(name, mounts, &Streams::default()).await?;
        ensure!(mounted()?, "nothing is mounted at {}", target.display());
        client.start(init).await?;
        let status = client.wait(init).await?;
        client.delete(init).await?;
        ensure!(!mounted()?, "it is still mounted");
        client.delete_container(name).await?;
        Ok(status)
    })
}

/// The mount of an overlay over `lower`, with an upper layer in the draft's folder.
fn overlay(draft: &Draft, lower: &str) -> Result<Mount> {
    let (upper, work) = (draft.folder.join("upper"), draft.folder.join("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let [lower, upper, work] =
        [format!("lowerdir={lower}"), format!("upperdir={upper}"), format!("workdir={work}")];
    Ok(mount("overlay", "overlay", &[&lower, &upper, &work]))
}

fn a_bound_root_is_mounted_and_unmounted(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "echo written > /tmp/file; exit 5"])?;
    assert_eq!(run(lane, &draft, &[mount("bind", &draft.rootfs(), &["rbind", "rw"])])?, 5);
    assert_eq!(fs::read_to_string(draft.rootfs() + "/tmp/file")?, "written\n");
    Ok(())
}

fn an_overlay_of_layers_is_mounted_and_unmounted(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "cat /etc/top && echo written > /tmp/file; exit 5"])?;
    let top = draft.folder.join("top");
    fs::create_dir_all(format!("{top}/etc"))?;
    fs::write(format!("{top}/etc/top"), "")?;
    let mount = overlay(&draft, &format!("{top}:{}", draft.rootfs()))?;
    assert_eq!(run(lane, &draft, &[mount])?, 5);
    assert_eq!(fs::read_to_string(draft.folder.join("upper/tmp/file"))?, "written\n");
    Ok(())
}

fn a_read_only_root_mount_cannot_be_written(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "touch /tmp/file || exit 5"])?;
    assert_eq!(run(lane, &draft, &[mount("bind", &draft.rootfs(), &["rbind", "ro"])])?, 5);
    Ok(())
}

/// The kernel takes one page of options; more layers need shorter, relative names.
fn an_overlay_of_very_many_layers_is_mounted(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "ls /layers | wc -l | grep -qx 60 && exit 5"])?;
    let mut lower = String::new();
    for number in 0..60 {
        // Siblings, as a snapshotter's layers are.
        let layer = draft.folder.join(&format!("{number:0>50}/fs"));
        fs::create_dir_all(format!("{layer}/layers/{number}"))?;
        lower.push_str(&format!("{layer}:"));
    }
    lower.push_str(&draft.rootfs());
    ensure!(lower.len() > 4096, "it would fit on a page");
    let mount = overlay(&draft, &lower)?;
    assert_eq!(run(lane, &draft, &[mount])?, 5);
    Ok(())
}

fn a_failed_mount_is_named_and_leaves_nothing(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["true"])?;
    // The first one succeeds, and has to be undone.
    let mounts = [
        mount("bind", &draft.rootfs(), &["rbind", "rw"]),
        mount("bind", "/no/such/folder", &["rbind", "rw"]),
    ];
    lane.talk(async |client| {
        client.create_container(&draft.name, &draft.spec, None).await?;
        let made = client.create(&draft.name, &mounts, &Streams::default()).await;
        let error = format!("{:#}", made.err().context("it was made")?);
        ensure!(error.contains("mount"), "{error}");
        client.delete_container(&draft.name).await
    })
}
