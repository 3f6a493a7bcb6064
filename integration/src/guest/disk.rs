//! The disk with our programs, made for each run.
//!
//! | in the guest | what it is |
//! |---|---|
//! | `/bed/agent` | this executable, as a service |
//! | `/bed/bin` | the programs under test, in `PATH` |
//! | `/bed/tests` | test programs by their names, in `PATH` |
//! | `/bed/target` | what of cargo's target folder they look for; the host's path leads here |
//! | `/bed/engines` | unpacked packages, for `SHIM_ENGINES` |

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, process};

use anyhow::{Context, Result};

use super::built::Program;
use super::{BED, agent, image, recipe};
use crate::debs::{Deb, Store};
use crate::target;

/// The folder of a run: the disk is made in it, and the guest leaves its console there.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    stays: bool,
}

impl Run {
    /// An empty folder in cargo's target folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        let dir = target::dir().join("guest").join(process::id().to_string());
        // Another process of this number is long gone.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("bed")).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir, stays: false })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Leaves the folder when the run is over.
    pub fn keep(&mut self) {
        self.stays = true;
    }

    /// Puts a file, or a folder with all that is in it, on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn put(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.dir.join("bed").join(to);
        copy(from, &to).with_context(|| format!("put {} on the guest's disk", from.display()))
    }

    /// Puts programs under test on the disk.
    ///
    /// # Errors
    /// When one is missing.
    pub fn put_programs(&self, dir: &Path, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| self.put(&dir.join(name), &format!("bin/{name}")))
    }

    /// Puts test programs on the disk, where cargo has them and by their names.
    ///
    /// # Errors
    /// When one is missing.
    pub fn put_tests(&self, programs: &[Program]) -> Result<()> {
        fs::create_dir_all(self.dir.join("bed/tests"))?;
        for Program { name, path } in programs {
            let inner = path.strip_prefix(target::dir()).context("a test lies elsewhere")?;
            let inner = Path::new("target").join(inner);
            self.put(path, &inner.to_string_lossy())?;
            symlink(Path::new(BED).join(inner), self.dir.join("bed/tests").join(name))?;
        }
        Ok(())
    }

    /// Puts packages on the disk.
    ///
    /// # Errors
    /// When one has not been fetched.
    pub fn put_engines(&self, store: &Store, debs: &[Deb]) -> Result<()> {
        debs.iter().try_for_each(|deb| {
            let to = format!("engines/{}/{}", deb.suite.name(), deb.package);
            self.put(&store.unpacked(*deb)?, &to)
        })
    }

    /// Makes the disk of all that was put on it, and of this executable as the agent.
    ///
    /// # Errors
    /// When a file cannot be copied or the disk not be made.
    pub fn disk(&self) -> Result<PathBuf> {
        let bed = self.dir.join("bed");
        // A cargo that we have run may have put another in its place.
        fs::copy("/proc/self/exe", bed.join("agent")).context("copy this executable")?;
        fs::create_dir_all(bed.join("target"))?;
        // Whoever looks for the target folder looks for this.
        fs::write(bed.join("target/CACHEDIR.TAG"), "")?;
        fs::write(bed.join(agent::TARGET), target::dir().to_string_lossy().as_bytes())?;
        let disk = self.dir.join("disk");
        image::make_disk(&bed, &disk, Some(recipe::LABEL), 0, &self.dir.join("mkfs.log"))?;
        fs::remove_dir_all(bed)?;
        Ok(disk)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.stays {
            // It is below the target folder, where the next one makes its own.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Copies, or links where both are on one file system.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
    }
    Ok(())
}
