//! A container, from its creation to its deletion.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use shim_core::{
    Checkpoint, Container, Context, Error, Exec, Kind, Process, Result, Streams, Target, Update,
    backend::ExitFuture,
    linux::{open_pid, signal_pidfd},
    model::{ExecId, Pid, Signal, Stats},
};
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::{
    engine::{
        cgroup::Cgroup,
        criu::Extra,
        files::Given,
        hooks::Hooked,
        launch::{Launched, Launcher},
        oom::OomWatch,
        plan::{Choices, Inherited, Namespaces, Plan, may_trace},
        talk::Gate,
    },
    making::{self, Draft, Origin, Owner},
    spec,
};

/// A container that the engine has made.
#[derive(Debug)]
pub(crate) struct NativeContainer {
    launcher: Launcher,
    cgroup: Cgroup,
    namespaces: Namespaces,
    inherited: Inherited,
    hooked: Option<Hooked>,
    owner: Owner,
    pid: Pid,
    /// The init process.
    pidfd: OwnedFd,
    /// What keeps the init process waiting, until the start.
    gate: Mutex<Option<Gate>>,
    execs: Arc<Mutex<HashMap<ExecId, OwnedFd>>>,
    oom: OomWatch,
    paused: AtomicBool,
    tracers: Tracers,
    origin: Origin,
}

/// What a container is made of.
pub(crate) struct Parts {
    pub(crate) launcher: Launcher,
    pub(crate) cgroup: Cgroup,
    pub(crate) namespaces: Namespaces,
    pub(crate) inherited: Inherited,
    pub(crate) hooked: Option<Hooked>,
    pub(crate) owner: Owner,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) gate: Option<Gate>,
    pub(crate) oom: OomWatch,
    pub(crate) origin: Origin,
}

impl NativeContainer {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            launcher: parts.launcher,
            cgroup: parts.cgroup,
            namespaces: parts.namespaces,
            inherited: parts.inherited,
            hooked: parts.hooked,
            owner: parts.owner,
            pid: parts.pid,
            pidfd: parts.pidfd,
            gate: Mutex::new(parts.gate),
            execs: Arc::default(),
            oom: parts.oom,
            paused: AtomicBool::new(false),
            tracers: Tracers::default(),
            origin: parts.origin,
        }
    }

    /// Ends whatever outlives the init process: without a pid namespace of its own the kernel
    /// does not.
    pub(crate) fn end_all_after(&self, exit: ExitFuture) -> ExitFuture {
        let cgroup = self.cgroup.clone();
        Box::pin(async move {
            let exit = exit.await;
            if let Err(err) = cgroup.kill() {
                log::warn!("kill what the init process left: {err:#}");
            }
            exit
        })
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<ExecId, OwnedFd>> {
        self.execs.lock().expect("nobody panics with the execs locked")
    }

    fn take_gate(&self) -> Option<Gate> {
        self.gate.lock().expect("nobody panics with the gate locked").take()
    }
}

