//! What peers made of bundles, from run to run: they change seldom, and are slow beside ours.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
};

use anyhow::{Context, Result};

use super::{bundle::Bundle, field::Fields, place::Programs, subject::Subject};
use crate::sh;

/// Answers by everything that they depend on.
pub(super) struct Memory {
    folder: PathBuf,
    /// What all have in common: kernel, probe, and how a round is played.
    machine: String,
    reads: bool,
}

/// How a round is played: an answer to another way of asking is none.
const ROUND: [&str; 7] = [
    include_str!("bundle.rs"),
    include_str!("outside.rs"),
    include_str!("place.rs"),
    include_str!("round.rs"),
    include_str!("streams.rs"),
    include_str!("terminal.rs"),
    include_str!("view.rs"),
];

impl Memory {
    /// With `reads` answers are taken from an earlier run; they are kept in any case.
    pub(super) fn new(programs: &Programs, reads: bool) -> Result<Self> {
        let folder = sh::target().join("compare");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let kernel = rustix::system::uname();
        let machine = format!(
            "{:?} {:?} {:016x} {:016x}",
            kernel.release(),
            kernel.version(),
            hash(&fs::read(&programs.probe).context("read the probe")?),
            hash(&ROUND),
        );
        Ok(Self { folder, machine, reads })
    }

    /// What a peer made of a bundle, if nothing has changed since.
    pub(super) fn known(&self, subject: &Subject, bundle: &Bundle) -> Option<Fields> {
        if !self.reads || subject.is_ours() {
            return None;
        }
        let text = fs::read(self.file(subject, bundle)).ok()?;
        serde_json::from_slice::<BTreeMap<String, String>>(&text).ok().map(Fields::from)
    }

    pub(super) fn keep(&self, subject: &Subject, bundle: &Bundle, seen: &Fields) -> Result<()> {
        if subject.is_ours() {
            return Ok(());
        }
        fs::write(self.file(subject, bundle), serde_json::to_vec(seen.all())?).context("remember")
    }

    fn file(&self, subject: &Subject, bundle: &Bundle) -> PathBuf {
        let whole = format!("{} {} {bundle:?}", self.machine, subject.version);
        self.folder.join(format!("{}-{:016x}", bundle.name, hash(&(subject.name, whole))))
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
