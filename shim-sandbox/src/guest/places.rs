//! Where things are in a guest.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use shim_core::{Context, Error, Result, model::ContainerId};

/// The folders of an agent, all in one.
#[derive(Clone, Debug)]
pub struct Places {
    root: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { root: "/run/shim".into() }
    }
}

impl Places {
    /// Folders in another place than a guest's.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that is not absolute.
    pub fn below(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        if !root.is_absolute() {
            return Err(Error::invalid(format!("{}: the path is not absolute", root.display())));
        }
        Ok(Self { root })
    }

    /// Makes the folders.
    pub(super) fn make(&self) -> Result<()> {
        for name in ["stdio", "bundles", "files", "share", "shm"] {
            let path = self.root.join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("make {}", path.display()))?;
        }
        Ok(())
    }

    /// The fifo of a stream, whose name its purpose has checked.
    pub(super) fn stdio(&self, name: &str) -> PathBuf {
        self.root.join("stdio").join(name)
    }

    pub(super) fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.root.join("bundles").join(id)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join("files").join(name)
    }

    /// The pod's /dev/shm.
    pub(super) fn shm(&self) -> PathBuf {
        self.root.join("shm")
    }

    /// Where the host's share is mounted.
    pub(super) fn share(&self) -> PathBuf {
        self.root.join("share")
    }

    /// The folder that holds all others.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }
}
