//! The engine: makes containers by system calls alone.
//!
//! A container is a [`plan`] first: a list of steps, computed and checked here in the shim. The
//! [`stem`], a small process forked before the shim has threads, clones a child; the child
//! [`execute`]s the plan. After that clone nothing allocates, locks, logs or parses.

pub(crate) mod cgroup;
pub(crate) mod criu;
pub(crate) mod doors;
mod execute;
pub(crate) mod files;
pub(crate) mod hooks;
pub(crate) mod launch;
mod mountinfo;
pub(crate) mod oom;
pub(crate) mod plan;
mod report;
pub(crate) mod seccomp;
pub(crate) mod stem;
mod step;
#[expect(unsafe_code, reason = "raw system calls, one safe function each")]
pub(crate) mod sys;
pub(crate) mod talk;
mod wire;

pub(crate) use sys::send;
