//! The sandbox, from CreateSandbox to ShutdownSandbox: one a shim.
//!
//! Starting and deleting take its turn, as with a task. A stop takes none: it has to get through while a
//! start boots a machine. Readers never wait.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use oci_spec::runtime::Spec;
use tokio::{sync::Mutex as Turn, time::timeout};

use super::{
    cell::{Rules, StateCell, Step},
    shim::Shim,
};
use crate::{
    backend::{CreateSandbox, ExitFuture, Sandbox, SandboxBackend, SandboxProcess},
    error::{Context, Error, Kind, Result},
    linux::{self, mount},
    model::{Bundle, ContainerId, Exit, ExitStatus, Mount, Pid, Platform, RuntimeOptions, Stats},
};

/// How long a sandbox that was stopped may take to be seen to end, or a start that was stopped to give up.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Where a sandbox is in its life. One that is deleted has no state: it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SandboxState {
    /// It exists, and does not run yet; it may be starting.
    Created,
    Ready(Pid),
    /// It has ended, or could not be started, or was stopped before.
    Stopped(Option<Pid>, Exit),
}

/// What a client may ask of a sandbox only at the right time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SandboxOp {
    Start,
    /// What only a running one can answer.
    Ask,
}

impl SandboxState {
    pub(crate) fn is_ready(self) -> bool {
        matches!(self, Self::Ready(_))
    }

    pub(crate) fn pid(self) -> Option<Pid> {
        match self {
            Self::Created => None,
            Self::Ready(pid) => Some(pid),
            Self::Stopped(pid, _) => pid,
        }
    }

    pub(crate) fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(_, exit) => Some(exit),
            Self::Created | Self::Ready(_) => None,
        }
    }
}

impl Rules for SandboxState {
    type Op = SandboxOp;
    type Refused = Error;

    fn check(&self, op: SandboxOp) -> Result<()> {
        let why = match (self, op) {
            (Self::Created, SandboxOp::Start) | (Self::Ready(_), SandboxOp::Ask) => return Ok(()),
            (Self::Created, SandboxOp::Ask) => "the sandbox does not run yet",
            (Self::Ready(_), SandboxOp::Start) => "the sandbox runs already",
            (Self::Stopped(..), _) => "the sandbox has ended",
        };
        Err(Error::new(Kind::FailedPrecondition, why))
    }
}

/// The place for a sandbox in a shim.
pub(crate) struct Pods<B: SandboxBackend> {
    shim: Arc<Shim<B>>,
    /// The runtime's options that the shim was started with.
    options: Vec<RuntimeOptions>,
    pod: Mutex<Option<Arc<Pod>>>,
    /// Taken while it is made and removed.
    turn: Turn<()>,
}

/// A parsed create request.
#[derive(Debug)]
pub(crate) struct CreatePod {
    pub(crate) id: ContainerId,
    pub(crate) bundle: Bundle,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) config: Option<RuntimeOptions>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) annotations: HashMap<String, String>,
}

/// A sandbox that has just started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: Pid,
    pub(crate) at: SystemTime,
    pub(crate) spec: Option<Spec>,
}

/// The shim's sandbox.
pub(crate) struct Pod {
    id: ContainerId,
    bundle: Bundle,
    has_rootfs: bool,
    made_at: SystemTime,
    started_at: OnceLock<SystemTime>,
    sandbox: Arc<dyn Sandbox>,
    cell: StateCell<SandboxState>,
    /// A stop has been asked for: what has not started does not any more.
    is_stopping: AtomicBool,
}

impl<B: SandboxBackend> Pods<B> {
    /// No sandbox yet.
    pub(crate) fn new(shim: Arc<Shim<B>>, options: Vec<RuntimeOptions>) -> Self {
        Self { shim, options, pod: Mutex::default(), turn: Turn::default() }
    }

    /// Makes the sandbox, or leaves nothing behind.
    pub(crate) async fn create(&self, request: CreatePod) -> Result<()> {
        let _turn = self.turn.lock().await;
        if let Some(pod) = &*self.pod() {
            let why = format!("the shim has a sandbox already: {}", pod.id);
            return Err(Error::new(Kind::AlreadyExists, why));
        }
        let id = request.id.clone();
        self.shim.move_in(&id).await?;
        match self.make(request).await {
            Ok(pod) => {
                *self.pod() = Some(Arc::new(pod));
                Ok(())
            }
            Err(err) => {
                self.shim.move_out(&id);
                Err(err.context(format!("create sandbox {id}")))
            }
        }
    }

    async fn make(&self, request: CreatePod) -> Result<Pod> {
        let CreatePod { id, bundle, rootfs, config, netns, annotations } = request;
        let has_rootfs = !rootfs.is_empty();
        mount::mount_all(&rootfs, &bundle)?;
        let create = CreateSandbox {
            id: id.clone(),
            bundle: bundle.clone(),
            rootfs,
            config,
            options: self.options.clone(),
            netns,
            annotations,
            host: self.shim.host().clone(),
        };
        let sandbox = self.shim.backend().create_sandbox(create).await.inspect_err(|_| {
            if has_rootfs && let Err(err) = mount::unmount_all(&bundle.rootfs()) {
                log::warn!("after a failed create: {err:#}");
            }
        })?;
        Ok(Pod {
            id,
            bundle,
            has_rootfs,
            made_at: SystemTime::now(),
            started_at: OnceLock::new(),
            sandbox,
            cell: StateCell::new(SandboxState::Created),
            is_stopping: AtomicBool::new(false),
        })
    }

