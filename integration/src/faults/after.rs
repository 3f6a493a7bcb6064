//! After a fault: what still has to work, and what must not be left.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::life::Life;
use super::matrix::Step;
use super::stage::Stage;
use crate::leaks::{self, Leak, Snapshot};

/// How long what goes by itself may take to go.
pub(super) const LEFT: Duration = Duration::from_secs(5);

/// A whole other life in the same shim.
pub(super) async fn fresh(stage: &Stage, life: &Life) -> Result<()> {
    let mut other = life.beside(stage)?;
    let mut lived = other.connect(stage).await;
    for step in Step::ALL.into_iter().skip(1) {
        lived = lived.and(other.go(stage, step).await);
        if lived.is_err() {
            break;
        }
    }
    // What is left counts for more than what could not be had.
    other.clean_up(stage).await.and(lived)
}

/// Waits for what goes by itself; what stays is an error, and removed.
pub(crate) async fn nothing_left(stage: &mut Stage, before: &Snapshot) -> Result<()> {
    let ear = stage.ear.pid();
    let news = || -> Result<Vec<Leak>> {
        let mut news = before.news()?;
        news.retain(|leak| !matches!(leak, Leak::Process(process) if process.pid == ear));
        Ok(news)
    };
    let begun = Instant::now();
    while begun.elapsed() < LEFT {
        if news()?.is_empty() {
            return Ok(());
        }
        // Not the whole thread: a `start` that was given up is collected by the runtime.
        sleep(Duration::from_millis(2)).await;
    }
    let left: Vec<String> = news()?.iter().map(name).collect();
    leaks::clean(before)?;
    // It may have been among what was removed.
    stage.ear.restart()?;
    bail!("left behind: {}", left.join(", "))
}

/// A leak without what differs from run to run.
fn name(leak: &Leak) -> String {
    match leak {
        Leak::Process(process) => {
            let name = fs::read_to_string(format!("/proc/{}/comm", process.pid));
            format!("process {}", name.unwrap_or_default().trim())
        }
        other => other.to_string(),
    }
}
