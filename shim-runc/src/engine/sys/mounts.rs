//! The mount API on descriptors (Linux 5.2 to 5.12).

use std::{
    ffi::CStr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use super::{Result, done, owned};

const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const AT_EMPTY_PATH: u32 = 0x1000;
const CLOEXEC: u32 = 1;
const TREE_CLOEXEC: u32 = 0o2_000_000;

/// Attributes of mounts, as mount_setattr(2) names them.
pub(crate) mod attribute {
    pub(crate) const RDONLY: u64 = 0x01;
    pub(crate) const NOSUID: u64 = 0x02;
    pub(crate) const NODEV: u64 = 0x04;
    pub(crate) const NOEXEC: u64 = 0x08;
    /// The mask of the three values below; 0 is relatime.
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const IDMAP: u64 = 0x10_0000;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// A change of a mount's attributes: `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountChange {
    /// Attributes to set.
    pub(crate) set: u64,
    /// Attributes to clear; before setting.
    pub(crate) clear: u64,
    /// `MS_SHARED` and kin, or 0.
    pub(crate) propagation: u64,
    /// The user namespace of an idmapped mount; only with `attribute::IDMAP`.
    pub(crate) user_namespace: u64,
}

/// How much of a mount tree is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The topmost mount.
    Top,
    /// With all mounts below it.
    Tree,
}

impl Reach {
    fn flag(self) -> u32 {
        if self == Self::Tree { AT_RECURSIVE } else { 0 }
    }
}

/// Opens a filesystem's configuration, fsopen(2).
pub(crate) fn open_filesystem(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: the name ends with NUL.
    let opened = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) };
    // SAFETY: fsopen returns a descriptor made for us.
    unsafe { owned(opened) }
}

/// Sets `key=value` of a filesystem, or `key` alone; fsconfig(2).
pub(crate) fn configure(fs: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let (command, value) = match value {
        None => (0, ptr::null()),
        Some(value) => (1, value.as_ptr()),
    };
    // SAFETY: both texts end with NUL and live for the length of the call.
    done(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), command, key.as_ptr(), value, 0)
    })
}

/// Makes the configured filesystem, fsconfig(2).
pub(crate) fn create_filesystem(fs: BorrowedFd<'_>) -> Result<()> {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    done(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0)
    })
}

/// Changes the options of the filesystem's superblock, fsconfig(2).
pub(crate) fn reconfigure_filesystem(fs: BorrowedFd<'_>) -> Result<()> {
    const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value.
    done(unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, none, none, 0)
    })
}

/// Picks the filesystem of a mount for reconfiguring, fspick(2).
pub(crate) fn pick_filesystem(mount: BorrowedFd<'_>) -> Result<OwnedFd> {
    const FSPICK_CLOEXEC: u32 = 1;
    const FSPICK_EMPTY_PATH: u32 = 8;
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is an empty literal.
    let picked = unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) };
    // SAFETY: fspick returns a descriptor made for us.
    unsafe { owned(picked) }
}

/// Makes a detached mount of a filesystem, fsmount(2).
pub(crate) fn detached(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    // SAFETY: all arguments are integers.
    let made = unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), CLOEXEC, attributes) };
    // SAFETY: fsmount returns a descriptor made for us.
    unsafe { owned(made) }
}

/// Copies a mount as a detached one, open_tree(2).
pub(crate) fn clone_tree(from: BorrowedFd<'_>, path: &CStr, reach: Reach) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | TREE_CLOEXEC | AT_EMPTY_PATH | reach.flag();
    // SAFETY: the path ends with NUL.
    let tree =
        unsafe { libc::syscall(libc::SYS_open_tree, from.as_raw_fd(), path.as_ptr(), flags) };
    // SAFETY: open_tree returns a descriptor made for us.
    unsafe { owned(tree) }
}

/// Puts a detached mount onto an open file or directory, move_mount(2).
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
    const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: both paths are empty literals.
    done(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty,
            target.as_raw_fd(),
            empty,
            flags,
        )
    })
}

/// Changes attributes and propagation of a mount, mount_setattr(2).
pub(crate) fn change_mount(
    mount: BorrowedFd<'_>,
    reach: Reach,
    change: &MountChange,
) -> Result<()> {
    let flags = AT_EMPTY_PATH | reach.flag();
    // SAFETY: the path is an empty literal and `change` lives for the length of the call.
    done(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(change),
            size_of::<MountChange>(),
        )
    })
}
