//! A folder of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mounts;

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it.
    ///
    /// # Errors
    /// When it is there, or cannot be made.
    pub fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it, as text for an argument.
    #[must_use]
    pub fn join(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is found by the leak check.
        let _ = mounts::remove_dir_all(&self.path);
    }
}
