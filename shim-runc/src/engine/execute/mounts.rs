//! Mounts, from the first to the change of root.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, fstat},
    unistd::{chdir, chroot, fchdir, pivot_root},
};

use super::{Done, Executor, Fault, In, root};
use crate::engine::{
    step::Part,
    sys::{self, MountChange, Reach, attribute},
    wire::{Several, Slot, Text},
};

type Options<'plan> = Several<'plan, (Text, Option<Text>)>;

impl Executor<'_> {
    /// Mounts the root filesystem over `/`. The host's `/` stays this process's root until the
    /// change of root, so that paths of the host still work; the container's are found from the
    /// descriptor. This takes no path of the host, and needs no directory for a mount point.
    pub(super) fn attach_root(&mut self, tree: Slot) -> Done {
        let tree = self.file(tree)?;
        let host = open_root()?;
        // A shared parent would show the mount to the host, and can't be pivoted away from.
        let private = MountChange { propagation: libc::MS_PRIVATE, ..MountChange::default() };
        sys::change_mount(host.as_fd(), Reach::Top, &private).part(Part::Propagation)?;
        sys::attach(tree, host.as_fd()).part(Part::Attach)?;
        self.root = Some(sys::lift(tree)?);
        Ok(())
    }

    pub(super) fn bind(
        &self,
        tree: Slot,
        target: &CStr,
        propagation: Several<'_, u64>,
        place: u64,
    ) -> Done {
        let tree = self.file(tree)?;
        let target = self.target(target, kind_of(tree)?, place)?;
        put(&tree, &target, propagation)
    }

    pub(super) fn remount(
        &self,
        target: &CStr,
        options: Options<'_>,
        set: u64,
        clear: u64,
    ) -> Done {
        let Some(target) = root::find(self.root()?, target)? else {
            return Err(Fault { part: Part::Target, number: Errno::ENOENT as i32 });
        };
        if options.left() > 0 {
            let fs = sys::pick_filesystem(target.as_fd()).part(Part::Open)?;
            configure(fs.as_fd(), options)?;
            sys::reconfigure_filesystem(fs.as_fd()).part(Part::Make)?;
        }
        let change = MountChange { set, clear, ..MountChange::default() };
        sys::change_mount(target.as_fd(), Reach::Top, &change).part(Part::Flags)
    }

    /// Makes what is mounted at a path read-only.
    pub(super) fn seal(&self, path: &CStr) -> Done {
        match root::find(self.root()?, path)? {
            Some(target) => seal(target.as_fd()),
            None => Err(Fault { part: Part::Target, number: Errno::ENOENT as i32 }),
        }
    }

    pub(super) fn pivot_root(&self) -> Done {
        let host = open_root()?;
        fchdir(self.root()?)?;
        pivot_root(c".", c".")?;
        // The host's mounts are on top of the new root now. Taking them away must not reach the
        // host, wherever they were shared with it.
        fchdir(&host).part(Part::OldRoot)?;
        propagate(libc::MS_SLAVE | libc::MS_REC)?;
        umount2(c".", MntFlags::MNT_DETACH).part(Part::OldRoot)?;
        chdir(c"/").part(Part::OldRoot)
    }

    /// The root filesystem covers `/` already; this makes it the one that `/` means.
    pub(super) fn change_root(&self) -> Done {
        fchdir(self.root()?)?;
        chroot(c".")?;
        Ok(chdir(c"/")?)
    }
}

/// Sets the propagation of the current directory's mount: before the change of root that is the
/// host's `/`, after it the container's.
pub(super) fn propagate(flags: u64) -> Done {
    let none: Option<&CStr> = None;
    let flags = MsFlags::from_bits_retain(flags);
    mount(none, c".", none, flags, none).part(Part::Propagation)
}

