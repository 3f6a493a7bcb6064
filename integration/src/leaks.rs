//! What a test left behind: the machine before it, compared with the machine after it.
//!
//! Processes, mounts and files are all there are in the lane's namespaces; cgroups are the ones
//! with the lane's mark in their path; network interfaces count where the lane has its own network.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::cri::network;
use crate::mounts::Mount;
use crate::procs::Process;
use crate::wait::{self, SOON};
use crate::{cgroups, isolation, mounts, procs};

/// One thing that was not there before.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Leak {
    /// A process that runs, or a zombie that nobody reaps.
    Process(Process),
    /// A mount.
    Mount(Mount),
    /// A cgroup, in one hierarchy.
    Cgroup(PathBuf),
    /// A network interface.
    Link(String),
    /// A file below `/run`, and what kind of file.
    File(PathBuf, &'static str),
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => process.fmt(f),
            Self::Mount(mount) => write!(f, "mount {} ({})", mount.target.display(), mount.kind),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Link(name) => write!(f, "network interface {name}"),
            Self::File(path, kind) => write!(f, "{kind} {}", path.display()),
        }
    }
}

/// Everything that counts as a leak once the test is over.
#[derive(Debug)]
pub struct Snapshot {
    mark: String,
    found: BTreeSet<Leak>,
}

impl Snapshot {
    /// Looks at the machine. Only inside a lane: outside, others' doings would count.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn take(mark: &str) -> Result<Self> {
        let mut found: BTreeSet<_> = procs::all()?.into_iter().map(Leak::Process).collect();
        found.extend(mounts::all()?.into_iter().map(Leak::Mount));
        found.extend(cgroups::marked(mark)?.into_iter().map(Leak::Cgroup));
        if isolation::has_own_network() {
            found.extend(network::links()?.into_iter().map(Leak::Link));
        }
        files(Path::new("/run"), &mut found);
        Ok(Self { mark: mark.to_owned(), found })
    }

    /// Waits for clean-up that is under way, then returns what stays.
    ///
    /// `forgive` runs before each look: it removes what the shim under test is known to leave.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub fn leaks(&self, forgive: impl Fn()) -> Result<Vec<Leak>> {
        let clean = wait::until("nothing left", SOON, || {
            forgive();
            let left = self.news()?.len();
            ensure!(left == 0, "{left} things left");
            Ok(())
        });
        if clean.is_ok() { Ok(Vec::new()) } else { self.news() }
    }

    /// What is here now and was not then.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub fn news(&self) -> Result<Vec<Leak>> {
        Ok(Self::take(&self.mark)?.found.difference(&self.found).cloned().collect())
    }
}

/// Removes leaks, so that the next test finds a clean machine. Returns those that resist.
///
/// # Errors
/// When the machine cannot be looked at.
pub fn clean(before: &Snapshot) -> Result<Vec<Leak>> {
    let cleaned = wait::until("a clean machine", SOON, || {
        let news = before.news()?;
        // Inner mounts and files come later in the order, and have to go first.
        news.iter().rev().for_each(remove);
        ensure!(news.is_empty());
        Ok(())
    });
    if cleaned.is_ok() { Ok(Vec::new()) } else { before.news() }
}

/// One attempt; whether it worked, the next look shows.
fn remove(leak: &Leak) {
    match leak {
        Leak::Process(process) => drop(procs::signal(process.pid, Signal::SIGKILL)),
        Leak::Mount(mount) => drop(umount2(&mount.target, MntFlags::MNT_DETACH)),
        Leak::Cgroup(path) => drop(cgroups::remove(path)),
        // It goes with the network namespace at its other end, which is a mount.
        Leak::Link(_) => {}
        Leak::File(path, "folder") => drop(mounts::remove_dir_all(path)),
        Leak::File(path, _) => drop(fs::remove_file(path)),
    }
}

/// Collects every file below `dir`. Symlinks and mounts are not followed.
fn files(dir: &Path, found: &mut BTreeSet<Leak>) {
    // A folder may go while we look.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (path, Ok(file_type)) = (entry.path(), entry.file_type()) else { continue };
        if is_content(&path) {
            continue;
        }
        if file_type.is_dir() && !path.ends_with("rootfs") {
            files(&path, found);
        }
        found.insert(Leak::File(path, kind(file_type)));
    }
}

/// Whether this is containerd's persistent data, which it collects in its own time. What a shim
/// may leave there, the work folders of tasks, counts nevertheless.
fn is_content(path: &Path) -> bool {
    let Ok(inner) = path.strip_prefix(isolation::DIR) else { return false };
    let mut parts = inner.components().skip(1).map(|part| part.as_os_str());
    let root = parts.next().is_some_and(|part| part == "root");
    root && parts.next().is_some_and(|part| part != "io.containerd.runtime.v2.task")
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        kind if kind.is_dir() => "folder",
        kind if kind.is_symlink() => "symlink",
        kind if kind.is_socket() => "socket",
        kind if kind.is_fifo() => "fifo",
        _ => "file",
    }
}
