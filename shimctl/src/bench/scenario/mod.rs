//! What a shim is taken through: each scenario says what its rows mean.

mod density;
mod life;
mod many;
mod stdio;

use std::fmt;
use std::sync::Arc;

use anyhow::Result;

use super::life::{Life, Prepared};
use super::measured::Reading;
use super::{Plan, Subject};

/// A way to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// One container's life, phase after phase without a pause
    Life,
    /// The same with a pause before each phase
    Idle,
    /// Many containers at once, each with its shim
    Many,
    /// More and more idle containers
    Density,
    /// Bytes and lines through a process's streams
    Stdio,
}

impl Scenario {
    /// As it is typed, and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Life => "life",
            Self::Idle => "idle",
            Self::Many => "many",
            Self::Density => "density",
            Self::Stdio => "stdio",
        }
    }

    /// Of a scenario whose rounds take seconds: how many count, unless somebody says otherwise.
    pub(super) fn slow_rounds(self) -> Option<usize> {
        match self {
            Self::Life | Self::Idle => None,
            Self::Many => Some(5),
            Self::Density => Some(1),
            Self::Stdio => Some(3),
        }
    }

    /// How many rounds before these are worth their time.
    pub(super) fn most_warm_up(self) -> usize {
        match self {
            Self::Life | Self::Idle => usize::MAX,
            Self::Many | Self::Stdio => 1,
            Self::Density => 0,
        }
    }

    /// Takes a shim through one round.
    ///
    /// # Errors
    /// What failed, with its phase. Nothing of the round is left then.
    pub(super) async fn round(
        self,
        plan: &Arc<Plan>,
        subject: &Arc<Subject>,
        round: usize,
    ) -> Result<Vec<Reading>> {
        match self {
            Self::Life => life::round(plan, subject, round, None).await,
            Self::Idle => life::round(plan, subject, round, Some(plan.gap)).await,
            Self::Many => many::round(plan, subject, round).await,
            Self::Density => density::round(plan, subject, round).await,
            Self::Stdio => stdio::round(plan, subject, round).await,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Ends a life by force if what was done with it has failed.
async fn kept<T>(life: Life, done: Result<T>) -> Result<(Life, T)> {
    match done {
        Ok(value) => Ok((life, value)),
        Err(error) => {
            life.end_by_force().await;
            Err(error)
        }
    }
}

/// Makes the bundles of all those names, or none.
fn prepare(
    plan: &Arc<Plan>,
    subject: &Arc<Subject>,
    names: Vec<String>,
    group: Option<&str>,
) -> Result<Vec<Prepared>> {
    let mut prepared = Vec::new();
    for name in names {
        match Prepared::new(plan, subject, &name, group) {
            Ok(one) => prepared.push(one),
            Err(error) => {
                prepared.into_iter().try_for_each(Prepared::discard)?;
                return Err(error);
            }
        }
    }
    Ok(prepared)
}
