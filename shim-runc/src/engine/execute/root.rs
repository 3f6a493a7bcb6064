//! Finding and making targets inside the root filesystem.
//!
//! The image may have put a symlink anywhere. Every lookup is one openat2(2) that has the root
//! filesystem for its root, so none leads out; what is missing is made name by name in a
//! directory that is open already. No path is ever built for the host's eyes.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::{
        stat::{Mode, mkdirat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

use super::{Done, Executor, Fault, In};
use crate::engine::{
    plan::place,
    step::Part,
    sys::{self, Resolve},
};

/// What a target has to be, where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// The most symlinks that lead nowhere on the way to one target.
const LINKS: usize = 40;

const MODE: u32 = 0o755;

impl Executor<'_> {
    /// Finds the target of a mount, or makes it.
    pub(super) fn target(&self, path: &CStr, kind: Kind, place: u64) -> Done<OwnedFd> {
        let root = self.root()?;
        if place & place::ORDINARY != 0 {
            return ordinary_directory(root, path);
        }
        let target = make(root, path, kind)?;
        if place & place::IN_PROC == 0 && is_proc(target.as_fd())? {
            return Err(Fault { part: Part::InsideProc, number: Errno::EPERM as i32 });
        }
        Ok(target)
    }
}

/// Whether a file is on a procfs.
pub(super) fn is_proc(file: BorrowedFd<'_>) -> Done<bool> {
    Ok(fstatfs(file).part(Part::Verify)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Finds what is there already; `None` when nothing is.
pub(super) fn find(root: BorrowedFd<'_>, path: &CStr) -> Done<Option<OwnedFd>> {
    match sys::open_in(root, path, libc::O_PATH, 0, Resolve::IN_ROOT) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Fault { part: Part::Target, number: errno as i32 }),
    }
}

/// Finds a directory that no symlink leads to, or makes it: a procfs or sysfs mounted through a
/// symlink could be one that the image chose.
fn ordinary_directory(root: BorrowedFd<'_>, path: &CStr) -> Done<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match sys::open_in(root, path, flags, 0, Resolve::IN_ROOT_PLAIN) {
        Err(Errno::ENOENT) => {}
        Err(errno @ (Errno::ELOOP | Errno::ENOTDIR)) => {
            return Err(Fault { part: Part::NotOrdinary, number: errno as i32 });
        }
        found => return found.part(Part::Target),
    }
    make(root, path, Kind::Directory)?;
    sys::open_in(root, path, flags, 0, Resolve::IN_ROOT_PLAIN).part(Part::NotOrdinary)
}

/// Finds a file or directory, or makes it and the directories above it.
pub(super) fn make(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Done<OwnedFd> {
    match sys::open_in(root, path, libc::O_PATH, 0, Resolve::IN_ROOT) {
        Err(Errno::ENOENT) => {}
        found => return found.part(Part::Target),
    }
    if let Some(made) = make_last(root, path, kind)? {
        return Ok(made);
    }
    let mut path = Path::new(path.to_bytes())?;
    for _ in 0..LINKS {
        if let Some(made) = walk(root, &mut path, kind)? {
            return Ok(made);
        }
    }
    Err(Fault { part: Part::Target, number: Errno::ELOOP as i32 })
}

/// Makes what is missing if that is no more than the last name, as it is most of the time. `None`
/// when there is more to it: a symlink that leads nowhere, or a directory above that is missing.
fn make_last(root: BorrowedFd<'_>, path: &CStr, kind: Kind) -> Done<Option<OwnedFd>> {
    let Ok((above, name)) = split(path) else { return Ok(None) };
    if above.is_empty() || is_dots(name) {
        return Ok(None);
    }
    let above = Path::new(above)?;
    let parent = sys::open_in(root, above.text(), libc::O_PATH, 0, Resolve::IN_ROOT);
    let Ok(parent) = parent else { return Ok(None) };
    match make_one(parent.as_fd(), name, kind) {
        Ok(()) => open_one(parent.as_fd(), name, kind).map(Some),
        Err(_) => Ok(None),
    }
}

/// Goes down a path and makes what is missing. At a symlink that leads nowhere it puts the
/// symlink's text into the path and returns `None`: start again.
fn walk(root: BorrowedFd<'_>, path: &mut Path, kind: Kind) -> Done<Option<OwnedFd>> {
    let mut parent =
        sys::open_in(root, c".", libc::O_PATH, 0, Resolve::IN_ROOT).part(Part::Target)?;
    let mut start = path.skip_slashes(0);
    while start < path.length {
        let end = path.end_of_name(start);
        let next = path.skip_slashes(end);
        let is_last = next >= path.length;
        parent = match path.open_until(end, root) {
            Ok(found) => found,
            Err(Errno::ENOENT) => {
                let name = Name::new(&path.bytes[start..end])?;
                if path.splice_link(&parent, &name, start, end)? {
                    return Ok(None);
                }
                let kind = if is_last { kind } else { Kind::Directory };
                match make_one(parent.as_fd(), name.text(), kind) {
                    // Another container that shares the directory was faster.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => {
                        return Err(Fault { part: Part::MakeTarget, number: errno as i32 });
                    }
                }
                open_one(parent.as_fd(), name.text(), kind)?
            }
            Err(errno) => return Err(Fault { part: Part::Target, number: errno as i32 }),
        };
        start = next;
    }
    Ok(Some(parent))
}

