//! The rules at work: a shim over a backend whose processes end when a test says so.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, oneshot},
    time,
};

use super::{CreateTask, Shim};
use crate::{
    backend::{Backend, Container, Create, Created, Exec, ExitFuture, Host, Process, Target},
    error::{Error, Kind, Result},
    event::{Herald, Publisher},
    linux::Reaper,
    model::{
        About, Bundle, ContainerId, ExecId, Exit, ExitStatus, Namespace, Pid, Signal, StdioUris,
    },
    oci,
};

/// What a test does to the processes of the fake backend.
#[derive(Clone, Debug, Default)]
struct Script {
    ends: Arc<Mutex<Vec<oneshot::Sender<Exit>>>>,
    /// When set, `start` waits for it.
    start: Option<Arc<Notify>>,
    /// Each permit is one want of memory.
    oom: Arc<Notify>,
    refuse_create: bool,
    refuse_exec: bool,
}

struct Fake(Script);
#[derive(Debug)]
struct FakeContainer(Script);

impl Script {
    fn process(&self) -> Process {
        let (end, ended) = oneshot::channel();
        let mut ends = self.ends.lock().unwrap();
        ends.push(end);
        let exit: ExitFuture =
            Box::pin(async { ended.await.unwrap_or(Exit::now(ExitStatus::Unknown)) });
        let pid = Pid::new(100 + i32::try_from(ends.len()).unwrap()).unwrap();
        Process { pid, exit, terminal: None }
    }

