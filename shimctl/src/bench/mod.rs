//! Times shims against each other, in one run and in turn.
//!
//! A machine's speed drifts, so one shim after the other would measure the drift: here every round
//! goes through all of them. What counts are medians, and the ratio to the first shim named.

mod life;
mod memory;
mod report;

use std::path::PathBuf;

use anyhow::{Context, Result};
use shim_client::{Daemon, Rootfs, ShimBinary};
use shim_protos::Any;

pub(crate) use self::life::{Life, Phase};

/// A shim to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// What the report calls it.
    pub(crate) name: String,
    /// The shim.
    pub(crate) binary: ShimBinary,
    /// Its runtime options, `BinaryName` for one.
    pub(crate) options: Option<Any>,
}

/// How to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// containerd's part.
    pub(crate) daemon: Daemon,
    /// Where containers get their files from.
    pub(crate) rootfs: Rootfs,
    /// A folder for bundles and overlays.
    pub(crate) folder: PathBuf,
    /// Lives that count, for each shim.
    pub(crate) rounds: usize,
    /// Lives before these, which do not count.
    pub(crate) warm_up: usize,
}

/// What was measured of one shim.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Which shim.
    pub(crate) name: String,
    /// One entry a round.
    pub(crate) lives: Vec<Life>,
}

impl Plan {
    /// Measures all subjects, round by round.
    ///
    /// # Errors
    /// The first life that fails, with its shim's name: figures of a shim that fails mean nothing.
    pub(crate) async fn measure(&self, subjects: &[Subject]) -> Result<Vec<Measured>> {
        let mut measured: Vec<Measured> = subjects
            .iter()
            .map(|subject| Measured { name: subject.name.clone(), lives: Vec::new() })
            .collect();
        for round in 0..self.warm_up + self.rounds {
            for (subject, measured) in subjects.iter().zip(&mut measured) {
                let life = Life::live(self, subject, round)
                    .await
                    .with_context(|| format!("{}, round {round}", subject.name))?;
                if round >= self.warm_up {
                    measured.lives.push(life);
                }
            }
        }
        Ok(measured)
    }
}

pub(crate) use self::report::{to_json, to_table};
