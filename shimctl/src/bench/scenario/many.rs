//! Many containers at once, each with a shim of its own.
//!
//! | row | from, to |
//! |---|---|
//! | all running | the first `start`, until the last Start has answered |
//! | all gone | the first Kill, until the last `delete` has ended |
//! | running, gone | the same until so many were |
//!
//! Each goes through shim start, connect, create, start; then through kill, delete, clean up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::super::life::{Life, Prepared};
use super::super::measured::Reading;
use super::super::{Plan, Subject};
use super::{kept, prepare};

/// All up, all down.
pub(super) async fn round(
    plan: &Arc<Plan>,
    subject: &Arc<Subject>,
    round: usize,
) -> Result<Vec<Reading>> {
    let names = (0..plan.count).map(|number| format!("{round}-{number}"));
    let prepared = prepare(plan, subject, names.collect(), None)?;
    let begun = Instant::now();
    let (lives, running) = split(at_once(prepared, up, begun).await).await?;
    let begun = Instant::now();
    let (_, gone) = split(at_once(lives, down, begun).await).await?;
    let mut rows = Vec::new();
    for (name, last, times) in [("running", "all running", running), ("gone", "all gone", gone)] {
        let steps = times.iter().enumerate();
        rows.extend(steps.map(|(before, time)| Reading::time(name, *time).at(before + 1)));
        rows.extend(times.last().map(|time| Reading::time(last, *time)));
    }
    Ok(rows)
}

async fn up(prepared: Prepared) -> Result<Option<Life>> {
    let (mut life, _) = prepared.begin().await?;
    let started = async {
        life.create().await?;
        life.start().await
    };
    let started = started.await;
    let (life, _) = kept(life, started).await?;
    Ok(Some(life))
}

async fn down(mut life: Life) -> Result<Option<Life>> {
    let ended = async {
        life.kill().await?;
        life.delete().await
    };
    let ended = ended.await;
    let (life, _) = kept(life, ended).await?;
    life.clean_up().await?;
    Ok(None)
}

/// How each one ended, and when: the life that goes on, if one does.
type Ends = Vec<Result<(Option<Life>, Duration)>>;

/// Does something with all of them at the same time.
async fn at_once<T, F>(all: Vec<T>, each: fn(T) -> F, begun: Instant) -> Ends
where
    F: Future<Output = Result<Option<Life>>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for one in all {
        let work = each(one);
        tasks.spawn(async move { work.await.map(|life| (life, begun.elapsed())) });
    }
    let mut ends = Vec::new();
    while let Some(end) = tasks.join_next().await {
        ends.push(end.context("a task panicked").and_then(|end| end));
    }
    ends
}

/// The lives that go on and the times, in order; when one has failed, all others are ended.
async fn split(ends: Ends) -> Result<(Vec<Life>, Vec<Duration>)> {
    let (mut lives, mut times, mut failed) = (Vec::new(), Vec::new(), None);
    for end in ends {
        match end {
            Ok((life, time)) => {
                lives.extend(life);
                times.push(time);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        for life in lives {
            life.end_by_force().await;
        }
        return Err(error);
    }
    times.sort_unstable();
    Ok((lives, times))
}
