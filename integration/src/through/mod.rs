//! Lives through a real containerd, the shims in turn: what users of containerd wait for.
//!
//! containerd has a part of its own in each call. A shim that is also played to *alone*, as
//! containerd would but without one, shows how large it is: the difference between the two.
//!
//! Every round takes each shim through one life, and begins with another one, so that none is
//! always the one that pays for its neighbour's dying network namespace.

mod alone;
mod life;
mod report;
mod stage;
mod subject;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

pub use self::stage::Stage;
pub use self::subject::Subject;

use self::life::{Phase, Times};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Lives that count, of each shim.
    pub rounds: usize,
    /// How long nothing happens before each life.
    pub gap: Duration,
}

/// Rounds that do not count: the first life fills caches, and makes folders that stay.
const WARM_UP: usize = 2;

/// One shim's times.
#[derive(Debug)]
struct Measured {
    name: String,
    through: Vec<Times>,
    /// Without containerd; empty where that was not asked for.
    alone: Vec<Times>,
    /// Of the command line client; none where it cannot name the runtime.
    runs: Vec<Duration>,
}

/// Measures all shims; those called `alone` without containerd as well.
///
/// The result is the report as JSON: scenarios `containerd` and `alone`.
///
/// # Errors
/// The first life that fails, with its shim's name: figures of a shim that fails mean nothing.
pub fn measure(stage: &Stage, plan: Plan, subjects: &[Subject], alone: &[String]) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(Box::pin(rounds(stage, plan, subjects, alone)))?;
    Ok(report::to_json(plan.rounds, &measured))
}

async fn rounds(
    stage: &Stage,
    plan: Plan,
    subjects: &[Subject],
    alone: &[String],
) -> Result<Vec<Measured>> {
    let played = alone::Daemon::play(stage).await?;
    let mut clients = Vec::new();
    for subject in subjects {
        clients.push(stage.client(subject).await?);
    }
    let mut measured: Vec<Measured> = subjects.iter().map(Measured::of).collect();
    for round in 0..WARM_UP + plan.rounds {
        for at in turn(round, subjects.len()) {
            let (subject, measured) = (&subjects[at], &mut measured[at]);
            let named = || format!("{}, round {round}", subject.name);
            tokio::time::sleep(plan.gap).await;
            let through = life::live(stage, &clients[at], subject).await.with_context(named)?;
            tokio::time::sleep(plan.gap).await;
            let run = life::run(stage, subject).with_context(named)?;
            let mut by_itself = None;
            if alone.contains(&subject.name) {
                tokio::time::sleep(plan.gap).await;
                let life = Box::pin(played.live(stage, subject)).await;
                by_itself = Some(life.context("alone").with_context(named)?);
            }
            if round >= WARM_UP {
                measured.through.push(through);
                measured.runs.extend(run);
                measured.alone.extend(by_itself);
            }
        }
    }
    Ok(measured)
}

impl Measured {
    fn of(subject: &Subject) -> Self {
        let name = subject.name.clone();
        Self { name, through: Vec::new(), alone: Vec::new(), runs: Vec::new() }
    }
}

/// All places, beginning with another one each round.
fn turn(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (at + round) % count)
}
