//! A container without streams, one step a function: what is measured has to stand alone.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use shim_client::{
    Bundle, CallError, ExecChange, Rootfs, SpecBuilder, Task, exec_process, execute,
};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::{
    ConnectRequest, CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest,
    ShutdownRequest, StartRequest, WaitRequest, WaitResponse,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ttrpc::r#async::Client;

use crate::faults::calls::{BOUND, Hang};
use crate::faults::role::{Role, processes_of};
use crate::faults::stage::Stage;

const EXEC: &str = "e";

/// A shim and its stem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Pair {
    /// Serves.
    pub(super) shim: i32,
    /// Makes processes.
    pub(super) stem: i32,
}

/// A container; its program sleeps, and all its streams are null.
#[derive(Debug)]
pub(super) struct Subject {
    id: String,
    bundle: Bundle,
    folder: PathBuf,
    task: Option<Task>,
    /// The Wait call that is under way, as containerd's clients have it from Start to the end.
    waiting: Option<JoinHandle<Result<WaitResponse, CallError>>>,
}

impl Subject {
    /// Makes a bundle. With a group it shares that group's shim.
    pub(super) fn new(stage: &Stage, group: Option<&str>) -> Result<Self> {
        let id = stage.name();
        let folder = stage.dir.join("c").join(&id);
        fs::create_dir_all(&folder)?;
        let mut spec = SpecBuilder::new(&stage.mark, &id).args(&["sleep", "1000"]);
        if let Some(group) = group {
            spec = spec.annotation("io.containerd.runc.v2.group", group);
        }
        let (bundles, work) = (stage.dir.join("b"), folder.join("work"));
        let bundle = Bundle::create(&bundles, &id, &work, Some(&spec.build()))?;
        Ok(Self { id, bundle, folder, task: None, waiting: None })
    }

    /// The action `start`, and a connection on which the shim has answered.
    pub(super) async fn begin(&mut self, stage: &Stage) -> Result<()> {
        let answer = self.action_start(stage).await?;
        self.connect(stage, &answer).await
    }

    /// The action `start` alone.
    pub(super) async fn action_start(&self, stage: &Stage) -> Result<shim_client::Answer> {
        let options = stage.options.as_ref();
        let start = execute::start(&stage.daemon, &stage.binary, &self.bundle, options);
        bounded("start", start).await
    }

    /// Connects to the shim, which answers.
    pub(super) async fn connect(
        &mut self,
        stage: &Stage,
        answer: &shim_client::Answer,
    ) -> Result<()> {
        let client = bounded("connect", Client::connect(&answer.address)).await?;
        let task = Task::new(client, answer.version, &stage.daemon);
        let request = ConnectRequest { id: self.id.clone(), ..Default::default() };
        match timeout(BOUND, task.connect(&request)).await {
            // There is no such container yet: that is an answer, too.
            Ok(Err(error)) => ensure!(error.code().is_some(), "no answer: {error}"),
            answer => drop(answer.context("connect")?),
        }
        self.task = Some(task);
        Ok(())
    }

    /// The processes of the shim that was started for this container.
    pub(super) fn pair(&self) -> Result<Pair> {
        let all = processes_of(&self.id);
        let find = |role| all.iter().find(|(_, found)| *found == role).map(|(pid, _)| *pid);
        let shim = find(Role::Serving).context("there is no shim")?;
        Ok(Pair { shim, stem: find(Role::Stem).context("there is no stem")? })
    }

