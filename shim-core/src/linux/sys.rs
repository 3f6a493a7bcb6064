//! System calls that nix lacks or that need `unsafe`: one safe function each, no policy.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::OpenOptions,
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use tokio::io::{Interest, unix::AsyncFd};

use super::spawn::{Pids, Program};
use crate::model::{ExitStatus, Pid, Signal, WindowSize};

/// The `__WALL` of waitid(2): children whatever their exit signal, a container's init too.
const WALL: i32 = libc::__WALL;

/// A child that has ended, as waitid(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) pid: Pid,
    pub(crate) status: ExitStatus,
}

/// Whom waitid(2) waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Child<'fd> {
    Any,
    Pid(Pid),
    Pidfd(BorrowedFd<'fd>),
}

/// Above every number that a child is given, so that no dup2 closes what the next one needs.
const ASIDE: i32 = 64;
/// How many descriptors a gated child can be given.
const MOST_STREAMS: usize = 32;

/// Looks for an ended child and leaves it there, waitid(2) with `WNOWAIT`.
pub(crate) fn peek(child: Child<'_>) -> io::Result<Option<Ended>> {
    waitid(child, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | WALL)
}

/// Collects an ended child if there is one, waitid(2).
pub(crate) fn reap(child: Child<'_>) -> io::Result<Option<Ended>> {
    waitid(child, libc::WEXITED | libc::WNOHANG | WALL)
}

fn waitid(child: Child<'_>, options: i32) -> io::Result<Option<Ended>> {
    let (kind, id) = match child {
        Child::Any => (libc::P_ALL, 0),
        Child::Pid(pid) => (libc::P_PID, pid.get()),
        Child::Pidfd(fd) => (libc::P_PIDFD, fd.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: siginfo_t is plain data, for which all zeros is a value.
    let mut told: libc::siginfo_t = unsafe { mem::zeroed() };
    loop {
        // SAFETY: `told` is a live siginfo_t for the length of the call; waitid writes no more.
        let done = unsafe { libc::waitid(kind, id, &raw mut told, options) };
        if done == 0 {
            break;
        }
        let err = io::Error::last_os_error();
        if err.kind() != io::ErrorKind::Interrupted {
            return Err(err);
        }
    }
    // SAFETY: waitid filled the child's fields, or left the zeros of a call with nothing to tell.
    let pid = unsafe { told.si_pid() };
    let Ok(pid) = Pid::new(pid) else { return Ok(None) };
    // SAFETY: as above.
    let status = unsafe { told.si_status() };
    Ok(Some(Ended { pid, status: exit_status(told.si_code, status) }))
}

fn exit_status(code: i32, status: i32) -> ExitStatus {
    let number = u32::try_from(status).unwrap_or(u32::MAX);
    match code {
        // exit(3) keeps the low eight bits.
        libc::CLD_EXITED => ExitStatus::Code((number & 0xff) as u8),
        libc::CLD_KILLED | libc::CLD_DUMPED => {
            Signal::parse(number).map_or(ExitStatus::Unknown, ExitStatus::Signal)
        }
        _ => ExitStatus::Unknown,
    }
}

/// Gives the kernel back what the allocator keeps and nobody uses, malloc_trim(3).
pub(crate) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer, and locks what it walks over.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Opens a process by its id, pidfd_open(2).
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.raw(), 0) })
}

/// Signals the process behind a pidfd, pidfd_send_signal(2).
pub(crate) fn pidfd_signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    let number = i32::from(signal.number());
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the length of the call; no siginfo is passed.
    nothing(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, none, 0) })
}

/// Gives our process group a core-scheduling cookie of its own, prctl(2) with `PR_SCHED_CORE`.
pub(crate) fn schedule_apart() -> io::Result<()> {
    let (own, none): (libc::c_ulong, libc::c_ulong) = (0, 0);
    let (create, group) = (libc::PR_SCHED_CORE_CREATE, libc::PR_SCHED_CORE_SCOPE_PROCESS_GROUP);
    // SAFETY: takes integers, the last of which is an address and null.
    nothing(unsafe { libc::prctl(libc::PR_SCHED_CORE, create, own, group, none) }.into())
}

/// Registers a descriptor with the runtime; it has to be non-blocking for reads and writes.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always returns the same descriptor, open for as long as it lives.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// Sets a terminal's size, ioctl_tty(2).
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size =
        libc::winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives for the length of the call.
    nothing(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())
}

