//! A place where shims may leave what they like: nothing of it stays on the machine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;

/// Where shims of containerd up to 2.2 put their sockets, whatever they are told.
const SOCKETS: &str = "/run/containerd";

/// Gives this process mounts of its own, with an empty `/run/containerd`, and makes it the parent
/// of whatever loses its own: so all that a shim leaves is found.
///
/// To be called first, while the process has one thread.
///
/// # Errors
/// Without root's rights.
pub fn isolate() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "shims make mounts, namespaces and cgroups: run this as root"
    );
    unshare(CloneFlags::CLONE_NEWNS).context("get mounts of our own")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&Path>, "/", None::<&Path>, private, None::<&Path>)
        .context("keep our mounts to ourselves")?;
    fs::create_dir_all(SOCKETS).with_context(|| format!("create {SOCKETS}"))?;
    mount(Some("tmpfs"), SOCKETS, Some("tmpfs"), MsFlags::empty(), Some("mode=0711"))
        .with_context(|| format!("mount {SOCKETS}"))?;
    prctl::set_child_subreaper(true).context("become the parent of orphans")
}
