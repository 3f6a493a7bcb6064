//! Making and ending processes.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
};

use nix::errno::Errno;

use super::Result;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone we are on.
#[derive(Debug)]
pub(crate) enum Cloned {
    /// The new process.
    Child,
    /// The process that made it; the pid is as this process's pid namespace numbers it.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `struct clone_args` up to `cgroup` (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Makes a process beside the calling one, as a child of its parent: clone3(2) with
/// `CLONE_PARENT` and `CLONE_PIDFD`.
///
/// Only for a process with one thread, as the stem is: then the child finds no lock taken by a
/// thread that it does not have.
pub(crate) fn clone_process(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
    let parent = u64::try_from(libc::CLONE_PARENT | libc::CLONE_PIDFD).expect("both are positive");
    // With CLONE_PARENT the child takes the stem's own exit signal, and this one must be 0.
    let mut args = CloneArgs { flags: flags | parent, exit_signal: 0, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    clone_with(args)
}

fn clone_with(mut args: CloneArgs) -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: `args` and `pidfd` live for the length of the call. Without CLONE_VM the child runs
    // on its own copy of this memory, like after fork(2), in a process with one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    sides(pid, pidfd)
}

fn sides(pid: libc::c_long, pidfd: RawFd) -> Result<Cloned> {
    let pid = Errno::result(pid)?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    let pid = i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned::Parent { pid, pidfd })
}

/// Makes a child of the calling process, clone(2) with `CLONE_PIDFD`; like [`clone_process`].
///
/// The older call, because a container's seccomp filter may be in force: most know no clone3.
pub(crate) fn clone_own_child() -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
    let (no_stack, unused) = (0_usize, 0_usize);
    // SAFETY: `pidfd` lives for the length of the call. Without CLONE_VM the child runs on its own
    // copy of this memory, like after fork(2), in a process with one thread.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, flags, no_stack, &raw mut pidfd, unused, unused) };
    sides(pid, pidfd)
}

/// Executes an open program in a child, which keeps one descriptor beside the standard streams; the
/// others are close-on-exec. Returns at once: a program that can't be executed ends its child.
///
/// vfork(2) would have the caller wait until the program is in place.
pub(crate) fn spawn(
    program: BorrowedFd<'_>,
    arguments: [&CStr; 3],
    kept: BorrowedFd<'_>,
) -> Result<i32> {
    let [name, first, second] = arguments.map(CStr::as_ptr);
    let arguments = [name, first, second, ptr::null()];
    let none: *const *const libc::c_char = &ptr::null();
    let (program, kept) = (program.as_raw_fd(), kept.as_raw_fd());
    // SAFETY: the child calls the kernel and nothing else, whatever locks other threads hold.
    let pid = unsafe { libc::fork() };
    if Errno::result(pid)? != 0 {
        return Ok(pid);
    }
    // SAFETY: F_SETFD takes an integer.
    unsafe { libc::fcntl(kept, libc::F_SETFD, 0) };
    let (flags, path) = (libc::AT_EMPTY_PATH, c"".as_ptr());
    // SAFETY: both tables end with a null pointer and point to C strings, which the child has too.
    unsafe { libc::syscall(libc::SYS_execveat, program, path, arguments.as_ptr(), none, flags) };
    exit(127)
}

/// Ends the process without running anything on the way out, _exit(2).
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit takes an integer and has no precondition.
    unsafe { libc::_exit(code) }
}
