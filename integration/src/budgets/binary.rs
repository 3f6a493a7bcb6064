//! Which shim is judged: the one that users would run, where it has been built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tally::say;
use crate::shim::Shim;
use crate::target;

/// The folder of a shim.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// For `SHIM_DIR` of the lane.
    pub(crate) dir: PathBuf,
    /// Whether its size, its memory and its system calls say anything.
    pub(crate) is_release: bool,
}

impl Judged {
    /// That of `SHIM_DIR`, else the release build, else a debug build that is made first.
    pub(crate) fn choose() -> Result<Self> {
        let shim = Shim::under_test();
        let (dir, is_release) = match std::env::var_os("SHIM_DIR").map(PathBuf::from) {
            Some(dir) => (dir, true),
            None => built(&shim)?,
        };
        let path = dir.join(shim.binary());
        let file = fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
        // Pages of a program just built count as dirty in whoever maps them, until they are on disk.
        file.sync_all().context("write the shim to disk")?;
        say(&format!("judging {}", path.display()));
        if !is_release {
            say("NOTE: that is a DEBUG build, as there is no release build beside it: size, \
                 memory and system calls are skipped; `cargo xtask build` makes what users run");
        } else if let Some(newer) = newer_source(&path) {
            say(&format!("NOTE: {} is newer: that build is OLD", newer.display()));
        }
        Ok(Self { dir, is_release })
    }

    /// The shim's file.
    pub(super) fn size(path: &Path) -> Result<u64> {
        Ok(fs::metadata(path).context("look at the shim")?.len().div_ceil(1024))
    }
}

fn built(shim: &Shim) -> Result<(PathBuf, bool)> {
    let own = target::profile_dir()?;
    let release = own.with_file_name("release");
    if !release.join(shim.binary()).is_file() {
        shim.build()?;
    }
    let is_release = release.join(shim.binary()).is_file();
    Ok(if is_release { (release, true) } else { (own, false) })
}

/// A source that has changed since, by the list that cargo writes beside what it builds.
fn newer_source(path: &Path) -> Option<PathBuf> {
    let list = fs::read_to_string(path.with_extension("d")).ok()?;
    let built = fs::metadata(path).ok()?.modified().ok()?;
    let is_newer = |source: &Path| {
        fs::metadata(source).and_then(|told| told.modified()).is_ok_and(|changed| changed > built)
    };
    let (_, sources) = list.split_once(": ")?;
    let sources = sources.split_whitespace().map(PathBuf::from);
    sources.into_iter().find(|source| source.is_file() && is_newer(source))
}
