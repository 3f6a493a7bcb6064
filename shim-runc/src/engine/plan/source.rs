//! Files of the host that a plan needs: named here, opened by [`crate::engine::files`].

use std::path::PathBuf;

use super::{
    super::sys::{MountChange, Reach},
    Mappings,
};

/// A file of the host that a plan needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A tree of mounts, copied.
    Tree(Tree),
    /// The host's `/dev/null`, as a mount.
    Null,
    /// A device, as a mount.
    Device { path: PathBuf, kind: u32, number: u64 },
    /// A namespace of this `CLONE_NEW*` kind; with `other`, it must not be the shim's own.
    Namespace { path: PathBuf, kind: i32, other: bool },
    /// One of the standard streams.
    Stream(usize),
    /// What hooks print.
    Output,
    /// The container's init process.
    Init,
    /// Where the start comes from, when another process than the maker says so.
    Go,
    /// Where that process hears what went wrong.
    Answer,
    /// The container's state as its own hooks are told it.
    State,
    /// The cgroup's directory in the unified hierarchy.
    Unified,
}

/// A tree of mounts to copy, and what to change in the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) path: PathBuf,
    pub(crate) reach: Reach,
    /// `MS_SLAVE` or kin, for the whole copy; 0 leaves it.
    pub(crate) propagation: u64,
    pub(crate) changes: Vec<(Reach, MountChange)>,
    /// It is to be the container's `/proc`, and so has to be a procfs.
    pub(crate) is_proc: bool,
    /// Whose ids the files of the copy have.
    pub(crate) idmap: Option<(Idmap, Reach)>,
}

/// Where an idmapped mount takes its mappings from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Idmap {
    Mappings(Mappings),
    /// A user namespace that exists.
    Namespace(PathBuf),
}