/// Takes a mount of the host away. In a user namespace that is forbidden, and an empty read-only
/// filesystem covers it instead.
pub(super) fn hide(path: &CStr) -> Done {
    match umount2(path, MntFlags::MNT_DETACH) {
        Err(Errno::EINVAL | Errno::EPERM) => {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            Ok(mount(Some(c"tmpfs"), path, Some(c"tmpfs"), flags, None::<&CStr>)?)
        }
        hidden => Ok(hidden?),
    }
}

/// Makes a detached mount of a filesystem.
pub(super) fn make(kind: &CStr, options: Options<'_>, attributes: u64) -> Done<OwnedFd> {
    let fs = sys::open_filesystem(kind).part(Part::Open)?;
    configure(fs.as_fd(), options)?;
    sys::create_filesystem(fs.as_fd()).part(Part::Make)?;
    sys::detached(fs.as_fd(), attributes).part(Part::Make)
}

/// Puts a detached mount into its place.
pub(super) fn put(tree: &impl AsFd, target: &OwnedFd, propagation: Several<'_, u64>) -> Done {
    sys::attach(tree.as_fd(), target.as_fd()).part(Part::Attach)?;
    set_propagation(tree.as_fd(), propagation)
}

/// Mounts by mount(2), which takes options of any length. The target is named by its descriptor,
/// through the host's procfs, which is still there before the change of root.
pub(super) fn mount_whole(
    kind: &CStr,
    source: &CStr,
    target: &OwnedFd,
    flags: u64,
    options: &CStr,
    propagation: Several<'_, u64>,
) -> Done {
    use std::{io::Write, os::fd::AsRawFd};
    let mut path = [0_u8; 32];
    // A pid and a descriptor have ten digits each at most, so there is room.
    let written = write!(&mut path[..31], "/proc/self/fd/{}", target.as_raw_fd());
    let path = CStr::from_bytes_until_nul(&path).unwrap_or(c"");
    if written.is_err() {
        return Err(Fault { part: Part::Target, number: Errno::ENAMETOOLONG as i32 });
    }
    let flags = MsFlags::from_bits_retain(flags);
    mount(Some(source), path, Some(kind), flags, Some(options)).part(Part::Make)?;
    for flags in propagation {
        // The path now leads to the mount on top of the target.
        let flags = MsFlags::from_bits_retain(flags);
        mount(None::<&CStr>, path, None::<&CStr>, flags, None::<&CStr>).part(Part::Propagation)?;
    }
    Ok(())
}

/// Makes a mount read-only and leaves its other flags.
pub(super) fn seal(mount: BorrowedFd<'_>) -> Done {
    let change = MountChange { set: attribute::RDONLY, ..MountChange::default() };
    sys::change_mount(mount, Reach::Top, &change).part(Part::Flags)
}

/// Whether a mount is of a directory or of anything else.
pub(super) fn kind_of(tree: BorrowedFd<'_>) -> Done<root::Kind> {
    let mode = SFlag::from_bits_truncate(fstat(tree).part(Part::Verify)?.st_mode);
    let is_directory = mode & SFlag::S_IFMT == SFlag::S_IFDIR;
    Ok(if is_directory { root::Kind::Directory } else { root::Kind::File })
}

fn configure(fs: BorrowedFd<'_>, options: Options<'_>) -> Done {
    for (key, value) in options {
        sys::configure(fs, key, value).part(Part::Configure)?;
    }
    Ok(())
}

fn set_propagation(mount: BorrowedFd<'_>, propagation: Several<'_, u64>) -> Done {
    for flags in propagation {
        let reach = if flags & libc::MS_REC == 0 { Reach::Top } else { Reach::Tree };
        let propagation = flags & !libc::MS_REC;
        let change = MountChange { propagation, ..MountChange::default() };
        sys::change_mount(mount, reach, &change).part(Part::Propagation)?;
    }
    Ok(())
}

fn open_root() -> Done<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(c"/", flags, Mode::empty()).part(Part::Target)
}
