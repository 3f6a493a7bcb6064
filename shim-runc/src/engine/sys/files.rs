//! Files and descriptors.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::errno::Errno;

use super::{Result, done, owned};

/// How openat2(2) resolves a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolve(u64);

impl Resolve {
    /// The directory is the root: no symlink, `..` or magic link leads out of it.
    pub(crate) const IN_ROOT: Self = Self(libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS);
    /// The same, and no symlink at all on the way.
    pub(crate) const IN_ROOT_PLAIN: Self =
        Self(libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_SYMLINKS);
    /// Below the directory, on the same mount, without any symlink: for files of procfs.
    pub(crate) const PLAIN: Self =
        Self(libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS);
}

/// `struct open_how`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a path by rules, openat2(2). The descriptor is close-on-exec.
pub(crate) fn open_in(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: Resolve,
) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    let how = OpenHow {
        flags: u64::from(flags.unsigned_abs()),
        mode: u64::from(mode),
        resolve: resolve.0,
    };
    loop {
        // SAFETY: the path ends with NUL and `how` lives for the length of the call.
        let opened = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                directory.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        // SAFETY: openat2 returns a descriptor made for us.
        match unsafe { owned(opened) } {
            // A rename on the way made the kernel unsure that the root was kept: openat2(2) asks
            // to try again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return opened,
        }
    }
}

/// Marks every descriptor from `first` on as close-on-exec, close_range(2).
pub(crate) fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;
    // SAFETY: marking descriptors changes nothing for those who hold them.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
}

/// Takes the one descriptor that was handed over by number at exec, and closes all others but the
/// standard streams and those `kept` behind them, which stand below it.
pub(crate) fn inherited(fd: RawFd, kept: u32) -> Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer, and fails on a descriptor that is not open.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    let (first, own) = (3 + kept, fd.unsigned_abs());
    for (from, to) in [(first, own.saturating_sub(1)), (own + 1, u32::MAX)] {
        if from <= to {
            // SAFETY: this process has opened none of its own yet.
            done(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) })?;
        }
    }
    // SAFETY: it is open, and whoever executed this process left it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes a descriptor whose owner will never drop it: the process runs another program or ends.
pub(crate) fn close_early(fd: BorrowedFd<'_>) {
    // SAFETY: the caller and the descriptor's owner use it no more.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Puts a copy of a descriptor at a number, open across exec; dup2(2).
pub(crate) fn place(fd: BorrowedFd<'_>, at: RawFd) -> Result<()> {
    if fd.as_raw_fd() == at {
        // dup2 of a descriptor onto itself leaves it close-on-exec.
        // SAFETY: F_SETFD takes an integer.
        return Errno::result(unsafe { libc::fcntl(at, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: both are integers; 0 to 2 are nobody's property in a process about to exec.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), at) }).map(drop)
}

/// Copies a descriptor to the lowest number from 3 on, close-on-exec.
pub(crate) fn lift(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: the kernel has just made it for us.
    unsafe { owned(libc::c_long::from(copy)) }
}

/// Whether the current directory can be named from the root: the kernel writes `(unreachable)`
/// in front of one that can't. getcwd(2), not the C library's, which works around that.
pub(crate) fn stands_below_root() -> Result<bool> {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes no more than the given length.
    let got = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    Errno::result(got)?;
    Ok(path[0] == b'/')
}

/// Whether the effective ids of this process may execute a file, faccessat2(2).
pub(crate) fn may_execute(file: &CStr) -> Result<()> {
    // SAFETY: the path ends with NUL.
    done(unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            file.as_ptr(),
            libc::X_OK,
            libc::AT_EACCESS,
        )
    })
}

/// Reads from a descriptor, read(2), again when a signal came between.
pub(crate) fn read(fd: impl AsFd, into: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(fd.as_fd(), into) {
            Err(Errno::EINTR) => {}
            read => return read,
        }
    }
}

/// The names in a directory, getdents64(2), without allocation.
pub(crate) struct Entries {
    bytes: [u8; 2048],
    at: usize,
    end: usize,
}

impl Entries {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; 2048], at: 0, end: 0 }
    }

    /// The next name in a directory that is open for reading; the same one each time.
    pub(crate) fn next(&mut self, directory: BorrowedFd<'_>) -> Result<Option<&CStr>> {
        /// What stands before a name in `struct linux_dirent64`, and where its own length is.
        const HEAD: usize = 19;
        const LENGTH: usize = 16;
        if self.at >= self.end {
            let (start, room) = (self.bytes.as_mut_ptr(), self.bytes.len());
            // SAFETY: the kernel writes no more than the given length.
            let got =
                unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), start, room) };
            self.end = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EIO)?;
            self.at = 0;
            if self.end == 0 {
                return Ok(None);
            }
        }
        let entry = &self.bytes[self.at..self.end];
        let length = entry.get(LENGTH..LENGTH + 2).and_then(|two| two.try_into().ok());
        let length = usize::from(u16::from_ne_bytes(length.ok_or(Errno::EIO)?));
        let name = entry.get(HEAD..length).ok_or(Errno::EIO)?;
        self.at += length;
        CStr::from_bytes_until_nul(name).map(Some).map_err(|_| Errno::EIO)
    }
}

/// Copies the next bytes from one file to another, sendfile(2); 0 at the end.
pub(crate) fn send_file(to: BorrowedFd<'_>, from: BorrowedFd<'_>) -> Result<usize> {
    const MOST: usize = 1 << 30;
    let none: *mut libc::off_t = std::ptr::null_mut();
    loop {
        // SAFETY: both are open for the length of the call; no offset is passed.
        let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), none, MOST) };
        match Errno::result(sent) {
            Err(Errno::EINTR) => {}
            sent => return usize::try_from(sent?).map_err(|_| Errno::EIO),
        }
    }
}

/// Writes all of a small text in one write(2), as files of the kernel want it.
pub(crate) fn write_whole(fd: impl AsFd, text: &[u8]) -> Result<()> {
    loop {
        match nix::unistd::write(fd.as_fd(), text) {
            Ok(written) if written == text.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err),
        }
    }
}

/// Reads a symlink's target, readlinkat(2); returns its length. EINVAL for what is no symlink.
pub(crate) fn read_link(directory: BorrowedFd<'_>, name: &CStr, into: &mut [u8]) -> Result<usize> {
    let (start, room) = (into.as_mut_ptr(), into.len());
    // SAFETY: the name ends with NUL; the kernel writes no more than the given length.
    let length = unsafe {
        libc::syscall(libc::SYS_readlinkat, directory.as_raw_fd(), name.as_ptr(), start, room)
    };
    let length = usize::try_from(Errno::result(length)?).map_err(|_| Errno::EIO)?;
    if length == room { Err(Errno::ENAMETOOLONG) } else { Ok(length) }
}
