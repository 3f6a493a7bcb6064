//! Where a mount goes: below the root filesystem, whatever links lie on the way.
//!
//! openat2(2) resolves as if the root filesystem were the root: neither a link nor a `..` leads out.
//! What is mounted on is the descriptor, so nothing can be put in between.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, mkdirat},
};

use crate::error::{Context, Error, Result};

/// A directory to mount on.
#[derive(Debug)]
pub(super) struct Target {
    root: PathBuf,
    below: PathBuf,
    /// `None` for the root filesystem itself, which is containerd's and no container's to change.
    found: Option<OwnedFd>,
}

impl Target {
    /// Finds a target, or makes it.
    ///
    /// # Errors
    /// Which part could not be found or made.
    pub(super) fn find(root: &Path, target: &str) -> Result<Self> {
        let below: PathBuf = target.trim_start_matches('/').into();
        let mut target = Self { root: root.to_owned(), below, found: None };
        target.again()?;
        Ok(target)
    }

    /// Finds what is mounted there now: a descriptor from before is below it.
    ///
    /// # Errors
    /// As [`Target::find`].
    pub(super) fn again(&mut self) -> Result<()> {
        if is_root(&self.below) {
            return Ok(());
        }
        let open = File::open(&self.root);
        let root = open.with_context(|| format!("open {}", self.root.display()))?;
        self.found = Some(find_or_make(&root, &self.below).with_context(|| {
            format!("find {} in {}", self.below.display(), self.root.display())
        })?);
        Ok(())
    }

    /// A path for mount(2).
    pub(super) fn path(&self) -> PathBuf {
        self.found.as_ref().map_or_else(
            || self.root.clone(),
            |fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
        )
    }

    /// A path for people.
    pub(super) fn name(&self) -> PathBuf {
        if is_root(&self.below) { self.root.clone() } else { self.root.join(&self.below) }
    }
}

/// Whether a path stands for the root of the filesystem.
pub(super) fn is_root(below: &Path) -> bool {
    below.as_os_str().is_empty()
}

fn find_or_make(root: &File, below: &Path) -> Result<OwnedFd> {
    match open_in(root, below) {
        Err(Errno::ENOENT) => {}
        found => return found.map_err(Error::from),
    }
    // Part by part: each is resolved anew from the root, and made in what the last one led to.
    let mut parent: OwnedFd = root.try_clone().context("share the root")?.into();
    let mut reached = PathBuf::new();
    for part in below.components() {
        reached.push(part);
        parent = match open_in(root, &reached) {
            Err(Errno::ENOENT) => {
                let name: &Path = part.as_ref();
                let made = mkdirat(&parent, name, Mode::from_bits_truncate(0o755));
                made.with_context(|| format!("make {}", reached.display()))?;
                open_in(root, &reached)
            }
            found => found,
        }
        .with_context(|| format!("open {}", reached.display()))?;
    }
    Ok(parent)
}

fn open_in(root: &File, below: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat2(root, below, OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT))
}
