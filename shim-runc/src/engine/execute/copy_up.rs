//! What the image has at a place, copied into a filesystem that will cover it: `tmpcopyup`.
//!
//! Both trees are walked by descriptors, and no symlink is followed: an image decides what is copied,
//! never from where. A mount below the place is not entered.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use libc::stat as Stat;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat},
    unistd::{Gid, Uid, fchownat, symlinkat},
};

use super::{Done, Fault, In};
use crate::engine::{
    step::Part,
    sys::{self, Entries},
};

/// The deepest tree that is copied: each level has descriptors, and its part of the stack.
const DEPTH: usize = 128;

/// Copies what is in a directory into the root of a mount.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Done {
    let from = open_directory(from, c".")?;
    let top = fstat(&from).part(Part::CopyUp)?;
    copy_directory(&from, &open_directory(to, c".")?, &top, DEPTH)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, own: &Stat, depth: usize) -> Done {
    let depth = depth
        .checked_sub(1)
        .ok_or(Fault { part: Part::CopyUp, number: Errno::ENAMETOOLONG as i32 })?;
    let mut entries = Entries::new();
    while let Some(name) = entries.next(from.as_fd()).part(Part::CopyUp)? {
        if name == c"." || name == c".." {
            continue;
        }
        let found = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).part(Part::CopyUp)?;
        copy_one(from, to, name, &found, own, depth)?;
    }
    Ok(())
}

fn copy_one(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    found: &Stat,
    above: &Stat,
    depth: usize,
) -> Done {
    let mode = Mode::from_bits_truncate(found.st_mode);
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFLNK {
        copy_link(from, to, name).part(Part::CopyUp)?;
        return own(to, name, found);
    }
    if kind == SFlag::S_IFDIR {
        mkdirat(to, name, Mode::S_IRWXU).part(Part::CopyUp)?;
        let copy = open_directory(to.as_fd(), name)?;
        if found.st_dev == above.st_dev {
            copy_directory(&open_directory(from.as_fd(), name)?, &copy, found, depth)?;
        }
        own(to, name, found)?;
        return fchmod(&copy, mode).part(Part::CopyUp);
    }
    if kind == SFlag::S_IFREG {
        let copy = copy_file(from, to, name).part(Part::CopyUp)?;
        own(to, name, found)?;
        // After the owner, whose change takes set-user-id bits away.
        return fchmod(&copy, mode).part(Part::CopyUp);
    }
    match mknodat(to, name, kind, mode, found.st_rdev) {
        Ok(()) => own(to, name, found),
        // A user namespace makes no devices; a socket without its owner is none.
        Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(Fault { part: Part::CopyUp, number: errno as i32 }),
    }
}

fn copy_link(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> sys::Result<()> {
    let mut text = [0; libc::PATH_MAX as usize];
    // One byte of it stays as the end.
    let room = text.len() - 1;
    sys::read_link(from.as_fd(), name, &mut text[..room])?;
    let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::ENAMETOOLONG)?;
    symlinkat(text, to, name)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> sys::Result<OwnedFd> {
    // O_NONBLOCK: it may have become a fifo.
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let from = openat(from, name, read, Mode::empty())?;
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let to = openat(to, name, write, Mode::S_IRUSR | Mode::S_IWUSR)?;
    while sys::send_file(to.as_fd(), from.as_fd())? > 0 {}
    Ok(to)
}

/// Gives a copy the owner of what was copied.
fn own(to: &OwnedFd, name: &CStr, found: &Stat) -> Done {
    let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
    match fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // An id that this user namespace doesn't map.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => Ok(()),
        Err(errno) => Err(Fault { part: Part::CopyUp, number: errno as i32 }),
    }
}

fn open_directory(above: BorrowedFd<'_>, name: &CStr) -> Done<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(above, name, flags, Mode::empty()).part(Part::CopyUp)
}
