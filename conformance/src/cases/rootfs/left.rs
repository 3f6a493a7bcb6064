//! Mounts that containerd, from 2.2 on, leaves to a shim that asks for it by an annotation of its
//! `-info`: types with prefixes, and options that name the mounts before.

use std::process::Command;
use std::rc::Rc;

use anyhow::{Result, ensure};
use shim_client::Generation;
use shim_protos::types::Mount;

use super::plain::{expect_refusal, live, mount, own_root, prepared, text};
use crate::case::group;
use crate::cases::info::taken_mounts;
use crate::expect::skip;
use crate::lab::{Guest, Lab, SOON, eventually, procs};

group! { "rootfs":
    Must placeholders_are_filled: "A shim that takes `format/*` and `mkdir/*` MUST make an overlay of the mounts before, and Delete MUST undo them all.", since(Generation::V2_2);
    Must order_of_layers: "`{{ overlay 0 1 }}` MUST put the first mount on top, `{{ overlay 1 0 }}` the last.", since(Generation::V2_2);
    Must bad_placeholder_is_refused: "A placeholder for a mount that there is not MUST be refused, and leave nothing.", since(Generation::V2_2);
    Must left_mounts_go_with_a_dead_shim: "After the shim was killed, `delete` MUST undo the mounts that were made for others, too.", since(Generation::V2_2);
    Must erofs_image: "A shim that takes `erofs` MUST mount such an image.", since(Generation::V2_2);
}

/// Skips the case unless the shim takes all these types.
async fn needs(lab: &Lab, types: &[&str]) -> Result<()> {
    let taken = taken_mounts(lab).await?;
    match types.iter().find(|each| !taken.iter().any(|taken| taken == *each)) {
        Some(missing) => skip(format!("the shim leaves {missing} to containerd")),
        None => Ok(()),
    }
}

/// Place for what a container writes.
fn scratch() -> Mount {
    mount("tmpfs", "tmpfs", "", &["mode=755"])
}

/// A writable overlay over that mount, its upper layer on the first mount.
fn overlay(lower: &str) -> Mount {
    let options = [
        "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
        "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
        "workdir={{ mount 0 }}/work",
        "upperdir={{ mount 0 }}/upper",
        lower,
    ];
    mount("format/mkdir/overlay", "overlay", "", &options)
}

/// A list as containerd's erofs snapshotter makes it, with a directory for an image.
fn list(lab: &Lab) -> Result<Vec<Mount>> {
    let root = own_root(lab)?;
    let layer = mount("bind", text(&root)?, "", &["ro", "rbind"]);
    Ok(vec![scratch(), layer, overlay("lowerdir={{ mount 1 }}")])
}

/// Nothing is mounted any more, and containerd can remove the directory.
fn expect_nothing_left(guest: &Guest) -> Result<()> {
    let mounts = guest.mounts()?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    let left = std::fs::read_dir(guest.shim.bundle().rootfs())?.count();
    ensure!(left == 0, "the bundle's rootfs has {left} things in it that nobody put there");
    Ok(())
}

async fn placeholders_are_filled(lab: &Lab) -> Result<()> {
    needs(lab, &["format/*", "mkdir/*"]).await?;
    let guest = prepared(lab, "test -e /mark && echo written > /new && cat /new").await?;
    live(&guest, list(lab)?, 0).await?;
    let is_there = lab.folder.join("own-root/new").exists();
    ensure!(!is_there, "what the container writes is in the lower folder");
    expect_nothing_left(&guest)
}

async fn order_of_layers(lab: &Lab) -> Result<()> {
    needs(lab, &["format/*"]).await?;
    let root = own_root(lab)?;
    let other = lab.folder.join("other");
    std::fs::create_dir_all(&other)?;
    std::fs::write(other.join("mark"), "other")?;
    for (range, expected) in [("0 1", "here"), ("1 0", "other")] {
        let script = format!("test \"$(cat /mark)\" = {expected}");
        let guest = prepared(lab, &script).await?;
        let lower = format!("lowerdir={{{{ overlay {range} }}}}");
        let rootfs = vec![
            mount("bind", text(&root)?, "", &["ro", "rbind"]),
            mount("bind", text(&other)?, "", &["ro", "rbind"]),
            mount("format/overlay", "overlay", "", &[&lower]),
        ];
        live(&guest, rootfs, 0).await?;
        expect_nothing_left(&guest)?;
    }
    Ok(())
}

async fn bad_placeholder_is_refused(lab: &Lab) -> Result<()> {
    needs(lab, &["format/*", "mkdir/*"]).await?;
    let mut rootfs = list(lab)?;
    for lower in ["lowerdir={{ mount 7 }}", "lowerdir={{ mount", "lowerdir={{ nothing 1 }}"] {
        rootfs[2] = overlay(lower);
        let guest = prepared(lab, "true").await?;
        expect_refusal(&guest, rootfs.clone()).await?;
        expect_nothing_left(&guest)?;
    }
    Ok(())
}

async fn left_mounts_go_with_a_dead_shim(lab: &Lab) -> Result<()> {
    needs(lab, &["format/*", "mkdir/*"]).await?;
    let guest = running(lab, list(lab)?).await?;
    let pid = guest.pid().await?;
    guest.kill_shim().await?;
    lab.clean_up(guest.shim.bundle()).await?;
    ensure!(eventually(SOON, || !procs::runs(pid)).await, "process {pid} still runs");
    expect_nothing_left(&guest)
}

async fn running(lab: &Lab, rootfs: Vec<Mount>) -> Result<Rc<Guest>> {
    let guest = prepared(lab, "exec sleep 1000").await?;
    guest.create_with(|request| request.rootfs = rootfs).await?;
    guest.start("").await?;
    Ok(guest)
}

async fn erofs_image(lab: &Lab) -> Result<()> {
    needs(lab, &["erofs", "format/*", "mkdir/*"]).await?;
    let (root, image) = (own_root(lab)?, lab.folder.join("layer.erofs"));
    let kernel = std::fs::read_to_string("/proc/filesystems")?;
    if !kernel.lines().any(|line| line.trim() == "erofs") {
        return skip("the kernel has no erofs");
    }
    let made = Command::new("mkfs.erofs").arg(&image).arg(&root).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return skip("there is no mkfs.erofs");
    }
    let guest = prepared(lab, "test -e /mark && echo written > /new").await?;
    let layer = mount("erofs", text(&image)?, "", &["ro", "loop"]);
    live(&guest, vec![scratch(), layer, overlay("lowerdir={{ mount 1 }}")], 0).await?;
    expect_nothing_left(&guest)
}