/// How many bytes wait in a pipe, ioctl(2) with `FIONREAD`.
pub(crate) fn unread(pipe: BorrowedFd<'_>) -> io::Result<i32> {
    let mut bytes = 0;
    // SAFETY: FIONREAD writes one int, which lives for the length of the call.
    nothing(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) }.into())?;
    Ok(bytes)
}

/// Opens a filesystem of a type, to be configured, fsopen(2).
pub(crate) fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the type is a C string that lives for the length of the call.
    descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// Sets one option of a filesystem, fsconfig(2).
pub(crate) fn fsconfig_string(fs: BorrowedFd<'_>, key: &CStr, value: &str) -> io::Result<()> {
    let value = CString::new(value)?;
    let (fd, command) = (fs.as_raw_fd(), libc::FSCONFIG_SET_STRING);
    let (key, value) = (key.as_ptr(), value.as_ptr());
    // SAFETY: key and value are C strings that live for the length of the call.
    nothing(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) })
}

/// Makes the configured filesystem, fsconfig(2).
pub(crate) fn fsconfig_create(fs: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, command) = (fs.as_raw_fd(), libc::FSCONFIG_CMD_CREATE);
    let none: *const libc::c_char = std::ptr::null();
    // SAFETY: this command takes neither key nor value.
    nothing(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, none, none, 0) })
}

/// Makes a detached read-only mount of a filesystem, fsmount(2).
pub(crate) fn fsmount_readonly(fs: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
    let fd = fs.as_raw_fd();
    // SAFETY: fsmount takes integers only.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, fd, libc::FSMOUNT_CLOEXEC, attributes) })
}

/// Opens one name below a directory for execution, openat(2) with `O_PATH`.
pub(crate) fn open_path_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let name = CString::new(name.as_bytes())?;
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: the name is a C string that lives for the length of the call.
    descriptor(unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) }.into())
}

/// What a loop device may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoopFlags {
    pub(crate) is_readonly: bool,
    pub(crate) is_direct: bool,
}

/// `struct loop_config` of linux/loop.h, with the parts that stay zero in lumps.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size_to_encryption: [u32; 14],
    flags: u32,
    names_to_end: [u64; 30],
}

/// The number of a loop device that nobody uses, ioctl(2) with `LOOP_CTL_GET_FREE`.
pub(crate) fn loop_free(control: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), 0x4c82) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Puts a loop device over a file until its last user is gone, ioctl(2) with `LOOP_CONFIGURE`.
pub(crate) fn loop_configure(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    flags: LoopFlags,
) -> io::Result<()> {
    const AUTOCLEAR: u32 = 4;
    let flags = AUTOCLEAR | u32::from(flags.is_readonly) | u32::from(flags.is_direct) << 4;
    let fd = file.as_raw_fd().unsigned_abs();
    let config = LoopConfig { fd, block_size_to_encryption: [0; 14], flags, names_to_end: [0; 30] };
    // SAFETY: LOOP_CONFIGURE reads one loop_config, which lives for the length of the call.
    nothing(unsafe { libc::ioctl(device.as_raw_fd(), 0x4c0a, &raw const config) }.into())
}

/// Takes a descriptor that a call has just made.
fn descriptor(answer: libc::c_long) -> io::Result<OwnedFd> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(answer).expect("a file descriptor is an int");
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn nothing(answer: libc::c_long) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Which side of a fork we are on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forked {
    Parent(Pid),
    Child,
}

/// Forks a process that goes on by itself: in a session of its own, its standard streams on
/// `/dev/null`, fork(2).
///
/// For a process with one thread.
pub(crate) fn fork_daemon() -> io::Result<Forked> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: this process has one thread, so the child's memory is in order.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: takes nothing and touches no memory.
            unsafe { libc::setsid() };
            for standard in 0..3 {
                // SAFETY: integers only; the standard streams are nobody's property.
                unsafe { libc::dup2(null.as_raw_fd(), standard) };
            }
            Ok(Forked::Child)
        }
        pid => Ok(Forked::Parent(Pid::new(pid).map_err(io::Error::other)?)),
    }
}

/// Closes a descriptor that came from whoever executed this process.
pub(crate) fn close_inherited(fd: i32) -> io::Result<()> {
    // SAFETY: F_GETFD touches no memory, and fails on a descriptor that is not open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Ok(());
    }
    // SAFETY: it has survived an exec, and nothing here opens a descriptor that would: nobody in
    // this process knows it.
    nothing(unsafe { libc::close(fd) }.into())
}

