//! A task: a container and its init process, from Create to Delete, and the execs in it.
//!
//! Every operation is *begin, do, commit*: take the process's turn, let the backend work, queue the
//! event, commit the new state; in this order, so that no later event overtakes it. Readers never
//! wait for a turn, and a kill takes none: it has to get through when another operation hangs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use oci_spec::runtime::LinuxResources;
use tokio::time;

use super::{
    cell::StateCell,
    exec::ExecProcess,
    state::{ExecState, InitOp, InitState, Phase},
};
use crate::{
    backend::{Container, ExitFuture, Target},
    error::{Error, Kind, Result},
    event::{Event, Herald},
    linux::{mount, stdio::Console},
    model::{Bundle, ContainerId, ExecId, Exit, Pid, Signal, Stats, StdioUris, WindowSize},
};

/// How long the end of a container waits for the ends of its execs to be told first.
const EXECS_LIMIT: Duration = Duration::from_secs(5);

/// How long a process may take to end after it could not be started.
const FAILED_START_LIMIT: Duration = Duration::from_secs(2);

/// A container and the processes in it.
#[derive(Debug)]
pub(crate) struct Task<C> {
    pub(crate) id: ContainerId,
    pub(crate) bundle: Bundle,
    pub(crate) stdio: StdioUris,
    container: C,
    init: StateCell<InitState>,
    console: Console,
    execs: Mutex<HashMap<ExecId, Arc<ExecProcess>>>,
    /// Set when the container is freed: of two deletions in line, one finds nothing left.
    freed: OnceLock<()>,
    herald: Herald,
}

/// A process as State tells it.
#[derive(Debug)]
pub(crate) struct ProcessState {
    pub(crate) phase: Phase,
    pub(crate) pid: Option<Pid>,
    pub(crate) exit: Option<Exit>,
    pub(crate) stdio: StdioUris,
}

/// A process that has been deleted.
#[derive(Debug)]
pub(crate) struct Deleted {
    pub(crate) pid: Option<Pid>,
    pub(crate) exit: Exit,
}

/// What a new task is made of.
#[derive(Debug)]
pub(crate) struct Parts<C> {
    pub(crate) id: ContainerId,
    pub(crate) bundle: Bundle,
    pub(crate) stdio: StdioUris,
    pub(crate) container: C,
    pub(crate) pid: Pid,
    pub(crate) console: Console,
    pub(crate) herald: Herald,
}

impl<C: Container> Task<C> {
    /// A task whose init process exists and has not run the user's program.
    pub(crate) fn new(parts: Parts<C>) -> Self {
        Self {
            id: parts.id,
            bundle: parts.bundle,
            stdio: parts.stdio,
            container: parts.container,
            init: StateCell::new(InitState::Created(parts.pid)),
            console: parts.console,
            execs: Mutex::default(),
            freed: OnceLock::new(),
            herald: parts.herald,
        }
    }

    /// Follows the init process to its end, which it tells after those of all execs.
    pub(crate) async fn watch(self: Arc<Self>, exit: ExitFuture) {
        let exit = self.until_exit(exit).await;
        self.console.drained().await;
        let step = self.init.turn().await;
        if time::timeout(EXECS_LIMIT, self.execs_ended()).await.is_err() {
            log::warn!("processes of {} live on without their container", self.id);
        }
        let pid = self.init.current().pid();
        self.herald.tell(&Event::Exited { container: self.id.clone(), exec: None, pid, exit });
        step.commit(InitState::Stopped(pid, exit));
    }

    /// Tells of each want of memory, and of one that ends the container before its end.
    async fn until_exit(&self, mut exit: ExitFuture) -> Exit {
        loop {
            tokio::select! {
                biased;
                killed = self.container.out_of_memory() => match killed {
                    Ok(()) => self.herald.tell(&Event::OutOfMemory { container: self.id.clone() }),
                    Err(err) => {
                        log::warn!("watch the memory of {}: {err:#}", self.id);
                        return exit.await;
                    }
                },
                ended = &mut exit => return ended,
            }
        }
    }

