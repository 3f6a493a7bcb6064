//! Devices and symlinks of `/dev`, masks and read-only paths.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, fstat, mknodat},
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat},
};

use super::{Done, Executor, Fault, In, mounts, root, word};
use crate::engine::{
    step::Part,
    sys::{self, Reach, attribute},
    wire::Slot,
};

/// A node to make.
pub(super) struct Device {
    pub(super) kind: u64,
    pub(super) number: u64,
    pub(super) mode: u64,
    pub(super) uid: u64,
    pub(super) gid: u64,
}

impl<'plan> Executor<'plan> {
    pub(super) fn make_device(&mut self, path: &'plan CStr, device: &Device) -> Done {
        let (directory, name) = self.node(path)?;
        let kind = SFlag::from_bits_truncate(word(device.kind)?);
        let mode = Mode::from_bits_truncate(word(device.mode)?);
        match mknodat(directory, name, kind, mode, device.number) {
            // The image's own, which no one but the container will use.
            Err(Errno::EEXIST) => return Ok(()),
            made => made?,
        }
        let (uid, gid) = (word(device.uid)?, word(device.gid)?);
        if (uid, gid) == (0, 0) {
            return Ok(());
        }
        // What is there now is what was just made, or somebody exchanged it.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node = openat(directory, name, flags, Mode::empty()).part(Part::Verify)?;
        let found = fstat(&node).part(Part::Verify)?;
        let found_kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        let is_numbered = kind != SFlag::S_IFIFO;
        if found_kind != kind || (is_numbered && found.st_rdev != device.number) {
            return Err(Fault { part: Part::Verify, number: Errno::EEXIST as i32 });
        }
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        fchownat(&node, c"", owner.0, owner.1, AtFlags::AT_EMPTY_PATH).part(Part::Owner)
    }

    pub(super) fn bind_device(&self, tree: Slot, path: &CStr) -> Done {
        let target = self.target(path, root::Kind::File, 0)?;
        sys::attach(self.file(tree)?, target.as_fd()).part(Part::Attach)
    }

    pub(super) fn link(&mut self, path: &'plan CStr, target: &CStr, replace: bool) -> Done {
        let (directory, name) = self.node(path)?;
        if replace {
            match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        match symlinkat(target, directory, name) {
            Err(Errno::EEXIST) if !replace => Ok(()),
            linked => Ok(linked?),
        }
    }

    /// The directory and the name of a node to make. Most are made in one directory, one after the
    /// other, and it is looked for once.
    fn node(&mut self, path: &'plan CStr) -> Done<(BorrowedFd<'_>, &'plan CStr)> {
        let (above, name) = root::split(path)?;
        let known = self.directory.take().filter(|(known, _)| *known == above);
        let found = match known {
            Some(found) => found,
            None => (above, root::directory(self.root()?, above)?),
        };
        let found = &*self.directory.insert(found);
        Ok((found.1.as_fd(), name))
    }

    /// Covers a path with nothing.
    pub(super) fn mask(&mut self, path: &CStr, null: Slot) -> Done {
        let Some(target) = root::find(self.root()?, path)? else { return Ok(()) };
        match mounts::kind_of(target.as_fd())? {
            root::Kind::Directory => self.mask_directory(&target),
            root::Kind::File => self.mask_file(&target, null),
        }
    }

    fn mask_directory(&mut self, target: &OwnedFd) -> Done {
        if let Some(empty) = &self.empty {
            let again = sys::clone_tree(empty.as_fd(), c"", Reach::Top).part(Part::Make)?;
            return sys::attach(again.as_fd(), target.as_fd()).part(Part::Attach);
        }
        let fs = sys::open_filesystem(c"tmpfs").part(Part::Open)?;
        for (key, value) in [(c"source", c"tmpfs"), (c"nr_blocks", c"1"), (c"nr_inodes", c"1")] {
            sys::configure(fs.as_fd(), key, Some(value)).part(Part::Configure)?;
        }
        sys::configure(fs.as_fd(), c"ro", None).part(Part::Configure)?;
        sys::create_filesystem(fs.as_fd()).part(Part::Make)?;
        let attributes =
            attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
        let empty = sys::detached(fs.as_fd(), attributes).part(Part::Make)?;
        sys::attach(empty.as_fd(), target.as_fd()).part(Part::Attach)?;
        // Only a mount that is in its place may be cloned, so the first one serves for the rest.
        self.empty = Some(empty);
        Ok(())
    }

    fn mask_file(&mut self, target: &OwnedFd, null: Slot) -> Done {
        let null = self.file(null)?;
        if self.null_placed {
            let again = sys::clone_tree(null, c"", Reach::Top).part(Part::Make)?;
            return sys::attach(again.as_fd(), target.as_fd()).part(Part::Attach);
        }
        sys::attach(null, target.as_fd()).part(Part::Attach)?;
        self.null_placed = true;
        Ok(())
    }

    /// Covers a path with itself, read-only.
    pub(super) fn protect(&self, path: &CStr) -> Done {
        let Some(target) = root::find(self.root()?, path)? else { return Ok(()) };
        let copy = sys::clone_tree(target.as_fd(), c"", Reach::Tree).part(Part::Make)?;
        mounts::seal(copy.as_fd())?;
        sys::attach(copy.as_fd(), target.as_fd()).part(Part::Attach)
    }
}
