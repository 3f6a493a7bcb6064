//! System calls that nix lacks or wraps in an allocation: one safe function each, no policy.
//!
//! Everything here may run in a fresh child of the stem, so nothing here allocates, locks or
//! logs: paths come as [`CStr`](std::ffi::CStr), descriptors are returned as `OwnedFd`, errors are
//! an `Errno`.

mod clone;
mod exec;
mod files;
mod mounts;
mod process;
mod socket;
mod system;
mod tap;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

pub(crate) use clone::{Cloned, clone_own_child, clone_process, exit, spawn};
pub(crate) use exec::{Vector, execute, map_bytes};
pub(crate) use files::*;
pub(crate) use mounts::*;
pub(crate) use process::*;
pub(crate) use socket::{FILES_PER_MESSAGE, Files, receive, send, send_some};
pub(crate) use system::*;
pub(crate) use tap::open_tap;

/// The result of a system call, without any allocation.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// Turns what `libc::syscall` returned into a result.
fn done(returned: libc::c_long) -> Result<()> {
    Errno::result(returned).map(drop)
}

/// Turns what `libc::syscall` returned into a descriptor.
///
/// # Safety
/// The call must be one that returns a descriptor made for the caller alone.
unsafe fn owned(returned: libc::c_long) -> Result<OwnedFd> {
    let raw = Errno::result(returned)?;
    let raw = RawFd::try_from(raw).map_err(|_| Errno::EBADF)?;
    // SAFETY: the caller promises that the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