    pub(super) async fn create(&self, stage: &Stage) -> Result<()> {
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.path().display().to_string(),
            rootfs: Rootfs::Directory(stage.rootfs.clone()).mounts(&self.folder)?,
            options: MessageField::from_option(stage.options.clone()),
            ..Default::default()
        };
        bounded("create", self.task()?.create(&request)).await.map(drop)
    }

    /// Start, with the Wait that containerd's clients send ahead of it.
    pub(super) async fn start(&mut self) -> Result<()> {
        self.start_process("").await
    }

    /// Exec and Start of a process that ends at once.
    pub(super) async fn exec(&mut self) -> Result<()> {
        let change = ExecChange { args: vec!["true".to_owned()], ..Default::default() };
        let process = exec_process(&self.bundle.spec()?, &change);
        let request = ExecProcessRequest {
            id: self.id.clone(),
            exec_id: EXEC.to_owned(),
            spec: MessageField::some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
                value: serde_json::to_vec(&process)?,
                ..Default::default()
            }),
            ..Default::default()
        };
        bounded("exec", self.task()?.exec(&request)).await?;
        // The container's own Wait goes on meanwhile.
        let waiting = self.waiting.take();
        let started = self.start_process(EXEC).await;
        let ended = started.and(self.ended().await);
        self.waiting = waiting;
        let status = ended?.exit_status;
        ensure!(status == 0, "the exec ended with {status}");
        Ok(())
    }

    /// Delete of the exec.
    pub(super) async fn delete_exec(&self) -> Result<()> {
        self.delete_process(EXEC).await
    }

    /// Kill, and its exit told.
    pub(super) async fn kill(&mut self) -> Result<()> {
        let request = KillRequest { id: self.id.clone(), signal: 9, ..Default::default() };
        bounded("kill", self.task()?.kill(&request)).await?;
        self.ended().await.map(drop)
    }

    pub(super) async fn delete(&self) -> Result<()> {
        self.delete_process("").await
    }

    /// Shutdown: the shim ends, if this was its last container.
    pub(super) async fn shut_down(&mut self) -> Result<()> {
        let request = ShutdownRequest { id: self.id.clone(), ..Default::default() };
        let task = self.task.take().context("there is no connection")?;
        // It may be gone before it can answer.
        timeout(BOUND, task.shutdown(&request)).await.map(drop).context("shutdown")
    }

    /// The action `delete`.
    pub(super) async fn action_delete(&self, stage: &Stage) -> Result<()> {
        let deleted = execute::delete(&stage.daemon, &stage.binary, &self.bundle);
        bounded("delete", deleted).await.map(drop)
    }

    /// Hangs up, and removes the bundle.
    pub(super) fn discard(self) -> Result<()> {
        let Self { bundle, folder, .. } = self;
        bundle.remove().context("remove the bundle")?;
        fs::remove_dir_all(folder).context("remove the container's folder")
    }

    /// From Create to a running program.
    pub(super) async fn run(&mut self, stage: &Stage) -> Result<()> {
        self.create(stage).await?;
        self.start().await
    }

    /// From a running program to nothing, the shim's end included if this was the last.
    pub(super) async fn end(mut self, stage: &Stage) -> Result<()> {
        self.kill().await?;
        self.delete().await?;
        self.clean_up(stage).await
    }

    /// What is left to do when the task is deleted, or was never created.
    pub(super) async fn clean_up(mut self, stage: &Stage) -> Result<()> {
        self.shut_down().await?;
        self.action_delete(stage).await?;
        self.discard()
    }

    async fn start_process(&mut self, exec_id: &str) -> Result<()> {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let task = self.task()?.clone();
        let request =
            WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
        self.waiting = Some(tokio::spawn(async move { task.wait(&request).await }));
        let request = StartRequest { id, exec_id, ..Default::default() };
        bounded("start", self.task()?.start(&request)).await.map(drop)
    }

    async fn ended(&mut self) -> Result<WaitResponse> {
        let waiting = self.waiting.take().context("nobody waits")?;
        bounded("wait", async { anyhow::Ok(waiting.await??) }).await
    }

    async fn delete_process(&self, exec_id: &str) -> Result<()> {
        let (id, exec_id) = (self.id.clone(), exec_id.to_owned());
        let request = DeleteRequest { id, exec_id, ..Default::default() };
        bounded("delete", self.task()?.delete(&request)).await.map(drop)
    }

    fn task(&self) -> Result<&Task> {
        self.task.as_ref().context("there is no connection")
    }
}

async fn bounded<T, E: Into<anyhow::Error>>(
    what: &str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T> {
    match timeout(BOUND, call).await {
        Ok(answer) => answer.map_err(|error| error.into().context(what.to_owned())),
        Err(_) => Err(Hang(what.to_owned()).into()),
    }
}
