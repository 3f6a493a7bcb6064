//! Times shims against each other, in one run and in turn.
//!
//! A machine's speed drifts, so one shim after the other would measure the drift: here every round
//! goes through all of them. What counts are medians, and the ratio to the first shim named.

mod life;
mod memory;
mod report;

use std::path::PathBuf;

use anyhow::{Context, Result};
use shim_protos::Any;

pub use self::life::{Life, Phase};
pub use self::memory::Memory;
use crate::binary::ShimBinary;
use crate::daemon::Daemon;
use crate::rootfs::Rootfs;

/// A shim to be measured.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What the report calls it.
    pub name: String,
    /// The shim.
    pub binary: ShimBinary,
    /// Its runtime options, `BinaryName` for one.
    pub options: Option<Any>,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// containerd's part.
    pub daemon: Daemon,
    /// Where containers get their files from.
    pub rootfs: Rootfs,
    /// A folder for bundles and overlays.
    pub folder: PathBuf,
    /// Lives that count, for each shim.
    pub rounds: usize,
    /// Lives before these, which do not count.
    pub warm_up: usize,
}

/// What was measured of one shim.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which shim.
    pub name: String,
    /// One entry a round.
    pub lives: Vec<Life>,
}

impl Plan {
    /// Measures all subjects, round by round.
    ///
    /// # Errors
    /// The first life that fails, with its shim's name: figures of a shim that fails mean nothing.
    pub async fn measure(&self, subjects: &[Subject]) -> Result<Vec<Measured>> {
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

pub use self::report::{to_json, to_table};
