//! The engine: makes containers by system calls alone.
//!
//! A container is a [`plan`] first: a list of steps, computed and checked here in the shim. The
//! [`stem`], a small process forked before the shim has threads, clones a child; the child
//! [`execute`]s the plan. After that clone nothing allocates, locks, logs or parses.

pub(crate) mod agent;
pub(crate) mod cgroup;
#[cfg(test)]
pub(crate) mod dice;
pub(crate) mod doors;
mod execute;
pub(crate) mod files;
pub(crate) mod hooks;
mod identity;
pub(crate) mod launch;
mod net;
pub(crate) mod oom;
pub(crate) mod plan;
mod report;
pub(crate) mod resctrl;
pub(crate) mod seccomp;
pub(crate) mod stem;
mod step;
#[expect(unsafe_code, reason = "raw system calls, one safe function each")]
pub(crate) mod sys;
pub(crate) mod talk;
mod wire;

pub(crate) use sys::send;

/// Tries whether this process may copy mounts of its mount namespace.
///
/// # Errors
/// EPERM when the namespace belongs to others.
pub(crate) fn may_copy_mounts() -> sys::Result<()> {
    use std::os::fd::AsFd;

    let root = std::fs::File::open("/").map_err(|_| nix::errno::Errno::EACCES)?;
    sys::clone_tree(root.as_fd(), c"", sys::Reach::Top).map(drop)
}
