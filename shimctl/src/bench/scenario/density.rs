//! More and more idle containers, each with a shim of its own or all with one.
//!
//! At each step the sums over all shims and their helpers: memory, threads, descriptors, and the CPU
//! time that they use while nothing happens; and what one more container takes then, from Create to the
//! reply of Start: the median of a few that are taken away again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::life::{Life, Pids, Prepared};
use super::super::measured::Reading;
use super::super::process::{CpuTime, Held};
use super::super::stats::Sorted;
use super::super::{Plan, Subject};
use super::kept;

/// How many containers more are made, one after the other, to see what one takes.
const PROBES: usize = 5;

/// How long to look at shims that have nothing to do.
const WINDOW: Duration = Duration::from_secs(1);

/// From none to all, step by step.
pub(super) async fn round(
    plan: &Arc<Plan>,
    subject: &Arc<Subject>,
    round: usize,
) -> Result<Vec<Reading>> {
    let mut crowd = Crowd { plan, subject, round, made: 0, lives: Vec::new(), pids: Vec::new() };
    let grown = crowd.grow().await;
    let ended = crowd.end(grown.is_ok()).await;
    let rows = grown?;
    ended.map(|()| rows)
}

struct Crowd<'a> {
    plan: &'a Arc<Plan>,
    subject: &'a Arc<Subject>,
    round: usize,
    /// How many there ever were, for their names.
    made: usize,
    lives: Vec<Life>,
    pids: Vec<Pids>,
}

impl Crowd<'_> {
    async fn grow(&mut self) -> Result<Vec<Reading>> {
        let mut rows = Vec::new();
        for step in steps(self.plan.containers) {
            (self.plan.tell)(&format!("density: {}, up to {step}", self.subject.name));
            while self.lives.len() < step {
                let (life, _) = self.one_more().await?;
                // First among those that are ended whatever fails.
                self.lives.push(life);
                self.pids.push(self.lives[self.lives.len() - 1].pids().await?);
            }
            // Idle means that nobody has asked for anything for a while.
            self.pause(self.plan.gap).await?;
            let used = self.used()?;
            self.pause(WINDOW).await?;
            let used = self.used()? - used;
            let held = self.held()?;
            rows.extend([
                Reading::memory("private memory", held.private).at(step),
                Reading::memory("pss dirty", held.pss_dirty).at(step),
                Reading::memory("pss", held.pss).at(step),
                Reading::count("threads", held.threads).at(step),
                Reading::count("descriptors", held.fds).at(step),
                Reading::new("cpu of a second", "ms", used.as_secs_f64() * 1e3).at(step),
            ]);
            let (shim, container) = self.probe().await?;
            rows.extend([
                Reading::new("shim start", "ms", shim).at(step),
                Reading::new("create + start", "ms", container).at(step),
            ]);
        }
        Ok(rows)
    }

    /// A running container more, and what it took: the shim's start, and the container's.
    async fn one_more(&mut self) -> Result<(Life, (Duration, Duration))> {
        let name = format!("{}-{}", self.round, self.made);
        self.made += 1;
        let group = format!("bench-{}-{}", std::process::id(), self.round);
        let group = self.plan.grouped.then_some(group.as_str());
        let prepared = Prepared::new(self.plan, self.subject, &name, group)?;
        let (mut life, begun) = prepared.begin().await?;
        let begun_alike = self.shares_as_it_should(&life);
        let started = async {
            begun_alike?;
            if self.plan.streams {
                life.with_streams()?;
            }
            Ok(life.create().await? + life.start().await?)
        };
        let started = started.await;
        let (life, started) = kept(life, started).await?;
        Ok((life, (begun.shim, started)))
    }

    fn shares_as_it_should(&self, life: &Life) -> Result<()> {
        if let Some(first) = self.lives.first() {
            let shared = first.address() == life.address();
            ensure!(!self.plan.grouped || shared, "shim start: it keeps no groups");
        }
        Ok(())
    }

    /// Medians in milliseconds: of the shim's start, and of the container's.
    async fn probe(&mut self) -> Result<(f64, f64)> {
        let (mut shims, mut containers) = (Vec::new(), Vec::new());
        for _ in 0..PROBES {
            let (life, (shim, container)) = self.one_more().await?;
            shims.push(shim.as_secs_f64() * 1e3);
            containers.push(container.as_secs_f64() * 1e3);
            end(life).await?;
        }
        Ok((Sorted::of(&shims).median(), Sorted::of(&containers).median()))
    }

    async fn pause(&self, length: Duration) -> Result<()> {
        self.plan.stop.or("pause", Duration::MAX, tokio::time::sleep(length)).await
    }

    fn held(&self) -> Result<Held> {
        let [shims, tasks] = self.processes();
        Held::by(&shims, &tasks)
    }

    fn used(&self) -> Result<CpuTime> {
        let [shims, tasks] = self.processes();
        CpuTime::by(&shims, &tasks)
    }

    /// The shims, and the containers' first processes.
    fn processes(&self) -> [HashSet<u32>; 2] {
        let shims = self.pids.iter().map(|pids| pids.shim).collect();
        [shims, self.pids.iter().map(|pids| pids.task).collect()]
    }

    /// Ends all of them, the first one last: a shared shim lives in its bundle.
    async fn end(&mut self, in_order: bool) -> Result<()> {
        let mut failed = None;
        while let Some(life) = self.lives.pop() {
            if in_order && failed.is_none() {
                failed = end(life).await.err();
            } else {
                life.end_by_force().await;
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

async fn end(mut life: Life) -> Result<()> {
    let ended = async {
        life.kill().await?;
        life.delete().await
    };
    let ended = ended.await;
    let (life, _) = kept(life, ended).await?;
    life.clean_up().await.map(drop)
}

/// 1, 10, 25, 50, then hundreds, as far as there are so many; and the most.
fn steps(most: usize) -> Vec<usize> {
    let few = [1, 10, 25, 50].into_iter();
    let mut steps: Vec<usize> =
        few.chain((100..).step_by(100)).take_while(|step| *step < most).collect();
    steps.push(most);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_with_the_most() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(10), [1, 10]);
        assert_eq!(steps(60), [1, 10, 25, 50, 60]);
        assert_eq!(steps(300), [1, 10, 25, 50, 100, 200, 300]);
    }
}
