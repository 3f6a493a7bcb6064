//! The soak: the same life again and again, some at once, while the shim's memory, descriptors and
//! threads are watched. They have to stay as they are.
//!
//! - [`Sharing::One`]: all containers are of one group, so one shim makes them all. It is looked
//!   at between two batches, when it has no container: what it holds then, it never gives back.
//! - [`Sharing::None`]: a shim for each container, with its start and its end.

pub mod report;
pub mod sample;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shim_client::execute;

use crate::faults::after;
use crate::faults::life::{Life, Prints};
use crate::faults::matrix::Step;
use crate::faults::stage::Stage;
use crate::leaks::Snapshot;
use crate::wait::SOON;
use sample::{Batch, Sample};

/// How many batches a soak is cut into.
const BATCHES: u32 = 100;

/// How a soak is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many lives.
    pub cycles: u32,
    /// How many at once.
    pub at_once: u32,
    /// Who shares a shim.
    pub sharing: Sharing,
}

/// Who shares a shim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// All containers have one.
    One,
    /// Each has its own.
    None,
}

/// What a soak has found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How it was run.
    pub plan: Plan,
    /// How long it took.
    pub took: Duration,
    /// What was seen, batch by batch.
    pub batches: Vec<Batch>,
}

/// Runs a soak on a stage, and sees that nothing is left.
///
/// # Errors
/// The first life that fails, or what is left at the end. Growth is judged by [`Found::judge`].
pub fn run(mut stage: Stage, plan: Plan) -> Result<(Stage, Found)> {
    stage.group = (plan.sharing == Sharing::One).then(|| "soak".to_owned());
    let before = Snapshot::take(&stage.mark)?;
    let stage = Arc::new(stage);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        match plan.sharing {
            Sharing::One => together(&stage, plan).await,
            Sharing::None => batches(&stage, plan, None).await,
        }
    });
    // Lives that were given up have the stage, too.
    drop(runtime);
    let mut stage = Arc::into_inner(stage).context("a life still goes on")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let left = runtime.block_on(after::nothing_left(&mut stage, &before));
    let found = found?;
    left.map(|()| (stage, found))
}

/// A few lives in both ways: enough to see that the soak itself works.
///
/// # Errors
/// As [`run`], and when descriptors or threads are kept.
pub fn smoke(mark: &str) -> Result<()> {
    let plan = Plan { cycles: 50, at_once: 8, sharing: Sharing::One };
    let (stage, found) = run(Stage::open(mark)?, plan)?;
    let held: Vec<_> = found
        .batches
        .iter()
        .map(|Batch { shim, stem, .. }| [shim.fds, stem.fds, shim.threads, stem.threads])
        .collect();
    ensure!(held.first() == held.last(), "descriptors or threads are kept: {held:?}");
    run(stage, Plan { cycles: 16, sharing: Sharing::None, ..plan }).map(drop)
}

/// All through the shim of the first one, which has no container between two batches.
async fn together(stage: &Arc<Stage>, plan: Plan) -> Result<Found> {
    let mut first = Life::new(stage, Prints::Nothing)?;
    let found = match first.go(stage, Step::Bootstrap).await {
        Ok(()) => batches(stage, plan, Some(&first)).await,
        Err(error) => Err(error),
    };
    let ended = first.clean_up(stage).await;
    let found = found?;
    ended.map(|()| found)
}

async fn batches(stage: &Arc<Stage>, plan: Plan, first: Option<&Life>) -> Result<Found> {
    let begun = Instant::now();
    let mut batches = Vec::new();
    // Full ones, but at least one a quarter.
    let count = BATCHES.min(plan.cycles / plan.at_once).max(4).min(plan.cycles);
    for number in 0..count {
        let share = plan.cycles / count + u32::from(number < plan.cycles % count);
        if let Some(first) = first {
            find_again(stage, first).await?;
        }
        let (mut latencies, seen) = batch(stage, plan, first, share).await?;
        latencies.sort_unstable();
        let (shim, stem) = match first {
            Some(first) => idle(first).await?,
            None => seen.context("no life of the batch was looked at")?,
        };
        batches.push(Batch { cycles: share, latencies, shim, stem });
    }
    Ok(Found { plan, took: begun.elapsed(), batches })
}