    async fn execs_ended(&self) {
        let execs: Vec<_> = self.execs().values().cloned().collect();
        for exec in execs {
            // A start on its way ends first; one that comes later finds the container ended.
            drop(exec.cell.turn().await);
            let over = |state: &ExecState| (!matches!(state, ExecState::Running(_))).then_some(());
            exec.cell.until(over).await;
        }
    }

    /// Runs the user's program.
    pub(crate) async fn start(&self) -> Result<Pid> {
        let step = self.init.begin(InitOp::Start).await?;
        if let Err(err) = self.container.start().await {
            drop(step);
            // What could not run is ending. containerd's clients look once, and delete only what
            // has stopped: so the answer comes after that.
            if time::timeout(FAILED_START_LIMIT, self.wait()).await.is_err() {
                log::warn!("the process of {} outlives its failed start", self.id);
            }
            return Err(err);
        }
        let pid = self.init.current().pid();
        self.herald.tell(&Event::Started { container: self.id.clone(), pid });
        step.commit(InitState::Running(pid));
        Ok(pid)
    }

    /// Freezes the container.
    pub(crate) async fn pause(&self) -> Result<()> {
        let step = self.init.begin(InitOp::Pause).await?;
        self.container.pause().await?;
        self.herald.tell(&Event::Paused { container: self.id.clone() });
        step.commit(InitState::Paused(self.init.current().pid()));
        Ok(())
    }

    /// Thaws the container.
    pub(crate) async fn resume(&self) -> Result<()> {
        let step = self.init.begin(InitOp::Resume).await?;
        self.container.resume().await?;
        self.herald.tell(&Event::Resumed { container: self.id.clone() });
        step.commit(InitState::Running(self.init.current().pid()));
        Ok(())
    }

    /// Changes the container's limits.
    pub(crate) async fn update(&self, resources: &LinuxResources) -> Result<()> {
        // The step is dropped: new limits are no new state.
        let _step = self.init.begin(InitOp::Update).await?;
        self.container.update(resources).await
    }

    /// Reads the use of resources.
    pub(crate) async fn stats(&self) -> Result<Stats> {
        self.container.stats().await
    }

    /// Adds an exec.
    pub(crate) async fn add_exec(
        &self,
        id: ExecId,
        process: oci_spec::runtime::Process,
        stdio: StdioUris,
    ) -> Result<()> {
        let _step = self.init.begin(InitOp::Exec).await?;
        let mut execs = self.execs();
        if execs.contains_key(&id) {
            return Err(Error::new(Kind::AlreadyExists, format!("exec {id} exists already")));
        }
        let (container, herald) = (self.id.clone(), self.herald.clone());
        let exec = ExecProcess::new(container, id.clone(), process, stdio, herald);
        execs.insert(id.clone(), Arc::new(exec));
        drop(execs);
        self.herald.tell(&Event::ExecAdded { container: self.id.clone(), exec: id });
        Ok(())
    }

    /// Makes an exec's process.
    pub(crate) async fn start_exec(&self, id: &ExecId) -> Result<Pid> {
        let exec = self.exec(id)?;
        match self.init.current() {
            InitState::Created(_) | InitState::Running(_) => exec.start(&self.container).await,
            InitState::Paused(_) => {
                Err(Error::new(Kind::FailedPrecondition, "cannot exec in a paused process"))
            }
            InitState::Stopped(..) => {
                Err(Error::new(Kind::FailedPrecondition, "init process is not running"))
            }
        }
    }

