//! Times shims against each other, in one run and in turn.
//!
//! A machine's speed drifts, so one shim after the other would measure the drift: here every round
//! goes through all of them, and every round begins with another one. What counts are medians, and
//! the ratio to the first shim named.

mod life;
mod measured;
mod process;
mod report;
mod scenario;
mod stats;
mod stop;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use shim_client::{Daemon, Rootfs, ShimBinary};
use shim_protos::Any;

pub(crate) use self::measured::Report;
use self::measured::{Outcome, Reading};
pub(crate) use self::report::{to_json, to_table, write_plots};
pub(crate) use self::scenario::Scenario;
pub(crate) use self::stop::Stop;

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
#[derive(Debug)]
pub(crate) struct Plan {
    /// containerd's part.
    pub(crate) daemon: Daemon,
    /// Where containers get their files from.
    pub(crate) rootfs: Rootfs,
    /// A folder for bundles and overlays.
    pub(crate) folder: PathBuf,
    /// Rounds that count, for each shim, of what takes less than a second.
    pub(crate) rounds: NonZeroUsize,
    /// The same of what takes longer; none leaves it to the scenario.
    pub(crate) slow_rounds: Option<NonZeroUsize>,
    /// Rounds before these, which do not count.
    pub(crate) warm_up: usize,
    /// How long nothing happens before what `idle` and `density` measure.
    pub(crate) gap: Duration,
    /// How many containers `many` starts at once.
    pub(crate) count: usize,
    /// Up to how many containers `density` goes.
    pub(crate) containers: usize,
    /// Whether the containers of `density` share a shim.
    pub(crate) grouped: bool,
    /// Whether the containers of `density` have streams with a client.
    pub(crate) streams: bool,
    /// How much `stdio` moves each way.
    pub(crate) bytes: u64,
    /// How many lines `stdio` sends there and back.
    pub(crate) lines: usize,
    /// Whether to end early.
    pub(crate) stop: Stop,
    /// Tells people how far it is.
    pub(crate) tell: fn(&str),
}

impl Plan {
    /// Measures all subjects in all scenarios, round by round.
    ///
    /// # Errors
    /// The first round that fails, with its shim's name and its phase: figures of a shim that fails
    /// mean nothing. Nothing of any container is left then.
    pub(crate) async fn measure(
        self: &Arc<Self>,
        subjects: &[Arc<Subject>],
        scenarios: &[Scenario],
    ) -> Result<Report> {
        let shims = subjects.iter().map(|subject| subject.name.clone()).collect();
        let rounds = scenarios.first().map_or(0, |first| self.rounds_of(*first).1);
        let mut report = Report { shims, rounds, scenarios: Vec::new() };
        for scenario in scenarios {
            report.scenarios.push(self.run(*scenario, subjects).await?);
        }
        Ok(report)
    }

    /// How many rounds to run, and how many of them count.
    fn rounds_of(&self, scenario: Scenario) -> (usize, usize) {
        let rounds = match scenario.slow_rounds() {
            Some(rounds) => self.slow_rounds.map_or(rounds, NonZeroUsize::get),
            None => self.rounds.get(),
        };
        (rounds + self.warm_up.min(scenario.most_warm_up()), rounds)
    }

    async fn run(
        self: &Arc<Self>,
        scenario: Scenario,
        subjects: &[Arc<Subject>],
    ) -> Result<Outcome> {
        let mut readings: Vec<Vec<Reading>> = vec![Vec::new(); subjects.len()];
        let (all, counted) = self.rounds_of(scenario);
        for round in 0..all {
            if scenario.slow_rounds().is_some() || round.is_multiple_of(10) {
                (self.tell)(&format!("{scenario}: round {} of {all}", round + 1));
            }
            for turn in 0..subjects.len() {
                let at = (round + turn) % subjects.len();
                let subject = &subjects[at];
                let found =
                    Box::pin(scenario.round(self, subject, round)).await.with_context(|| {
                        format!("{}, {scenario}, round {}", subject.name, round + 1)
                    })?;
                if round >= all - counted {
                    readings[at].extend(found);
                }
            }
        }
        Ok(Outcome::of(scenario.name(), &readings))
    }
}