/// One `start` as containerd does it for each container of a group: it has to find the shim.
async fn find_again(stage: &Stage, first: &Life) -> Result<()> {
    let mut life = first.beside(stage)?;
    life.go(stage, Step::Bootstrap).await?;
    ensure!(life.address() == first.address(), "the group has another shim: {life:?}");
    life.hang_up();
    execute::delete(&stage.daemon, &stage.binary, life.bundle()).await?;
    life.discard()
}

type Seen = Option<(Sample, Sample)>;

/// So many lives, some at once; the last one is looked at while it lives.
async fn batch(
    stage: &Arc<Stage>,
    plan: Plan,
    first: Option<&Life>,
    share: u32,
) -> Result<(Vec<Duration>, Seen)> {
    let left = Arc::new(AtomicU32::new(share));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..plan.at_once.min(share) {
        let (stage, left) = (Arc::clone(stage), Arc::clone(&left));
        let shared = first.map(|first| first.beside(&stage)).transpose()?;
        workers.spawn(async move {
            let (mut latencies, mut seen) = (Vec::new(), None);
            while let Ok(before) =
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            {
                let begun = Instant::now();
                let looks = before == 1;
                match &shared {
                    Some(shared) => one_of_many(&stage, shared).await?,
                    None => seen = alone(&stage, looks).await?.or(seen),
                }
                latencies.push(begun.elapsed());
            }
            if let Some(mut shared) = shared {
                shared.discard()?;
            }
            anyhow::Ok((latencies, seen))
        });
    }
    let (mut latencies, mut seen) = (Vec::new(), None);
    while let Some(worker) = workers.join_next().await {
        let (more, found) = worker.context("a worker panicked")??;
        latencies.extend(more);
        seen = found.or(seen);
    }
    Ok((latencies, seen))
}

/// A life from Create to Delete, in a shim that others share.
async fn one_of_many(stage: &Stage, shared: &Life) -> Result<()> {
    let mut life = shared.beside(stage)?;
    life.connect(stage).await?;
    for step in [Step::Create, Step::Start, Step::Exec, Step::Delete] {
        life.go(stage, step).await.with_context(|| life.id.clone())?;
    }
    life.discard()
}

/// A life with its own shim, from `start` to the `delete` action.
async fn alone(stage: &Stage, looks: bool) -> Result<Seen> {
    let mut life = Life::new(stage, Prints::Nothing)?;
    let mut seen = None;
    for step in [Step::Bootstrap, Step::Create, Step::Start, Step::Exec, Step::Delete] {
        life.go(stage, step).await.with_context(|| life.id.clone())?;
        if looks && step == Step::Exec {
            seen = Some(both(&life)?);
        }
    }
    life.clean_up(stage).await?;
    Ok(seen)
}

/// The shim and its stem, once the last connections and processes are let go of: when some looks
/// in a row see the same.
async fn idle(life: &Life) -> Result<(Sample, Sample)> {
    const IN_A_ROW: u32 = 4;
    let begun = Instant::now();
    let (mut last, mut same) = (both(life)?, 0);
    while same < IN_A_ROW {
        ensure!(begun.elapsed() < SOON, "the shim does not come to rest: {last:?}");
        // Our own side of the connections needs the time, too.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = both(life)?;
        same = if now.0.fds == last.0.fds { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn both(life: &Life) -> Result<(Sample, Sample)> {
    let shim = life.shim.context("the shim is not known")?;
    let stem = life.stem.context("the stem is not known")?;
    Ok((Sample::of(shim)?, Sample::of(stem)?))
}
