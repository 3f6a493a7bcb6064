//! The runtimes that are compared.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::place::Place;
use crate::{peers::Peers, sh};

/// A runtime's command line.
pub(super) struct Subject {
    /// What fields and tables call it.
    pub(super) name: &'static str,
    /// As it says itself.
    pub(super) version: String,
    pub(super) program: PathBuf,
}

/// The one that is judged: the last of all.
pub(super) const OURS: &str = "ours";

impl Subject {
    /// The peers, and `ours` behind them. All have to be there: the explanations are about all.
    pub(super) fn all(peers: &Peers, ours: PathBuf) -> Result<Vec<Self>> {
        let peer = |name| peers.path(name).map(Path::to_owned);
        let programs = [
            ("runc", peer("runc")?),
            ("crun", peer("crun12")?),
            ("newer runc", peer("newer-runc")?),
            ("newer crun", peer("crun")?),
            (OURS, ours),
        ];
        programs.into_iter().map(|(name, program)| Self::new(name, program)).collect()
    }

    fn new(name: &'static str, program: PathBuf) -> Result<Self> {
        let version = sh::output(Command::new(&program).arg("--version"))
            .with_context(|| format!("ask {name} for its version"))?;
        let version = version.lines().next().unwrap_or_default();
        let version = version.rsplit(' ').next().unwrap_or_default().to_owned();
        ensure!(!version.is_empty(), "{name} has no version");
        Ok(Self { name, version, program })
    }

    pub(super) fn is_ours(&self) -> bool {
        self.name == OURS
    }

    /// A call of it, with nothing of our environment but the search path.
    pub(super) fn command(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir(&place.bundle).stdin(Stdio::null());
        command.arg("--root").arg(place.state());
        command
    }
}
