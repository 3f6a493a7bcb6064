//! Ids that are none: they become names of files and cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::signals::KILL;
use crate::lab::{Lab, SLEEP};

group! { "input":
    Must container_ids: "Create with an id that is no name MUST be refused, and leave nothing on the disk.";
    Should exec_ids: "Exec with an id that is no name SHOULD be refused.";
    Should exec_ids_stay_inside: "An exec id SHOULD NOT make files outside of the bundle.";
}

fn bad_ids() -> [String; 8] {
    let long = "x".repeat(1024);
    ["../x", "a/b", "..", ".", "a\0b", "näme", "a b", &long].map(str::to_owned)
}

/// Every path below the folder in which shims keep things, but for the bundle itself.
fn paths(except: &Path) -> BTreeSet<PathBuf> {
    fn walk(folder: &Path, except: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path == except {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&path, except, found);
            }
            found.insert(path);
        }
    }
    let mut found = BTreeSet::new();
    walk(Path::new("/run/containerd"), except, &mut found);
    found
}

async fn container_ids(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&SLEEP).await?;
    let before = paths(guest.shim.bundle().path());
    for id in bad_ids().into_iter().chain([String::new()]) {
        let answer = guest.create_with(|request| {
            request.id.clone_from(&id);
            request.rootfs.clear();
        });
        expect::refused(answer.await).with_context(|| format!("the id {id:?}"))?;
    }
    let mut more = &paths(guest.shim.bundle().path()) - &before;
    // Where runtimes keep the containers of a namespace, with none in it.
    let namespace = lab.daemon().namespace;
    more.retain(|path| !path.ends_with("runc") && !path.ends_with(&namespace));
    ensure!(more.is_empty(), "files were made: {more:?}");
    expect::code(guest.state("").await, Code::NOT_FOUND)
}

async fn exec_ids(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for exec in bad_ids() {
        expect::refused(guest.exec(&exec, &["true"]).await)
            .with_context(|| format!("the exec id {exec:?}"))?;
    }
    Ok(())
}

async fn exec_ids_stay_inside(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let before = paths(guest.shim.bundle().path());
    // Two levels up is beside the bundles.
    for exec in ["../x", "../../y", "/run/containerd/z"] {
        if guest.started(exec, &SLEEP).await.is_ok() {
            let more = &paths(guest.shim.bundle().path()) - &before;
            ensure!(more.is_empty(), "the exec {exec:?} made files: {more:?}");
            guest.kill(exec, KILL).await?;
            guest.wait(exec).await?;
            guest.delete(exec).await?;
        }
    }
    Ok(())
}
