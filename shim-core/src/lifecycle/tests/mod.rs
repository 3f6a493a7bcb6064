//! The stage for the rules: a shim over a backend whose processes end when a test says so.

mod ahead;
mod rules;

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, oneshot},
    time,
};

use super::{CreateTask, Phase, Shim};
use crate::{
    backend::{
        Backend, Checkpoint, Coming, Container, Create, Created, Exec, ExitFuture, Host, Init,
        Process, Streams, Target, Update,
    },
    error::{Error, Kind, Result},
    event::{Herald, Publisher},
    linux::{Reaper, stdio::Exchange},
    model::{
        About, Bundle, ContainerId, ExecId, Exit, ExitStatus, Namespace, Pid, Signal, StdioUris,
        WindowSize,
    },
    oci,
};

/// What a test does to the processes of the fake backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    ends: Arc<Mutex<Vec<oneshot::Sender<Exit>>>>,
    /// When set, `start` waits for it.
    start: Option<Arc<Notify>>,
    /// When set, `prepare` waits for it.
    prepare: Option<Arc<Notify>>,
    /// What the backend was asked before a container was made, in order.
    asked: Arc<Mutex<Vec<&'static str>>>,
    /// Each permit is one want of memory.
    oom: Arc<Notify>,
    refuse_create: bool,
    refuse_exec: bool,
    /// What to do about checkpoints.
    saves: Saves,
    /// The other side of a terminal that an exec gets.
    terminal: Arc<Mutex<Option<OwnedFd>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Saves {
    /// Not at all: a checkpoint to restore from is overlooked.
    #[default]
    Overlooked,
    Restored,
    Broken,
}

pub(crate) struct Fake(pub(crate) Script);
#[derive(Debug)]
pub(crate) struct FakeContainer(Script);

impl Script {
    fn note(&self, asked: &'static str) {
        self.asked.lock().unwrap().push(asked);
    }

    fn process(&self) -> Process {
        let (end, ended) = oneshot::channel();
        let mut ends = self.ends.lock().unwrap();
        ends.push(end);
        let exit: ExitFuture =
            Box::pin(async { ended.await.unwrap_or(Exit::now(ExitStatus::Unknown)) });
        let pid = Pid::new(100 + i32::try_from(ends.len()).unwrap()).unwrap();
        Process { pid, exit, terminal: None }
    }

    /// A process with a terminal, whose other side the test keeps.
    fn process_of(&self, streams: &Streams) -> Process {
        let mut process = self.process();
        if let Streams::Terminal = streams {
            let pty = nix::pty::openpty(None, None).unwrap();
            process.terminal = Some(pty.master.into());
            *self.terminal.lock().unwrap() = Some(pty.slave);
        }
        process
    }

    /// Ends the process made `nth`.
    pub(crate) fn end(&self, nth: usize, code: u8) {
        let end = std::mem::replace(&mut self.ends.lock().unwrap()[nth], oneshot::channel().0);
        end.send(Exit::now(ExitStatus::Code(code))).unwrap();
    }
}

#[async_trait]
impl Backend for Fake {
    type Container = FakeContainer;

    fn about(&self) -> About {
        About { name: "fake", version: "0", features: None }
    }

    async fn prepare(&self, _: &Coming) {
        self.0.note("prepare");
        if let Some(go) = &self.0.prepare {
            go.notified().await;
            self.0.note("prepared");
        }
    }

    async fn abandon(&self, _: &ContainerId) {
        self.0.note("abandon");
    }

    async fn create(&self, request: Create) -> Result<Created<FakeContainer>> {
        self.0.note("create");
        if self.0.refuse_create {
            return Err(Error::other("refused"));
        }
        if request.checkpoint.is_some() && self.0.saves != Saves::Overlooked {
            return Ok(Created { container: FakeContainer(self.0.clone()), init: Init::AtStart });
        }
        Ok(Created { container: FakeContainer(self.0.clone()), init: self.0.process().into() })
    }

    fn clean_up(&self, _: &Namespace, _: &ContainerId, _: &Bundle) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Container for FakeContainer {
    async fn start(&self) -> Result<()> {
        if let Some(go) = &self.0.start {
            go.notified().await;
        }
        Ok(())
    }

    async fn kill(&self, target: Target<'_>, _: Signal) -> Result<()> {
        if matches!(target, Target::Init) {
            self.0.end(0, 137);
        }
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        Ok(())
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        if self.0.refuse_exec {
            return Err(Error::other("no such file"));
        }
        Ok(self.0.process_of(&request.streams))
    }

    async fn update(&self, request: &Update) -> Result<()> {
        match &request.resources {
            Some(_) if request.annotations.contains_key("refuse") => Err(Error::other("refused")),
            Some(_) => Ok(()),
            None => Err(Error::unsupported("update")),
        }
    }

    async fn checkpoint(&self, _: &Checkpoint) -> Result<()> {
        match self.0.saves {
            Saves::Restored => Ok(()),
            Saves::Overlooked | Saves::Broken => Err(Error::unsupported("checkpoint")),
        }
    }

    async fn restore(&self) -> Result<Process> {
        if self.0.saves == Saves::Broken {
            return Err(Error::other("no image"));
        }
        Ok(self.0.process())
    }

    async fn pause(&self) -> Result<()> {
        Ok(())
    }

    async fn out_of_memory(&self) -> Result<()> {
        self.0.oom.notified().await;
        Ok(())
    }
}

struct Stage {
    shim: Shim<Fake>,
    publisher: Publisher,
    script: Script,
    _dir: tempfile::TempDir,
    bundle: Bundle,
}

impl Stage {
    fn new(script: Script) -> Self {
        let namespace = Namespace::parse("ns").unwrap();
        let host = Host { reaper: Reaper::default(), namespace: namespace.clone() };
        let publisher = Publisher::new();
        let herald = Herald { publisher: publisher.clone(), namespace };
        let shim = Shim::new(Fake(script.clone()), host, herald, Exchange::default());
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        Self { shim, publisher, script, _dir: dir, bundle }
    }

    async fn create(&self) -> Result<Option<Pid>> {
        self.create_from(None).await
    }

    async fn create_from(&self, checkpoint: Option<&str>) -> Result<Option<Pid>> {
        let create = CreateTask {
            id: id(),
            bundle: self.bundle.clone(),
            rootfs: Vec::new(),
            stdio: StdioUris::default(),
            options: None,
            checkpoint: checkpoint.map(Into::into),
        };
        self.shim.create(create).await
    }

    async fn running(script: Script) -> Self {
        let stage = Self::new(script);
        stage.create().await.unwrap();
        stage.shim.task(&id()).unwrap().start().await.unwrap();
        stage
    }

    async fn add_exec(&self) -> Result<()> {
        let process = oci::Process::default();
        self.shim.task(&id())?.add_exec(exec(), process, StdioUris::default()).await
    }

    fn topics(&self) -> String {
        self.publisher
            .topics()
            .iter()
            .map(|t| t.trim_start_matches("/tasks/"))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn id() -> ContainerId {
    ContainerId::parse("c1").unwrap()
}

fn exec() -> ExecId {
    ExecId::parse("e1").unwrap()
}

/// No test may hang.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(5), what).await.expect("within the limit")
}
