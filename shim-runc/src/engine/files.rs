//! Opens what a plan names: the one part of making a container that looks at paths of the host.
//!
//! Everything is a descriptor from here on. What a path led to when it was opened is what the
//! container gets, whatever becomes of the path.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        stat::{Mode, SFlag, fstat, makedev, stat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};
use shim_core::{Context, Error, Result};

use super::{
    doors::Doors,
    plan::{Idmap, Mappings, Plan, Source, Tree},
    sys::{self, MountChange, Reach},
};

/// What a plan gets from its caller instead of from the host's tree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given<'a> {
    /// The standard streams; none with a terminal.
    pub(crate) streams: Option<[BorrowedFd<'a>; 3]>,
    /// The container's init process, as a pidfd.
    pub(crate) init: Option<BorrowedFd<'a>>,
    /// What hooks print goes here; else into memory.
    pub(crate) output: Option<BorrowedFd<'a>>,
    /// The way of another process to the init process.
    pub(crate) doors: Option<&'a Doors>,
    /// The container's cgroup of v2.
    pub(crate) unified: Option<BorrowedFd<'a>>,
}

/// User namespaces that exist for their mappings.
#[derive(Debug, Default)]
pub(crate) struct Spaces(Vec<(Mappings, OwnedFd)>);

impl Spaces {
    /// The one with these mappings.
    pub(crate) fn get(&self, mappings: &Mappings) -> Option<BorrowedFd<'_>> {
        self.0.iter().find(|(known, _)| known == mappings).map(|(_, space)| space.as_fd())
    }

    /// Adds one.
    pub(crate) fn add(&mut self, mappings: Mappings, space: OwnedFd) {
        self.0.push((mappings, space));
    }
}

/// A file for a plan.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    Own(OwnedFd),
    Lent(BorrowedFd<'a>),
}

impl AsFd for Opened<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Lent(fd) => *fd,
        }
    }
}

/// Opens all files of a plan, in its order.
///
/// # Errors
/// Which file could not be opened.
pub(crate) fn open_all<'a>(
    plan: &Plan,
    given: &Given<'a>,
    spaces: &Spaces,
) -> Result<Vec<Opened<'a>>> {
    plan.sources.iter().map(|source| open_one(source, given, spaces)).collect()
}

fn open_one<'a>(source: &Source, given: &Given<'a>, spaces: &Spaces) -> Result<Opened<'a>> {
    let missing = || Error::other("a file of the plan is missing");
    Ok(match source {
        Source::Tree(tree) => Opened::Own(copy_tree(tree, spaces)?),
        Source::Null => Opened::Own(device(Path::new("/dev/null"), libc::S_IFCHR, makedev(1, 3))?),
        Source::Device { path, kind, number } => Opened::Own(device(path, *kind, *number)?),
        Source::Namespace { path, kind, other } => Opened::Own(namespace(path, *kind, *other)?),
        Source::Stream(index) => {
            Opened::Lent(given.streams.map(|streams| streams[*index]).ok_or_else(missing)?)
        }
        Source::Output => Opened::Lent(given.output.ok_or_else(missing)?),
        Source::Init => Opened::Lent(given.init.ok_or_else(missing)?),
        Source::Go => Opened::Lent(given.doors.ok_or_else(missing)?.go.as_fd()),
        Source::Answer => Opened::Lent(given.doors.ok_or_else(missing)?.answer.as_fd()),
        Source::State => Opened::Lent(given.doors.ok_or_else(missing)?.state.as_fd()),
        Source::Unified => Opened::Lent(given.unified.ok_or_else(missing)?),
    })
}

/// Copies mounts of the host, as a tree that is mounted nowhere yet.
fn copy_tree(tree: &Tree, spaces: &Spaces) -> Result<OwnedFd> {
    let copy = || -> Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let source = open(&tree.path, flags, Mode::empty())?;
        if tree.is_proc && fstatfs(&source)?.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(Error::invalid("what is no procfs can't be /proc"));
        }
        let copy = sys::clone_tree(source.as_fd(), c"", tree.reach)?;
        if tree.propagation != 0 {
            let change = MountChange { propagation: tree.propagation, ..MountChange::default() };
            sys::change_mount(copy.as_fd(), Reach::Tree, &change)?;
        }
        for (reach, change) in &tree.changes {
            sys::change_mount(copy.as_fd(), *reach, change)?;
        }
        if let Some((idmap, reach)) = &tree.idmap {
            map_ids(copy.as_fd(), idmap, *reach, spaces).context("map its ids")?;
        }
        Ok(copy)
    };
    copy().with_context(|| format!("open {}", tree.path.display()))
}

/// Shows the ids of a mount's files as a user namespace maps them.
fn map_ids(mount: BorrowedFd<'_>, idmap: &Idmap, reach: Reach, spaces: &Spaces) -> Result<()> {
    let missing = || Error::other("the mount's user namespace is missing");
    let opened;
    let space = match idmap {
        Idmap::Mappings(mappings) => spaces.get(mappings).ok_or_else(missing)?,
        Idmap::Namespace(path) => {
            opened = namespace(path, libc::CLONE_NEWUSER, false)?;
            opened.as_fd()
        }
    };
    let change = MountChange {
        set: sys::attribute::IDMAP,
        user_namespace: u64::from(space.as_raw_fd().unsigned_abs()),
        ..MountChange::default()
    };
    Ok(sys::change_mount(mount, reach, &change)?)
}

/// Opens a device of the host as a mount, and makes sure that it is the one it should be.
fn device(path: &Path, kind: u32, number: u64) -> Result<OwnedFd> {
    let open = || -> sys::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let device = open(path, flags, Mode::empty())?;
        let found = fstat(&device)?;
        let kinds = SFlag::S_IFMT.bits();
        if found.st_mode & kinds != kind || found.st_rdev != number {
            return Err(Errno::ENODEV);
        }
        sys::clone_tree(device.as_fd(), c"", Reach::Top)
    };
    open().with_context(|| format!("open device {}", path.display()))
}

/// Opens a namespace and makes sure that it is one of the kind it should be.
fn namespace(path: &Path, kind: i32, other: bool) -> Result<OwnedFd> {
    let opened = || -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let namespace = open(path, flags, Mode::empty())?;
        if sys::namespace_kind(namespace.as_fd()) != Ok(kind) {
            return Err(Error::invalid("it is no namespace of the kind it is listed as"));
        }
        if other && kind == libc::CLONE_NEWNET {
            let (ours, found) = (stat("/proc/self/ns/net")?, fstat(&namespace)?);
            if (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino) {
                let why = "it is the host's, whose kernel parameters a container can't set";
                return Err(Error::invalid(why));
            }
        }
        Ok(namespace)
    };
    opened().with_context(|| format!("open namespace {}", path.display()))
}