    /// Signals the init process, or every process.
    pub(crate) async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        let ended = matches!(self.init.current(), InitState::Stopped(..));
        match target {
            Target::All if ended => Ok(()),
            Target::Init if ended => Err(Error::not_found("process already finished")),
            _ => self.container.kill(target, signal).await,
        }
    }

    /// Signals an exec.
    pub(crate) async fn kill_exec(&self, id: &ExecId, signal: Signal) -> Result<()> {
        self.exec(id)?.kill(&self.container, signal).await
    }

    /// Frees the container and unmounts its root filesystem. A container that never ran the
    /// user's program is ended first.
    pub(crate) async fn delete(&self) -> Result<Deleted> {
        if let InitState::Created(_) = self.init.current() {
            self.end_unstarted().await?;
        }
        let _step = self.init.begin(InitOp::Delete).await?;
        if self.freed.get().is_some() {
            return Err(Error::not_found(format!("container {} does not exist", self.id)));
        }
        let state = self.init.current();
        let exit = state.exit().ok_or_else(|| Error::other("the init process lives"))?;
        self.container.delete().await?;
        mount::unmount_all(&self.bundle.rootfs())?;
        self.freed.get_or_init(|| ());
        let deleted = Deleted { pid: Some(state.pid()), exit };
        self.tell_deleted(None, &deleted);
        Ok(deleted)
    }

    async fn end_unstarted(&self) -> Result<()> {
        match self.container.kill(Target::Init, Signal::KILL).await {
            Err(err) if err.kind() != Kind::NotFound => return Err(err),
            _ => {}
        }
        self.wait().await;
        Ok(())
    }

    /// Forgets an exec that has ended or never ran.
    pub(crate) async fn delete_exec(&self, id: &ExecId) -> Result<Deleted> {
        let exec = self.exec(id)?;
        let _step = exec.cell.begin(super::state::ExecOp::Delete).await?;
        // Two deletions may have waited for the same turn.
        if self.execs().remove(id).is_none() {
            return Err(no_exec(id));
        }
        let state = exec.cell.current();
        let exit = state.exit().unwrap_or(Exit::now(crate::model::ExitStatus::Code(0)));
        let deleted = Deleted { pid: state.pid(), exit };
        self.tell_deleted(Some(id), &deleted);
        Ok(deleted)
    }

    fn tell_deleted(&self, exec: Option<&ExecId>, deleted: &Deleted) {
        self.herald.tell(&Event::Deleted {
            container: self.id.clone(),
            exec: exec.cloned(),
            pid: deleted.pid,
            exit: deleted.exit,
        });
    }

    /// Waits for the end of the init process.
    pub(crate) async fn wait(&self) -> Exit {
        self.init.until(|state| state.exit()).await
    }

    /// Every process of the container, with the exec's id where it is one.
    ///
    /// Never empty until the container is deleted: containerd takes one without processes for leaked,
    /// and removes it when it starts again.
    pub(crate) async fn pids(&self) -> Result<Vec<(Pid, Option<ExecId>)>> {
        let mut known: HashMap<Pid, Option<ExecId>> = HashMap::new();
        let init = self.init.current();
        if init.exit().is_none() {
            known.insert(init.pid(), None);
        }
        for exec in self.execs().values() {
            if let ExecState::Running(pid) = exec.cell.current() {
                known.insert(pid, Some(exec.id.clone()));
            }
        }
        match self.container.pids().await {
            Ok(pids) => pids.into_iter().for_each(|pid| {
                known.entry(pid).or_insert(None);
            }),
            Err(err) if err.kind() == Kind::Unsupported => {}
            Err(err) => return Err(err),
        }
        // One that ended while containerd was away still has an exit to tell.
        if known.is_empty() {
            known.insert(init.pid(), None);
        }
        let mut pids: Vec<_> = known.into_iter().collect();
        pids.sort_by_key(|(pid, _)| *pid);
        Ok(pids)
    }

    /// The init process as it is, without waiting for anybody.
    pub(crate) fn state(&self) -> ProcessState {
        let state = self.init.current();
        ProcessState {
            phase: state.phase(),
            pid: Some(state.pid()),
            exit: state.exit(),
            stdio: self.stdio.clone(),
        }
    }

    /// An exec as it is.
    pub(crate) fn exec_state(&self, id: &ExecId) -> Result<ProcessState> {
        let exec = self.exec(id)?;
        let state = exec.cell.current();
        Ok(ProcessState {
            phase: state.phase(),
            pid: state.pid(),
            exit: state.exit(),
            stdio: exec.stdio.clone(),
        })
    }

    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        self.console.resize(size)
    }

    pub(crate) fn close_stdin(&self) {
        self.console.close_stdin();
    }

    /// Finds an exec.
    pub(crate) fn exec(&self, id: &ExecId) -> Result<Arc<ExecProcess>> {
        self.execs().get(id).cloned().ok_or_else(|| no_exec(id))
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<ExecId, Arc<ExecProcess>>> {
        self.execs.lock().expect("nobody panics with the execs locked")
    }
}

fn no_exec(id: &ExecId) -> Error {
    Error::not_found(format!("exec {id} does not exist"))
}
