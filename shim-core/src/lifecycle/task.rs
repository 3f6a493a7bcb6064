//! A task: a container and its init process, from Create to Delete, and the execs in it.
//!
//! Every operation is *begin, do, commit*: take the process's turn, let the backend work, queue the
//! event, commit the new state; in this order, so that no later event overtakes it. Readers never
//! wait for a turn, and a kill takes none: it has to get through when another operation hangs.

mod execs;
mod start;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use tokio::time;

use super::{
    cell::StateCell,
    console::LateConsole,
    exec::ExecProcess,
    state::{ExecState, InitOp, InitState, Phase},
};
use crate::{
    backend::{Checkpoint, Container, ExitFuture, Target, Update},
    error::{Error, Kind, Result},
    event::{Event, Herald},
    linux::{
        mount,
        stdio::{Console, Peers, Relay},
    },
    model::{
        Bundle, ContainerId, ExecId, Exit, ExitStatus, Pid, Signal, Stats, StdioUris, WindowSize,
    },
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
    console: LateConsole,
    /// The streams of a container that is to be restored, until it is.
    relay: Mutex<Option<Relay>>,
    execs: Mutex<HashMap<ExecId, Arc<ExecProcess>>>,
    /// Set when the container is freed: of two deletions in line, one finds nothing left.
    freed: OnceLock<()>,
    peers: Peers,
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
    pub(crate) init: Start,
    pub(crate) peers: Peers,
    pub(crate) herald: Herald,
}

/// What a new task's start begins with.
#[derive(Debug)]
pub(crate) enum Start {
    /// The init process exists and has not run the user's program.
    Process(Pid, Console),
    /// It is in a checkpoint.
    Checkpoint(Relay),
}

impl<C: Container> Task<C> {
    /// A task that has not started.
    pub(crate) fn new(parts: Parts<C>) -> Self {
        let console = LateConsole::default();
        let (state, relay) = match parts.init {
            Start::Checkpoint(relay) => (InitState::Saved, Some(relay)),
            Start::Process(pid, arrived) => {
                console.arrive(arrived);
                (InitState::Created(pid), None)
            }
        };
        Self {
            id: parts.id,
            bundle: parts.bundle,
            stdio: parts.stdio,
            container: parts.container,
            init: StateCell::new(state),
            console,
            relay: Mutex::new(relay),
            execs: Mutex::default(),
            freed: OnceLock::new(),
            peers: parts.peers,
            herald: parts.herald,
        }
    }

    /// Follows the init process to its end, which it tells after those of all execs.
    pub(crate) async fn watch(self: Arc<Self>, pid: Pid, exit: ExitFuture) {
        let exit = self.until_exit(exit).await;
        self.console.drained().await;
        let step = self.init.turn().await;
        if time::timeout(EXECS_LIMIT, self.execs_ended()).await.is_err() {
            log::warn!("processes of {} live on without their container", self.id);
        }
        self.herald.tell(&Event::Exited { container: self.id.clone(), exec: None, pid, exit });
        step.commit(InitState::Stopped(Some(pid), exit));
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

    /// Freezes the container.
    pub(crate) async fn pause(&self) -> Result<()> {
        let step = self.init.begin(InitOp::Pause).await?;
        self.container.pause().await?;
        self.herald.tell(&Event::Paused { container: self.id.clone() });
        if let Some(pid) = self.init.current().pid() {
            step.commit(InitState::Paused(pid));
        }
        Ok(())
    }

    /// Thaws the container.
    pub(crate) async fn resume(&self) -> Result<()> {
        let step = self.init.begin(InitOp::Resume).await?;
        self.container.resume().await?;
        self.herald.tell(&Event::Resumed { container: self.id.clone() });
        if let Some(pid) = self.init.current().pid() {
            step.commit(InitState::Running(pid));
        }
        Ok(())
    }

    /// Changes the container's limits.
    pub(crate) async fn update(&self, update: &Update) -> Result<()> {
        // The step is dropped: new limits are no new state.
        let _step = self.init.begin(InitOp::Update).await?;
        match self.container.update(update).await {
            // Annotations alone change no limit.
            Err(err) if err.kind() == Kind::Unsupported && update.resources.is_none() => Ok(()),
            updated => updated,
        }
    }

    /// Saves the container. One that ends with it tells so by its exit.
    pub(crate) async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let _step = self.init.begin(InitOp::Checkpoint).await?;
        self.container.checkpoint(checkpoint).await?;
        let (container, path) = (self.id.clone(), checkpoint.path.clone());
        self.herald.tell(&Event::Checkpointed { container, path });
        Ok(())
    }

    /// Reads the use of resources.
    pub(crate) async fn stats(&self) -> Result<Stats> {
        self.container.stats().await
    }

    /// Signals the init process, or every process.
    pub(crate) async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        let state = self.init.current();
        let ended = matches!(state, InitState::Stopped(..));
        match target {
            _ if state == InitState::Saved => {
                Err(Error::new(Kind::FailedPrecondition, "process not created"))
            }
            Target::All if ended => Ok(()),
            Target::Init if ended => Err(Error::not_found("process already finished")),
            _ => self.container.kill(target, signal).await,
        }
    }

    /// Frees the container and unmounts its root filesystem. A container that never ran the
    /// user's program is ended first.
    pub(crate) async fn delete(&self) -> Result<Deleted> {
        if let InitState::Created(_) = self.init.current() {
            self.end_unstarted().await?;
        }
        let step = self.init.begin(InitOp::Delete).await?;
        if self.freed.get().is_some() {
            return Err(Error::not_found(format!("container {} does not exist", self.id)));
        }
        let state = self.init.current();
        let exit = match state {
            InitState::Saved => Some(Exit::now(ExitStatus::Code(0))),
            _ => state.exit(),
        };
        let exit = exit.ok_or_else(|| Error::other("the init process lives"))?;
        self.container.delete().await?;
        mount::unmount_all(&self.bundle.rootfs())?;
        drop(self.take_relay());
        self.console.close().await;
        self.forget_unstarted_execs().await;
        self.freed.get_or_init(|| ());
        let deleted = Deleted { pid: state.pid(), exit };
        self.tell_deleted(None, &deleted);
        // Whoever waits for one that was never restored hears of its end here.
        step.commit(InitState::Stopped(deleted.pid, exit));
        Ok(deleted)
    }

    fn take_relay(&self) -> Option<Relay> {
        self.relay.lock().expect("nobody panics with it locked").take()
    }

    async fn end_unstarted(&self) -> Result<()> {
        match self.container.kill(Target::Init, Signal::KILL).await {
            Err(err) if err.kind() != Kind::NotFound => return Err(err),
            _ => {}
        }
        self.wait().await;
        Ok(())
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
        if let (Some(pid), None) = (init.pid(), init.exit()) {
            known.insert(pid, None);
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
            known.extend(init.pid().map(|pid| (pid, None)));
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
            pid: state.pid(),
            exit: state.exit(),
            stdio: self.stdio.clone(),
        }
    }

    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        self.console.resize(size)
    }

    pub(crate) fn close_stdin(&self) {
        self.console.close_stdin();
    }
}
