//! One container's life, from the shim's start to its end; back to back, or with a pause before
//! each phase.
//!
//! | row | from, to |
//! |---|---|
//! | shim start | executing `start`, until it has answered and ended |
//! | connect | opening the connection |
//! | create, start, delete | the call, to its reply |
//! | exec | Exec and Start, to the latter's reply: the process runs |
//! | exec end | Wait and Delete of that process, which ends by itself |
//! | kill | SIGKILL until Wait answers |
//! | clean up | Shutdown, and executing `delete` |
//! | contract | shim start, connect, create, start |
//! | whole life | all phases |
//!
//! The memory is that of the shim and its helpers while the container runs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::super::life::{Life, Prepared};
use super::super::measured::Reading;
use super::super::process::Held;
use super::super::{Plan, Subject};
use super::kept;

/// One life; the gap comes before each phase.
pub(super) async fn round(
    plan: &Arc<Plan>,
    subject: &Arc<Subject>,
    round: usize,
    gap: Option<Duration>,
) -> Result<Vec<Reading>> {
    let prepared = Prepared::new(plan, subject, &format!("{round}"), None)?;
    if let Err(error) = pause(plan, gap).await {
        prepared.discard()?;
        return Err(error);
    }
    let (mut life, begun) = prepared.begin().await?;
    let mut phases = vec![("shim start", begun.shim), ("connect", begun.connect)];
    let lived = live(&mut life, gap, &mut phases).await;
    let (life, held) = kept(life, lived).await?;
    phases.push(("clean up", life.clean_up().await?));
    Ok(rows(&phases, held))
}

/// From Create to Delete.
async fn live(
    life: &mut Life,
    gap: Option<Duration>,
    phases: &mut Vec<(&'static str, Duration)>,
) -> Result<Held> {
    pause(life.plan(), gap).await?;
    phases.push(("create", life.create().await?));
    pause(life.plan(), gap).await?;
    phases.push(("start", life.start().await?));
    pause(life.plan(), gap).await?;
    phases.push(("exec", life.exec(&["true"], None).await?.took));
    pause(life.plan(), gap).await?;
    phases.push(("exec end", life.end_exec().await?));
    let pids = life.pids().await?;
    let held = Held::by(&HashSet::from([pids.shim]), &HashSet::from([pids.task]))?;
    pause(life.plan(), gap).await?;
    phases.push(("kill", life.kill().await?));
    pause(life.plan(), gap).await?;
    phases.push(("delete", life.delete().await?));
    pause(life.plan(), gap).await?;
    Ok(held)
}

/// A machine at rest answers otherwise than a busy one: an RCU grace period, for one, is shorter
/// while others push it on. The pause is what is measured here; nothing is waited for.
async fn pause(plan: &Plan, gap: Option<Duration>) -> Result<()> {
    match gap {
        Some(gap) => {
            let forever = Duration::MAX;
            plan.stop.or("pause", forever, tokio::time::sleep(gap)).await
        }
        None => Ok(()),
    }
}

fn rows(phases: &[(&'static str, Duration)], held: Held) -> Vec<Reading> {
    let sum = |names: &[&str]| -> Duration {
        phases.iter().filter(|(name, _)| names.contains(name)).map(|(_, took)| *took).sum()
    };
    let mut rows: Vec<Reading> =
        phases.iter().map(|(name, took)| Reading::time(name, *took)).collect();
    rows.extend([
        Reading::time("contract", sum(&["shim start", "connect", "create", "start"])),
        Reading::time("create + start", sum(&["create", "start"])),
        Reading::time("whole life", phases.iter().map(|(_, took)| *took).sum()),
        Reading::memory("private memory", held.private),
        Reading::memory("private dirty", held.private_dirty),
        Reading::memory("pss dirty", held.pss_dirty),
        Reading::memory("pss", held.pss),
    ]);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_their_phases() {
        let took = Duration::from_millis;
        let phases = [("shim start", took(10)), ("connect", took(1)), ("create", took(5))];
        let rows = rows(
            &[&phases[..], &[("start", took(2)), ("kill", took(4))]].concat(),
            Held::default(),
        );
        let value = |name| rows.iter().find(|row| row.name == name).map(|row| row.value.round());
        assert_eq!(value("contract"), Some(18.0));
        assert_eq!(value("create + start"), Some(7.0));
        assert_eq!(value("whole life"), Some(22.0));
    }
}
