//! Names, interfaces, terminals and signals.

use std::{
    ffi::CStr,
    mem,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use nix::errno::Errno;

use super::{Result, done, owned};

/// Names the host of this uts namespace, sethostname(2).
pub(crate) fn set_hostname(name: &CStr) -> Result<()> {
    let length = name.to_bytes().len();
    // SAFETY: the name has that many bytes.
    done(unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), length) })
}

/// Names the NIS domain of this uts namespace, setdomainname(2).
pub(crate) fn set_domainname(name: &CStr) -> Result<()> {
    let length = name.to_bytes().len();
    // SAFETY: the name has that many bytes.
    done(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), length) })
}

/// Which `CLONE_NEW*` flag a namespace's descriptor stands for, ioctl_ns(2).
pub(crate) fn namespace_kind(namespace: BorrowedFd<'_>) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the ioctl takes no argument.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE as _) })
}

/// Brings this network namespace's loopback interface up, netdevice(7).
pub(crate) fn raise_loopback() -> Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes integers.
    let socket = unsafe { libc::socket(libc::AF_INET, kind, 0) };
    // SAFETY: socket returns a descriptor made for us.
    let socket = unsafe { owned(libc::c_long::from(socket)) }?;
    // SAFETY: all zeros is an interface request with an empty name.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed() as libc::c_char;
    }
    let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING);
    request.ifr_ifru.ifru_flags = flags.map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the ioctl reads the request, which lives for the length of the call.
    let raised =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    Errno::result(raised).map(drop)
}

/// Opens the other end of a terminal's master, without any path; ioctl_tty(2).
pub(crate) fn open_terminal_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    const TIOCGPTPEER: libc::c_ulong = 0x5441;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the ioctl takes open flags.
    let peer = unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER as _, flags) };
    // SAFETY: it returns a descriptor made for us.
    unsafe { owned(libc::c_long::from(peer)) }
}

/// Lets the other end of a terminal be opened, ioctl_tty(2).
pub(crate) fn unlock_terminal(master: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the ioctl reads an int, which lives for the length of the call.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const locked) };
    Errno::result(done).map(drop)
}

/// Makes a terminal the controlling one of this session, ioctl_tty(2).
pub(crate) fn take_terminal(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the ioctl takes an integer.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}

/// Sets a terminal's size in characters, ioctl_tty(2).
pub(crate) fn resize_terminal(terminal: BorrowedFd<'_>, height: u16, width: u16) -> Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl reads the size, which lives for the length of the call.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) };
    Errno::result(done).map(drop)
}

/// Gives every signal its default action and unblocks all of them, in this process.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // The C library's own signal() refuses the two that it keeps for threads; a program that
        // is executed later must not find them ignored, so the raw call is used.
        // SAFETY: all zeros is SIG_DFL with no flags, in the kernel's layout as well, whose
        // structure is no larger than the C library's.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        let none: *mut libc::sigaction = ptr::null_mut();
        // SAFETY: `default` lives for the length of the call. SIGKILL and SIGSTOP are refused,
        // which is as well.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, 8) };
    }
    let empty: u64 = 0;
    let none: *mut u64 = ptr::null_mut();
    // SAFETY: the kernel's signal set is one word, which lives for the length of the call.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const empty, none, 8)
    };
}

/// The id of this process, from the kernel: the C library's copy is of before the clone.
pub(crate) fn own_pid() -> i32 {
    // SAFETY: getpid takes nothing and can't fail.
    let pid = unsafe { libc::syscall(libc::SYS_getpid) };
    i32::try_from(pid).unwrap_or(-1)
}
