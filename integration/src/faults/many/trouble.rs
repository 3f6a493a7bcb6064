//! Everything that one container can do to the others of its shim, at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shim_protos::task::{DeleteRequest, KillRequest, StartRequest, StateRequest};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{running, until};
use crate::faults::calls::{BOUND, bounded};
use crate::faults::life::{Life, Prints};
use crate::faults::matrix::Step;
use crate::faults::stage::Stage;
use crate::{cgroups, procs};

/// Containers that misbehave.
pub(super) struct Trouble {
    /// Its deletion hangs: somebody else has frozen it.
    frozen: Life,
    freezer: PathBuf,
    /// It was killed, and nobody reads what it has printed.
    clogged: Life,
    /// It prints as fast as it is read.
    loud: Life,
    /// Its hook takes its time, and so does its start.
    slow: Life,
    /// Execs one after the other, while nobody takes events.
    events: JoinSet<Result<()>>,
    busy: Arc<Life>,
    calls: JoinSet<()>,
    begun: Instant,
}

impl Trouble {
    /// Makes them, and waits for none of what lasts.
    pub(super) async fn make(stage: &Arc<Stage>) -> Result<Self> {
        let mut calls = JoinSet::new();
        let mut frozen = Life::new(stage, Prints::Nothing)?;
        until(stage, &mut frozen, Step::Create).await?;
        let freezer = freeze(&stage.mark, &frozen.id)?;
        let (task, id) = (frozen.task()?.clone(), frozen.id.clone());
        calls.spawn(async move {
            // It is answered when the container is thawed.
            let _ = task.delete(&DeleteRequest { id, ..Default::default() }).await;
        });
        let mut clogged = Life::new(stage, Prints::Much)?;
        clogged.reader.pause();
        until(stage, &mut clogged, Step::Start).await?;
        let request = KillRequest { id: clogged.id.clone(), signal: 9, ..Default::default() };
        bounded("kill", clogged.task()?.kill(&request)).await?;
        let mut loud = Life::of(stage, Prints::Nothing, |spec| {
            spec["process"]["args"] = json!(["yes"]);
        })?;
        until(stage, &mut loud, Step::Start).await?;
        let mut slow = Life::of(stage, Prints::Nothing, |spec: &mut Value| {
            spec["hooks"] =
                json!({ "poststart": [{ "path": "/bin/sleep", "args": ["sleep", "6"] }] });
        })?;
        until(stage, &mut slow, Step::Create).await?;
        let (task, id) = (slow.task()?.clone(), slow.id.clone());
        calls.spawn(async move {
            // It lasts as long as the hook.
            let _ = task.start(&StartRequest { id, ..Default::default() }).await;
        });
        procs::signal(stage.ear.pid(), Signal::SIGSTOP)?;
        let busy = Arc::new(running(stage).await?);
        let mut events = JoinSet::new();
        let worker = Arc::clone(&busy);
        events.spawn(async move {
            for number in 0..334 {
                worker.exec(&format!("e{number}")).await?;
            }
            Ok(())
        });
        let begun = Instant::now();
        Ok(Self { frozen, freezer, clogged, loud, slow, events, busy, calls, begun })
    }

    /// Lets everything go on, and ends it.
    pub(super) async fn end(&mut self, stage: &Stage) -> Result<()> {
        let (printed, took) = (self.loud.reader.count(), self.begun.elapsed());
        let request = StateRequest { id: self.frozen.id.clone(), ..Default::default() };
        bounded("state of the frozen one", self.frozen.task()?.state(&request)).await?;
        while let Some(done) = timeout(BOUND * 3, self.events.join_next()).await? {
            done??;
        }
        fs::write(&self.freezer, if is_v1(&self.freezer) { "THAWED" } else { "0" })?;
        stage.ear.go_on()?;
        self.clogged.reader.resume();
        timeout(BOUND, async { while self.calls.join_next().await.is_some() {} }).await?;
        let busy = Arc::get_mut(&mut self.busy).context("it is busy still")?;
        for life in [&mut self.frozen, &mut self.clogged, &mut self.loud, &mut self.slow, busy] {
            life.clean_up(stage).await.with_context(|| life.id.clone())?;
        }
        let least = 10_000_000 * usize::try_from(took.as_secs())?;
        ensure!(printed > least, "{printed} bytes were printed in {took:?}");
        Ok(())
    }
}

/// Freezes a container behind its shim's back.
fn freeze(mark: &str, id: &str) -> Result<PathBuf> {
    let all = cgroups::marked(mark)?;
    let files = all.iter().filter(|dir| dir.ends_with(id)).flat_map(|dir| {
        [dir.join("freezer.state"), dir.join("cgroup.freeze")].into_iter().filter(|f| f.exists())
    });
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|file| !is_v1(file));
    let file = files.into_iter().next().context("no freezer")?;
    fs::write(&file, if is_v1(&file) { "FROZEN" } else { "1" })?;
    Ok(file)
}

fn is_v1(freezer: &Path) -> bool {
    freezer.ends_with("freezer.state")
}