#[async_trait]
impl Container for NativeContainer {
    async fn start(&self) -> Result<()> {
        let gate = self.take_gate();
        let gate = gate.ok_or_else(|| {
            Error::new(Kind::FailedPrecondition, "the container has been started already")
        })?;
        let Some(hooked) = &self.hooked else { return gate.open(None).await };
        gate.open(Some(hooked.state("created", Some(self.pid))?)).await?;
        let poststart = &hooked.hooks.poststart;
        hooked.run_all(&self.launcher, poststart, "running", Some(self.pid)).await;
        Ok(())
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        match target {
            Target::Init => signal_pidfd(&self.pidfd, signal)?,
            Target::Exec { id, .. } => match self.execs().get(id) {
                Some(pidfd) => signal_pidfd(pidfd, signal)?,
                None => return Err(Error::not_found("process already finished")),
            },
            Target::All if signal == Signal::KILL => self.cgroup.kill()?,
            Target::All => signal_all(&self.cgroup.pids()?, signal)?,
        }
        if signal == Signal::KILL && self.paused.load(Ordering::Relaxed) {
            // On cgroup v1 a frozen process ends only when it is thawed.
            self.cgroup.thaw()?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        match signal_pidfd(&self.pidfd, Signal::KILL) {
            Err(err) if err.kind() == Kind::NotFound => {}
            sent => sent?,
        }
        drop(self.take_gate());
        self.cgroup.kill().context("kill what is left of the container")?;
        self.cgroup.remove_async().await.context("remove the cgroup")?;
        self.inherited.group.as_ref().map_or(Ok(()), |group| group.left().remove())?;
        if let Some(hooked) = &self.hooked {
            let poststop = &hooked.hooks.poststop;
            hooked.run_all(&self.launcher, poststop, "stopped", None).await;
        }
        Ok(())
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        let Exec { id, process, streams } = request;
        let joining = Joining {
            launcher: &self.launcher,
            cgroup: &self.cgroup,
            namespaces: &self.namespaces,
            inherited: &self.inherited,
            owner: self.owner,
            pid: self.pid,
            init: self.pidfd.as_fd(),
        };
        let seen = self.tracers.meet(&process).await;
        let choices = Choices { is_watched: seen.is_none(), ..Choices::default() };
        let launched = joining.add(&process, &streams, choices).await?;
        drop(seen);
        self.execs().insert(id.clone(), launched.pidfd);
        let execs = Arc::clone(&self.execs);
        let exit = Box::pin(async move {
            let exit = launched.exit.await;
            execs.lock().expect("nobody panics with the execs locked").remove(&id);
            exit
        });
        Ok(Process { pid: launched.pid, exit, terminal: launched.terminal.map(Into::into) })
    }

    async fn pause(&self) -> Result<()> {
        self.cgroup.freeze().await?;
        self.paused.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.cgroup.thaw()?;
        self.paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn update(&self, request: &Update) -> Result<()> {
        // No annotation means anything to the kernel.
        match &request.resources {
            Some(resources) => self.cgroup.update(resources).await,
            None => Ok(()),
        }
    }

    async fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        let spec = spec::read(self.origin.bundle())?;
        let draft = Draft::again(&self.origin, spec, &self.cgroup)?;
        let saved = draft.save(self.launcher.reaper(), self.pid, request, Extra::default());
        Box::pin(saved).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.cgroup.stats()
    }

    async fn out_of_memory(&self) -> Result<()> {
        self.oom.next().await
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        self.cgroup.pids()
    }
}

/// Whether a process was added that may trace others, where the container's own may not.
#[derive(Debug, Default)]
struct Tracers {
    are_there: AtomicBool,
    /// Held for reading while a process joins in sight of others.
    joining: RwLock<()>,
}

impl Tracers {
    /// Called before a process is added; what comes back is to be held until it has joined, and is none
    /// where it has to join out of sight. A process that may trace waits for those that join in sight.
    async fn meet(&self, process: &oci_spec::runtime::Process) -> Option<RwLockReadGuard<'_, ()>> {
        if may_trace(process) {
            self.are_there.store(true, Ordering::SeqCst);
            drop(self.joining.write().await);
        }
        let are_there = || self.are_there.load(Ordering::SeqCst);
        if are_there() {
            return None;
        }
        let joining = self.joining.read().await;
        (!are_there()).then_some(joining)
    }
}

/// What an added process joins.
pub(crate) struct Joining<'a> {
    pub(crate) launcher: &'a Launcher,
    /// The container's, or one below it.
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) inherited: &'a Inherited,
    /// Of the container's own streams.
    pub(crate) owner: Owner,
    /// The init process, and its pidfd.
    pub(crate) pid: Pid,
    pub(crate) init: BorrowedFd<'a>,
}

impl Joining<'_> {
    /// Adds a process to a container.
    ///
    /// # Errors
    /// Why its program does not run. Nothing is left.
    pub(crate) async fn add(
        &self,
        process: &oci_spec::runtime::Process,
        streams: &Streams,
        choices: Choices,
    ) -> Result<Launched> {
        let terminal = matches!(streams, Streams::Terminal);
        let choices = Choices { terminal, ..choices };
        let mut plan = Plan::process(process, self.namespaces, self.inherited, choices)?;
        plan.init = Some(self.pid);
        let unified = self.cgroup.unified_beside(self.pid).context("open the cgroup")?;
        plan.enter_cgroup(self.cgroup.joined(), unified.is_some())?;
        let uid = process.user().uid();
        let own = (!self.owner.is_chosen && !self.namespaces.has_users()).then_some(uid);
        let owner = Owner { uid: own.or(self.owner.uid), ..self.owner };
        let streams = making::streams(streams, owner)?;
        let unified = unified.as_ref().map(AsFd::as_fd);
        let given = Given { streams, init: Some(self.init), unified, ..Given::default() };
        let tasks = || self.cgroup.tasks().context("open the cgroup");
        let born = |pid| match &self.inherited.group {
            Some(group) => group.join(pid),
            None => Ok(()),
        };
        self.launcher.launch_and(&plan, &given, None, tasks, born).await
    }
}

/// Signals processes, those that have ended meanwhile left out.
///
/// # Errors
/// Which signal could not be sent.
pub(crate) fn signal_all(pids: &[Pid], signal: Signal) -> Result<()> {
    for pid in pids {
        // One that can't be opened has ended since it was listed.
        let Ok(pidfd) = open_pid(*pid) else { continue };
        match signal_pidfd(&pidfd, signal) {
            Err(err) if err.kind() == Kind::NotFound => {}
            sent => sent?,
        }
    }
    Ok(())
}
