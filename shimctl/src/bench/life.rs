//! One container's life, its phases timed as the client sees them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::to_vec;
use shim_client::{Bundle, Container, ExecChange, Shim, SpecBuilder, Waiting, exec_process};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::{
    ConnectRequest, CreateTaskRequest, ExecProcessRequest, KillRequest, StartRequest, WaitRequest,
};

use super::memory::Memory;
use super::{Plan, Subject};

/// A part of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Executing `start` until it is connected.
    Shim,
    /// Create, to its reply.
    Create,
    /// Start, to its reply.
    Start,
    /// A process added, started, waited for and deleted.
    Exec,
    /// SIGKILL until Wait answers.
    Kill,
    /// Delete, to its reply.
    Delete,
    /// Shutdown, and executing `delete`.
    CleanUp,
}

impl Phase {
    /// All of them, in the order of a life.
    pub(crate) const ALL: [Self; 7] = [
        Self::Shim,
        Self::Create,
        Self::Start,
        Self::Exec,
        Self::Kill,
        Self::Delete,
        Self::CleanUp,
    ];

    /// What a report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shim => "shim start",
            Self::Create => "create",
            Self::Start => "start",
            Self::Exec => "exec",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::CleanUp => "clean up",
        }
    }
}

/// The times and the memory of one life.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// How long each phase took, in the order of [`Phase::ALL`].
    pub(crate) times: [Duration; 7],
    /// What the idle shim held while its container ran.
    pub(crate) memory: Memory,
}

struct Clock(Instant);

impl Clock {
    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now))
    }
}

impl Life {
    pub(super) async fn live(plan: &Plan, subject: &Subject, round: usize) -> Result<Self> {
        let id = format!("bench-{}-{round}", std::process::id());
        let scratch = plan.folder.join("scratch").join(&id);
        let spec = SpecBuilder::new(&plan.daemon.namespace, &id).args(&["sleep", "1000"]).build();
        let bundle =
            Bundle::create(&plan.folder.join("bundles"), &id, &scratch.join("work"), Some(&spec))?;
        let mounts = plan.rootfs.mounts(&scratch)?;
        let creation = CreateTaskRequest {
            id: id.clone(),
            bundle: bundle.path().display().to_string(),
            rootfs: mounts,
            options: MessageField(subject.options.clone().map(Box::new)),
            ..Default::default()
        };
        let mut clock = Clock(Instant::now());
        let shim =
            Shim::start(&plan.daemon, &subject.binary, &bundle, subject.options.as_ref()).await?;
        let started = clock.lap();
        let container = Container::of_running(shim);
        let lived = live_on(&container, &creation, &spec, &mut clock).await;
        let ended = match lived {
            Ok((mut times, memory)) => {
                let _between = clock.lap();
                container.remove_shim().await?;
                times[0] = started;
                times[6] = clock.lap();
                Ok(Self { times, memory })
            }
            Err(error) => {
                container.remove_by_force().await.ok();
                Err(error)
            }
        };
        bundle.remove()?;
        std::fs::remove_dir_all(&scratch)
            .with_context(|| format!("remove {}", scratch.display()))?;
        ended
    }
}

/// From Create to Delete.
async fn live_on(
    container: &Container,
    creation: &CreateTaskRequest,
    spec: &serde_json::Value,
    clock: &mut Clock,
) -> Result<([Duration; 7], Memory)> {
    let mut times = [Duration::ZERO; 7];
    let task = container.task();
    let id = &creation.id;
    let _between = clock.lap();
    task.create(creation).await?;
    times[1] = clock.lap();
    let waiting = container.wait("");
    task.start(&StartRequest { id: id.clone(), ..Default::default() }).await?;
    times[2] = clock.lap();
    exec(container, spec).await.context("exec")?;
    times[3] = clock.lap();
    let connect = ConnectRequest { id: id.clone(), ..Default::default() };
    let shim = task.connect(&connect).await?;
    let memory = Memory::of_shim(shim.shim_pid, shim.task_pid)?;
    let _between = clock.lap();
    task.kill(&KillRequest { id: id.clone(), signal: 9, ..Default::default() }).await?;
    ended_by_kill(waiting).await?;
    times[4] = clock.lap();
    container.delete_exec("").await?;
    times[5] = clock.lap();
    Ok((times, memory))
}

async fn exec(container: &Container, spec: &serde_json::Value) -> Result<()> {
    let task = container.task();
    let change = ExecChange { args: vec!["true".to_owned()], ..Default::default() };
    let process = exec_process(spec, &change);
    let request = ExecProcessRequest {
        id: container.id().to_owned(),
        exec_id: "e".to_owned(),
        spec: MessageField::some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: to_vec(&process)?,
            ..Default::default()
        }),
        ..Default::default()
    };
    task.exec(&request).await?;
    let (id, exec_id) = (request.id, request.exec_id);
    let start = StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    task.start(&start).await?;
    let wait = WaitRequest { id, exec_id, ..Default::default() };
    let ended = task.wait(&wait).await?;
    ensure!(ended.exit_status == 0, "true ended with {}", ended.exit_status);
    container.delete_exec("e").await?;
    Ok(())
}

async fn ended_by_kill(waiting: Waiting) -> Result<()> {
    let ended = waiting.await.context("wait")??;
    ensure!(ended.exit_status == 137, "a killed process ended with {}", ended.exit_status);
    Ok(())
}