/// Blanks the last word of the command line that `/proc/PID/cmdline` shows, if it is `word`. The
/// bounds of the command line are those of proc_pid_stat(5).
///
/// For a process with one thread, which does not read its arguments again.
pub(crate) fn blank_last_argument(bounds: std::ops::Range<usize>, word: &CStr) {
    let bytes = word.to_bytes_with_nul();
    let Some(start) = bounds.end.checked_sub(bytes.len()) else { return };
    if start <= bounds.start {
        return;
    }
    let last = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel has put the arguments there, on the stack's far end, readable and writable.
    let shown = unsafe { std::slice::from_raw_parts_mut(last, bytes.len()) };
    if shown == bytes {
        shown.fill(0);
    }
}

/// The pointers of a C vector, which borrow from `strings` without the compiler's knowledge.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Keeps a descriptor from being inherited by programs.
pub(crate) fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: F_SETFD touches no memory.
    nothing(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) }.into())
}

/// Forks a child that waits for a byte on `gate` before it runs a program; without one it ends. What
/// keeps it from running goes into `gate` as an errno. `ours` is the gate's other side.
///
/// For a process with one thread.
pub(crate) fn spawn_gated(
    program: &Program,
    pids: Pids,
    gate: BorrowedFd<'_>,
    ours: BorrowedFd<'_>,
) -> io::Result<Pid> {
    let (argv, envp) = (pointers(&program.arguments), pointers(&program.environment));
    let namespaces = match pids {
        Pids::Shared => 0,
        Pids::Own => libc::CLONE_NEWPID,
    };
    let (flags, none) = (libc::c_long::from(namespaces | libc::SIGCHLD), 0_usize);
    // SAFETY: without a stack and shared memory, clone(2) is fork. This process has one thread, so the
    // child's memory is in order.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match i32::try_from(pid).unwrap_or(-1) {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: the child's copy alone, which would keep the gate from ever ending.
            unsafe { libc::close(ours.as_raw_fd()) };
            // SAFETY: this is the child of a single-threaded process; the vectors are its own.
            unsafe { wait_and_run(program, gate.as_raw_fd(), &argv, &envp) }
        }
        pid => Pid::new(pid).map_err(io::Error::other),
    }
}

/// The child's side of [`spawn_gated`]: system calls only.
///
/// # Safety
/// Only in a freshly forked child. `argv` and `envp` end with a null pointer and point to C strings.
unsafe fn wait_and_run(
    program: &Program,
    gate: i32,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> ! {
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte long, as said.
    if unsafe { libc::read(gate, (&raw mut byte).cast(), 1) } != 1 {
        // SAFETY: ends this process, running nothing of the parent's.
        unsafe { libc::_exit(127) };
    }
    // SAFETY: takes nothing.
    unsafe { libc::setsid() };
    // SAFETY: sets a disposition that Rust's startup has changed.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut none = mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: writes a whole set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set has just been written.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: integers only. Out of the way of the numbers that are given out below.
    let gate = unsafe { libc::fcntl(gate, libc::F_DUPFD_CLOEXEC, ASIDE) };
    let mut aside = [-1; MOST_STREAMS];
    for (place, stream) in aside.iter_mut().zip(&program.streams) {
        // SAFETY: as above.
        *place = unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, ASIDE) };
    }
    let given = &aside[..program.streams.len().min(MOST_STREAMS)];
    // SAFETY: as above.
    let joined = (0..).zip(given).all(|(n, stream)| unsafe { libc::dup2(*stream, n) == n });
    let rest = given.len();
    // SAFETY: integers only. Whatever else the parent had open goes no further.
    unsafe { libc::syscall(libc::SYS_close_range, rest, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if let Some((soft, hard)) = program.files {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: reads one rlimit, which lives for the length of the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    if program.dies_with_us {
        // SAFETY: PR_SET_PDEATHSIG takes an integer.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    }
    if joined && program.terminal {
        // SAFETY: TIOCSCTTY takes an integer.
        unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    }
    // SAFETY: the directory is a C string.
    if joined && unsafe { libc::chdir(program.directory.as_ptr()) } == 0 {
        // SAFETY: the vectors end with a null pointer, by this function's contract.
        unsafe { libc::execve(program.path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    }
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or_default().to_ne_bytes();
    // SAFETY: four bytes, as said.
    unsafe { libc::write(gate, errno.as_ptr().cast(), errno.len()) };
    // SAFETY: as above.
    unsafe { libc::_exit(127) }
}