    /// Ends the process made `nth`.
    fn end(&self, nth: usize, code: u8) {
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

    async fn create(&self, _: Create) -> Result<Created<FakeContainer>> {
        if self.0.refuse_create {
            return Err(Error::other("refused"));
        }
        Ok(Created { container: FakeContainer(self.0.clone()), init: self.0.process() })
    }

    fn clean_up(&self, _: &ContainerId, _: &Bundle) -> Result<()> {
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

    async fn exec(&self, _: Exec) -> Result<Process> {
        if self.0.refuse_exec { Err(Error::other("no such file")) } else { Ok(self.0.process()) }
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
        let shim = Shim::new(Fake(script.clone()), host, herald);
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        Self { shim, publisher, script, _dir: dir, bundle }
    }

    async fn create(&self) -> Result<Pid> {
        let create = CreateTask {
            id: id(),
            bundle: self.bundle.clone(),
            rootfs: Vec::new(),
            stdio: StdioUris::default(),
            options: None,
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

#[tokio::test]
async fn a_life_is_told_in_order() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.add_exec().await.unwrap();
    task.start_exec(&exec()).await.unwrap();
    stage.script.end(1, 0);
    soon(task.exec(&exec()).unwrap().wait()).await;
    task.delete_exec(&exec()).await.unwrap();
    stage.script.end(0, 3);
    assert_eq!(soon(task.wait()).await.status, ExitStatus::Code(3));
    stage.shim.delete(&id()).await.unwrap();
    assert_eq!(stage.topics(), "create start exec-added exec-started exit delete exit delete");
}

#[tokio::test]
async fn an_exit_is_told_after_the_start_it_overtook() {
    let go = Arc::new(Notify::new());
    let stage = Stage::new(Script { start: Some(go.clone()), ..Script::default() });
    stage.create().await.unwrap();
    let task = stage.shim.task(&id()).unwrap();
    let starting = tokio::spawn({
        let task = task.clone();
        async move { task.start().await }
    });
    tokio::task::yield_now().await;
    stage.script.end(0, 0);
    tokio::task::yield_now().await;
    go.notify_one();
    soon(starting).await.unwrap().unwrap();
    soon(task.wait()).await;
    assert_eq!(stage.topics(), "create start exit");
}

#[tokio::test]
async fn the_end_of_a_container_is_told_after_its_execs() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.add_exec().await.unwrap();
    task.start_exec(&exec()).await.unwrap();
    stage.script.end(0, 1);
    tokio::task::yield_now().await;
    stage.script.end(1, 2);
    soon(task.wait()).await;
    assert_eq!(task.exec_state(&exec()).unwrap().exit.unwrap().status, ExitStatus::Code(2));
    assert_eq!(stage.topics(), "create start exec-added exec-started exit exit");
}

#[tokio::test]
async fn want_of_memory_is_told_before_the_end_it_brings() {
    let stage = Stage::running(Script::default()).await;
    stage.script.oom.notify_one();
    stage.script.end(0, 137);
    soon(stage.shim.task(&id()).unwrap().wait()).await;
    assert_eq!(stage.topics(), "create start oom exit");
}

#[tokio::test]
async fn a_create_that_fails_leaves_no_task_and_tells_nothing() {
    let stage = Stage::new(Script { refuse_create: true, ..Script::default() });
    let err = stage.create().await.unwrap_err();
    assert_eq!(format!("{err:#}"), "create c1: refused");
    assert_eq!(stage.shim.task(&id()).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(stage.topics(), "");
}

#[tokio::test]
async fn an_id_is_made_once() {
    let stage = Stage::running(Script::default()).await;
    assert_eq!(stage.create().await.unwrap_err().kind(), Kind::AlreadyExists);
    stage.add_exec().await.unwrap();
    assert_eq!(stage.add_exec().await.unwrap_err().kind(), Kind::AlreadyExists);
}

#[tokio::test]
async fn what_comes_at_the_wrong_time_is_refused() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    assert_eq!(task.start().await.unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(stage.shim.delete(&id()).await.unwrap_err().kind(), Kind::FailedPrecondition);
    stage.add_exec().await.unwrap();
    task.pause().await.unwrap();
    let err = task.start_exec(&exec()).await.unwrap_err();
    assert_eq!(err.kind(), Kind::FailedPrecondition);
    let err = task.kill_exec(&exec(), Signal::TERM).await.unwrap_err();
    assert_eq!(err.to_string(), "process not created");
}

#[tokio::test]
async fn an_exec_that_cannot_start_releases_those_who_wait() {
    let stage = Stage::running(Script { refuse_exec: true, ..Script::default() }).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.add_exec().await.unwrap();
    let exec_process = task.exec(&exec()).unwrap();
    let waiting = tokio::spawn(async move { exec_process.wait().await });
    task.start_exec(&exec()).await.unwrap_err();
    assert_eq!(soon(waiting).await.unwrap().status, ExitStatus::Unknown);
    task.delete_exec(&exec()).await.unwrap();
    assert_eq!(stage.topics(), "create start exec-added delete");
}

#[tokio::test]
async fn a_container_that_never_ran_is_ended_by_its_deletion() {
    let stage = Stage::new(Script::default());
    stage.create().await.unwrap();
    let deleted = soon(stage.shim.delete(&id())).await.unwrap();
    assert_eq!(deleted.exit.status, ExitStatus::Code(137));
    assert_eq!(stage.topics(), "create exit delete");
    assert_eq!(stage.shim.delete(&id()).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn of_two_deletions_one_finds_nothing() {
    let stage = Stage::running(Script::default()).await;
    let task = stage.shim.task(&id()).unwrap();
    stage.script.end(0, 0);
    soon(task.wait()).await;
    let (one, other) = soon(async { tokio::join!(task.delete(), task.delete()) }).await;
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|ok| **ok).count(), 1);
    assert_eq!(stage.topics(), "create start exit delete");
}

#[tokio::test]
async fn a_shim_ends_only_without_containers() {
    let stage = Stage::running(Script::default()).await;
    stage.shim.request_shutdown();
    let ended = time::timeout(Duration::from_millis(20), stage.shim.shut_down()).await;
    assert!(ended.is_err(), "a container lives");
    stage.script.end(0, 0);
    soon(stage.shim.task(&id()).unwrap().wait()).await;
    stage.shim.delete(&id()).await.unwrap();
    stage.shim.request_shutdown();
    soon(stage.shim.shut_down()).await;
}
