//! One life through containerd, its calls timed as a client sees them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Stage, Subject};
use crate::client::messages::Mount;
use crate::client::{Client, Streams, Target};
use crate::image;

/// A part of a life.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Create, to its reply.
    Create,
    /// Start, to its reply.
    Start,
    /// From then on until Wait answers.
    Exit,
    /// Delete, to its reply: the shim has ended.
    Delete,
}

impl Phase {
    /// All of them, in the order of a life.
    pub(super) const ALL: [Self; 4] = [Self::Create, Self::Start, Self::Exit, Self::Delete];

    /// What a report calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Exit => "exit",
            Self::Delete => "delete",
        }
    }
}

/// How long each phase took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times([Duration; Phase::ALL.len()]);

impl Times {
    pub(super) fn set(&mut self, phase: Phase, time: Duration) {
        self.0[phase as usize] = time;
    }

    pub(super) fn of(&self, phase: Phase) -> Duration {
        self.0[phase as usize]
    }

    pub(super) fn whole(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// Since the last time it was asked.
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now))
    }
}

/// A container of `true` from Create to Delete. Its record and its files are made before.
pub(super) async fn live(stage: &Stage, client: &Client, subject: &Subject) -> Result<Times> {
    let draft = stage.draft()?;
    let id = draft.id.as_str();
    client.create_container(id, &draft.spec, subject.message()?).await?;
    let root = Mount {
        type_: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: draft.overlay.clone(),
        ..Default::default()
    };
    let times = timed(client, id, &[root]).await?;
    client.delete_container(id).await?;
    Ok(times)
}

async fn timed(client: &Client, id: &str, rootfs: &[Mount]) -> Result<Times> {
    let mut times = Times::default();
    let init = Target::init(id);
    let mut clock = Clock::start();
    client.create(id, rootfs, &Streams::default()).await?;
    times.set(Phase::Create, clock.lap());
    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), id.to_owned());
        async move { client.wait(Target::init(&id)).await }
    });
    client.start(init).await?;
    times.set(Phase::Start, clock.lap());
    let status = waiting.await.context("wait")??;
    times.set(Phase::Exit, clock.lap());
    ensure!(status == 0, "true ended with {status}");
    client.delete(init).await?;
    times.set(Phase::Delete, clock.lap());
    Ok(times)
}

/// `ctr run --rm` of `true`, from the client's start to its end; nothing where `ctr` cannot name
/// the runtime.
pub(super) fn run(stage: &Stage, subject: &Subject) -> Result<Option<Duration>> {
    let Some(flags) = subject.flags() else { return Ok(None) };
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let name = stage.name();
    let run = [&["run", "--rm", "--null-io"], flags.as_slice(), &[image::NAME, &name, "true"]];
    let mut command = stage.ctr().command(&run.concat());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut clock = Clock::start();
    let output = command.output().context("run ctr")?;
    let took = clock.lap();
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ctr run: {}: {}", output.status, why.trim());
    Ok(Some(took))
}
