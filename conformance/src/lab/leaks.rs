//! What a case left: processes, mounts, cgroups, sockets and files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shim_client::{mounts_below, unmount_below};

use super::{eventually, procs};

/// How long a shim may take to end, once it was told to.
const LIMIT: Duration = Duration::from_secs(5);

/// Where shims put sockets, and runc its state.
const SHARED: [&str; 2] = ["/run/containerd/s", "/run/containerd/runc"];

/// Waits for clean-up that is under way, then tells what stays.
pub(crate) async fn settle(folder: &Path, namespace: &str) -> Vec<String> {
    let mut left = Vec::new();
    let clean = || {
        procs::reap();
        left = find(folder, namespace);
        left.is_empty()
    };
    eventually(LIMIT, clean).await;
    left
}

fn find(folder: &Path, namespace: &str) -> Vec<String> {
    let mut left = Vec::new();
    for process in procs::descendants() {
        left.push(format!("process {} ({}, {})", process.pid, process.name, process.state));
    }
    for point in mounts_below(folder).unwrap_or_default() {
        left.push(format!("mount {}", point.display()));
    }
    for cgroup in cgroups(namespace) {
        left.push(format!("cgroup {}", cgroup.display()));
    }
    files(&folder.join("s"), &mut left);
    files(&folder.join("bundles"), &mut left);
    for place in SHARED {
        files(Path::new(place), &mut left);
    }
    left
}

/// Ends and removes all of it, so that the next case finds a clean machine.
pub(crate) async fn remove(folder: &Path, namespace: &str) {
    procs::kill_descendants().await;
    if let Err(error) = unmount_below(folder) {
        log::warn!("{error:#}");
    }
    for cgroup in cgroups(namespace) {
        // One that is not empty shows as a leak again; its processes have been killed.
        let _ = fs::remove_dir(cgroup);
    }
    for parent in hierarchies().map(|root| root.join(namespace)) {
        let _ = fs::remove_dir(parent);
    }
    for place in SHARED {
        // They are ours alone since the suite has mounts of its own.
        let _ = fs::remove_dir_all(place);
    }
}

/// The cgroups of a namespace's containers, the innermost first. The namespace's own folder is
/// nobody's: runtimes leave such parents.
pub(crate) fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in hierarchies() {
        folders(&root.join(namespace), &mut found);
    }
    found
}

fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    // With cgroup v2 alone, the one hierarchy is the folder itself.
    roots.chain([PathBuf::from("/sys/fs/cgroup")])
}

fn folders(parent: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

/// Every file that is no folder.
fn files(folder: &Path, left: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), left);
        } else {
            left.push(format!("file {}", entry.path().display()));
        }
    }
}
