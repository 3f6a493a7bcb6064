//! Debian packages, unpacked into a private folder: nothing is installed, no system list changes.
//!
//! A package's folder appears by a rename once it is complete, so one that exists is whole and is
//! never fetched again. The place is `engines` in cargo's target folder; `SHIM_ENGINES` moves it.

mod apt;
mod patched;
mod sources;

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

use crate::target;

pub use self::patched::Patched;

/// Debian's suites, each with another containerd.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
    /// The one after.
    Forky,
    /// Debian 12, with newer programs.
    Backports,
}

impl Suite {
    const ALL: [Self; 4] = [Self::Bookworm, Self::Trixie, Self::Forky, Self::Backports];

    /// Its name in the archive.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Forky => "forky",
            Self::Backports => "bookworm-backports",
        }
    }
}

/// The line of apt's sources that brings a suite, from the archive that the machine itself uses.
#[must_use]
pub fn source(suite: Suite) -> String {
    sources::machine_archive().line(suite.name())
}

/// A package of a suite.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Deb {
    /// The suite that it comes from.
    pub suite: Suite,
    /// Its name in the archive.
    pub package: &'static str,
}

impl Deb {
    /// The container's programs: one static binary.
    pub const BUSYBOX: Self = Self { suite: Suite::Bookworm, package: "busybox-static" };
    /// What containerd's own shim drives.
    pub const RUNC: Self = Self { suite: Suite::Bookworm, package: "runc" };
    /// gVisor: a runtime whose containers have a kernel of their own.
    pub const RUNSC: Self = Self { suite: Suite::Backports, package: "runsc" };
    /// What gives pods their network.
    pub const CNI: Self = Self { suite: Suite::Bookworm, package: "containernetworking-plugins" };
    /// Counts system calls.
    pub const STRACE: Self = Self { suite: Suite::Bookworm, package: "strace" };
    /// Makes a Debian system in a folder: one program of Perl.
    pub const MMDEBSTRAP: Self = Self { suite: Suite::Bookworm, package: "mmdebstrap" };
    /// A library that strace needs and a small machine lacks.
    pub const UNWIND: Self = Self { suite: Suite::Bookworm, package: "libunwind8" };
}

/// The folder of unpacked packages.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store of this build, or the one that `SHIM_ENGINES` names.
    #[must_use]
    pub fn open() -> Self {
        let named = env::var_os("SHIM_ENGINES").map(PathBuf::from);
        Self { root: named.unwrap_or_else(|| target::dir().join("engines")) }
    }

    /// The folder of a package that was fetched before.
    ///
    /// # Errors
    /// When it was not.
    pub fn unpacked(&self, deb: Deb) -> Result<PathBuf> {
        let dir = self.root.join(deb.suite.name()).join(deb.package);
        ensure!(dir.is_dir(), "{} of {} has not been fetched", deb.package, deb.suite.name());
        Ok(dir)
    }

    /// Fetches those of `debs` that are missing. The rest stays usable when one of them fails.
    ///
    /// # Errors
    /// The first failure, after every package was tried.
    pub fn fetch(&self, debs: &[Deb]) -> Result<()> {
        if self.missing(debs).is_empty() {
            return Ok(());
        }
        let _lock = self.lock(".lock")?;
        // Another process may have fetched them while this one waited for the lock.
        let missing = self.missing(debs);
        if missing.is_empty() {
            return Ok(());
        }
        let apt = apt::Apt::new(&self.root.join(".apt"))?;
        missing.into_iter().map(|deb| self.add(&apt, deb)).fold(Ok(()), Result::and)
    }

    /// A folder below the store that `make` fills, once: one that exists is whole.
    ///
    /// # Errors
    /// Those of `make`, which leave nothing behind.
    pub fn made(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let dir = self.root.join(name);
        if dir.is_dir() {
            return Ok(dir);
        }
        let _lock = self.lock(".lock-made")?;
        // Another process may have made it while this one waited for the lock.
        if dir.is_dir() {
            return Ok(dir);
        }
        let partial = self.root.join(format!(".{}", name.replace('/', "-")));
        remove_dir_all(&partial)?;
        fs::create_dir_all(dir.parent().unwrap_or(&self.root))?;
        fs::DirBuilder::new().mode(0o755).create(&partial)?;
        let made = make(&partial).and_then(|()| Ok(fs::rename(&partial, &dir)?));
        if made.is_err() {
            // The failure to make it is what matters.
            let _ = remove_dir_all(&partial);
        }
        made.map(|()| dir)
    }

    /// Held until it is dropped; makes the store if need be.
    fn lock(&self, name: &str) -> Result<Flock<fs::File>> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("make the folder {}", self.root.display()))?;
        let lock = fs::File::create(self.root.join(name))?;
        Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .context("lock the store of packages")
    }

    /// Those that were not fetched, each once.
    fn missing(&self, debs: &[Deb]) -> HashSet<Deb> {
        debs.iter().copied().filter(|&deb| self.unpacked(deb).is_err()).collect()
    }

    fn add(&self, apt: &apt::Apt, deb: Deb) -> Result<()> {
        let suite = self.root.join(deb.suite.name());
        let partial = suite.join(format!(".{}", deb.package));
        remove_dir_all(&partial)?;
        // dpkg gives the folder the archive's mode; until then it is nobody else's business.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&partial)?;
        apt.unpack(deb, &partial)
            .with_context(|| format!("fetch {} of {}", deb.package, deb.suite.name()))?;
        fs::rename(&partial, suite.join(deb.package))?;
        Ok(())
    }
}

fn remove_dir_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