    /// Starts the sandbox.
    pub(crate) async fn start(&self, id: &ContainerId) -> Result<Started> {
        let started = self.find(id)?.start().await?;
        self.shim.found(id, started.pid);
        Ok(started)
    }

    /// Finds the sandbox.
    pub(crate) fn find(&self, id: &ContainerId) -> Result<Arc<Pod>> {
        let pod = self.pod().clone().filter(|pod| pod.id == *id);
        pod.ok_or_else(|| Error::not_found(format!("sandbox {id} does not exist")))
    }

    /// Deletes the sandbox, and ends the shim soon after. Without a sandbox, for it could not be made or is
    /// deleted already, the shim ends as well, if nobody else is there.
    pub(crate) async fn shut_down(&self, id: &ContainerId) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.pod().is_none() {
            self.shim.request_shutdown(Some(id)).await;
            return Ok(());
        }
        self.find(id)?.delete().await?;
        *self.pod() = None;
        self.shim.move_out(id);
        let shim = Arc::clone(&self.shim);
        tokio::spawn(async move { shim.end().await });
        Ok(())
    }

    fn pod(&self) -> MutexGuard<'_, Option<Arc<Pod>>> {
        self.pod.lock().expect("nobody panics with it locked")
    }
}

impl Pod {
    async fn start(self: &Arc<Self>) -> Result<Started> {
        let step = self.cell.begin(SandboxOp::Start).await?;
        if self.is_stopping.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::FailedPrecondition, "the sandbox is being stopped"));
        }
        match self.sandbox.start().await {
            Ok(SandboxProcess { pid, exit, created_at, spec }) => {
                self.started_at.get_or_init(|| created_at);
                step.commit(SandboxState::Ready(pid));
                tokio::spawn(Arc::clone(self).watch(pid, exit));
                // For a `delete` that comes after this shim's death.
                if let Err(err) = linux::record(&self.bundle, pid) {
                    log::warn!("{err:#}");
                }
                Ok(Started { pid, at: created_at, spec })
            }
            Err(err) => {
                step.commit(SandboxState::Stopped(None, Exit::now(ExitStatus::Unknown)));
                Err(err.context(format!("start sandbox {}", self.id)))
            }
        }
    }

    async fn watch(self: Arc<Self>, pid: Pid, exit: ExitFuture) {
        let exit = exit.await;
        let step = self.cell.turn().await;
        if self.cell.current().exit().is_none() {
            step.commit(SandboxState::Stopped(Some(pid), exit));
        }
    }

    /// Ends it, in whatever state it is, and waits until that is seen.
    pub(crate) async fn stop(&self, grace: Duration) -> Result<()> {
        self.is_stopping.store(true, Ordering::Relaxed);
        let before = self.cell.current();
        let ended: Result<()> = async {
            self.sandbox.stop(grace).await?;
            // A start on its way gives up first.
            let step = self.turn().await?;
            match self.cell.current() {
                SandboxState::Stopped(..) => return Ok(()),
                SandboxState::Created => {
                    step.commit(SandboxState::Stopped(None, Exit::now(ExitStatus::Code(0))));
                    return Ok(());
                }
                SandboxState::Ready(_) => drop(step),
            }
            if before == SandboxState::Created {
                // It was through before it could hear.
                self.sandbox.stop(grace).await?;
            }
            let over = self.cell.until(|state| state.exit());
            let seen = timeout(END_LIMIT, over).await;
            seen.map(drop).map_err(|_| late("the sandbox lives on"))
        }
        .await;
        ended.with_context(|| format!("stop sandbox {}", self.id))
    }

    /// Removes what is left of it.
    async fn delete(&self) -> Result<()> {
        if let Err(err) = self.stop(Duration::ZERO).await {
            log::warn!("{err:#}");
        }
        let deleted: Result<()> = async {
            let step = self.turn().await?;
            self.sandbox.delete().await?;
            if self.has_rootfs {
                mount::unmount_all(&self.bundle.rootfs())?;
            }
            let state = self.cell.current();
            if state.exit().is_none() {
                let exit = Exit::now(ExitStatus::Unknown);
                step.commit(SandboxState::Stopped(state.pid(), exit));
            }
            Ok(())
        }
        .await;
        deleted.with_context(|| format!("delete sandbox {}", self.id))
    }

    /// Takes the turn from a start that may hang.
    async fn turn(&self) -> Result<Step<'_, SandboxState>> {
        let turn = timeout(END_LIMIT, self.cell.turn()).await;
        turn.map_err(|_| late("its start does not give up"))
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Exit {
        self.cell.until(|state| state.exit()).await
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        self.cell.current().check(SandboxOp::Ask)?;
        self.sandbox.ping().await
    }

    pub(crate) async fn stats(&self) -> Result<Stats> {
        self.cell.current().check(SandboxOp::Ask)?;
        self.sandbox.stats().await
    }

    pub(crate) fn state(&self) -> SandboxState {
        self.cell.current()
    }

    /// Since when it runs, or exists if it does not.
    pub(crate) fn created_at(&self) -> SystemTime {
        *self.started_at.get().unwrap_or(&self.made_at)
    }

    pub(crate) fn platform(&self) -> Platform {
        self.sandbox.platform()
    }

    pub(crate) fn info(&self) -> HashMap<String, String> {
        self.sandbox.info()
    }
}

fn late(what: &'static str) -> Error {
    Error::new(Kind::TimedOut, format!("{what} after {} seconds", END_LIMIT.as_secs()))
}
