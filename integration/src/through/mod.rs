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
    lives: Vec<Times>,
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
    let through = runtime.block_on(Box::pin(through(stage, plan, subjects)))?;
    let solitary: Vec<Subject> =
        subjects.iter().filter(|subject| alone.contains(&subject.name)).cloned().collect();
    let alone = runtime.block_on(Box::pin(by_themselves(stage, plan, &solitary)))?;
    Ok(report::to_json(plan.rounds, &through, &alone))
}

async fn through(stage: &Stage, plan: Plan, subjects: &[Subject]) -> Result<Vec<Measured>> {
    let mut clients = Vec::new();
    for subject in subjects {
        clients.push(stage.client(subject).await?);
    }
    let mut measured = empty(subjects);
    for round in 0..WARM_UP + plan.rounds {
        for at in turn(round, subjects.len()) {
            let (subject, measured) = (&subjects[at], &mut measured[at]);
            let named = || format!("{}, round {round}", subject.name);
            tokio::time::sleep(plan.gap).await;
            let times = life::live(stage, &clients[at], subject).await.with_context(named)?;
            tokio::time::sleep(plan.gap).await;
            let run = life::run(stage, subject).with_context(named)?;
            if round >= WARM_UP {
                measured.lives.push(times);
                measured.runs.extend(run);
            }
        }
    }
    Ok(measured)
}

async fn by_themselves(stage: &Stage, plan: Plan, subjects: &[Subject]) -> Result<Vec<Measured>> {
    let daemon = alone::Daemon::play(stage).await?;
    let mut measured = empty(subjects);
    for round in 0..WARM_UP + plan.rounds {
        for at in turn(round, subjects.len()) {
            let subject = &subjects[at];
            tokio::time::sleep(plan.gap).await;
            let times = Box::pin(daemon.live(stage, subject))
                .await
                .with_context(|| format!("{} alone, round {round}", subject.name))?;
            if round >= WARM_UP {
                measured[at].lives.push(times);
            }
        }
    }
    Ok(measured)
}

fn empty(subjects: &[Subject]) -> Vec<Measured> {
    let of = |subject: &Subject| {
        let name = subject.name.clone();
        Measured { name, lives: Vec::new(), runs: Vec::new() }
    };
    subjects.iter().map(of).collect()
}

/// All places, beginning with another one each round.
fn turn(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (at + round) % count)
}