fn is_dots(name: &CStr) -> bool {
    name == c".." || name == c"."
}

/// Makes one file or directory in an open directory.
fn make_one(parent: BorrowedFd<'_>, name: &CStr, kind: Kind) -> sys::Result<()> {
    if is_dots(name) {
        return Err(Errno::EINVAL);
    }
    let mode = Mode::from_bits_truncate(MODE);
    match kind {
        Kind::Directory => mkdirat(parent, name, mode),
        Kind::File => {
            let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(parent, name, create, mode).map(drop)
        }
    }
}

/// Opens what has just been made.
fn open_one(parent: BorrowedFd<'_>, name: &CStr, kind: Kind) -> Done<OwnedFd> {
    let open = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = if kind == Kind::Directory { open | OFlag::O_DIRECTORY } else { open };
    openat(parent, name, open, Mode::empty()).part(Part::MakeTarget)
}

/// Cuts a path in front of its last name.
pub(super) fn split(path: &CStr) -> Done<(&[u8], &CStr)> {
    let malformed = Fault { part: Part::Plan, number: Errno::EINVAL as i32 };
    let start = path.to_bytes().iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (above, name) = path.to_bytes_with_nul().split_at(start);
    let name = CStr::from_bytes_with_nul(name).map_err(|_| malformed)?;
    if name.is_empty() { Err(malformed) } else { Ok((above, name)) }
}

/// Opens a directory, making it where it is missing.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Done<OwnedFd> {
    let path = Path::new(path)?;
    make(root, if path.length == 0 { c"." } else { path.text() }, Kind::Directory)
}

/// A path that can be cut and changed in place.
struct Path {
    bytes: [u8; Self::ROOM + 1],
    length: usize,
}

impl Path {
    const ROOM: usize = libc::PATH_MAX as usize;

    fn new(path: &[u8]) -> Done<Self> {
        let mut new = Self { bytes: [0; Self::ROOM + 1], length: path.len() };
        new.bytes[..Self::ROOM]
            .get_mut(..path.len())
            .ok_or(Fault { part: Part::Target, number: Errno::ENAMETOOLONG as i32 })?
            .copy_from_slice(path);
        Ok(new)
    }

    fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c".")
    }

    fn skip_slashes(&self, from: usize) -> usize {
        let rest = &self.bytes[from..self.length];
        from + rest.iter().take_while(|byte| **byte == b'/').count()
    }

    fn end_of_name(&self, from: usize) -> usize {
        let rest = &self.bytes[from..self.length];
        from + rest.iter().take_while(|byte| **byte != b'/').count()
    }

    /// Opens the path up to a place.
    fn open_until(&mut self, end: usize, root: BorrowedFd<'_>) -> sys::Result<OwnedFd> {
        let byte = std::mem::replace(&mut self.bytes[end], 0);
        let opened = sys::open_in(root, self.text(), libc::O_PATH, 0, Resolve::IN_ROOT);
        self.bytes[end] = byte;
        opened
    }

    /// Puts a symlink's text in the place of its name; false when the name is no symlink.
    fn splice_link(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        start: usize,
        end: usize,
    ) -> Done<bool> {
        let mut link = [0; Self::ROOM];
        let length = match sys::read_link(parent.as_fd(), name.text(), &mut link) {
            Ok(length) => length,
            Err(Errno::ENOENT | Errno::EINVAL) => return Ok(false),
            Err(errno) => return Err(Fault { part: Part::Target, number: errno as i32 }),
        };
        let link = &link[..length];
        let rest = self.length - end;
        // An absolute text begins at the root; a relative one in the symlink's directory.
        let start = if link.first() == Some(&b'/') { 0 } else { start };
        if start + length + rest > Self::ROOM {
            return Err(Fault { part: Part::Target, number: Errno::ENAMETOOLONG as i32 });
        }
        self.bytes.copy_within(end..self.length, start + length);
        self.bytes[start..start + length].copy_from_slice(link);
        self.length = start + length + rest;
        self.bytes[self.length] = 0;
        Ok(true)
    }
}

/// One name of a path, with a NUL behind it.
struct Name([u8; 256]);

impl Name {
    fn new(name: &[u8]) -> Done<Self> {
        let mut new = Self([0; 256]);
        new.0[..255]
            .get_mut(..name.len())
            .ok_or(Fault { part: Part::Target, number: Errno::ENAMETOOLONG as i32 })?
            .copy_from_slice(name);
        Ok(new)
    }

    fn text(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c".")
    }
}
