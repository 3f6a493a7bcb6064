//! One container's life through a shim, in containerd's order of calls.
//!
//! ```text
//! create: start action, Create, Connect      start: Wait ∥ Start, State
//! remove: State, Delete, Shutdown, delete action, bundle removed
//! ```
//!
//! Whatever fails on the way up, the way down is walked to its end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::{
    ConnectRequest, CreateTaskRequest, DeleteRequest, DeleteResponse, KillRequest, StartRequest,
    StateRequest, StateResponse, WaitRequest, WaitResponse,
};
use shim_protos::types::Mount;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::binary::ShimBinary;
use crate::bundle::Bundle;
use crate::daemon::Daemon;
use crate::error::CallError;
use crate::execute;
use crate::shim::Shim;
use crate::task::Task;

/// A container that a shim has created.
#[derive(Debug)]
pub struct Container {
    shim: Shim,
}

/// What a container is created with, besides its bundle.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// Mounts that make its root filesystem.
    pub rootfs: Vec<Mount>,
    /// Whether its first process gets a terminal.
    pub terminal: bool,
    /// The URI for its stdin; empty for none.
    pub stdin: String,
    /// The URI for its stdout; empty for none.
    pub stdout: String,
    /// The URI for its stderr; empty for none.
    pub stderr: String,
    /// Runtime options, for the shim and for the container.
    pub options: Option<Any>,
}

/// A process whose end is being waited for.
pub type Waiting = JoinHandle<Result<WaitResponse, CallError>>;

impl Container {
    /// Starts a shim in the bundle and has it create the container.
    ///
    /// When that fails, nothing is left: no shim, no mount, no bundle.
    pub async fn create(
        daemon: &Daemon,
        binary: &ShimBinary,
        bundle: Bundle,
        creation: Creation,
    ) -> Result<Self> {
        let shim = match Shim::start(daemon, binary, &bundle, creation.options.as_ref()).await {
            Ok(shim) => shim,
            Err(error) => {
                bundle.remove()?;
                return Err(error);
            }
        };
        let container = Self { shim };
        match container.ask_to_create(creation).await {
            Ok(()) => Ok(container),
            Err(error) => {
                container.abandon().await;
                Err(error)
            }
        }
    }

    async fn ask_to_create(&self, creation: Creation) -> Result<()> {
        let bundle = self.shim.bundle();
        let request = CreateTaskRequest {
            id: bundle.id().to_owned(),
            bundle: bundle.path().display().to_string(),
            rootfs: creation.rootfs,
            terminal: creation.terminal,
            stdin: creation.stdin,
            stdout: creation.stdout,
            stderr: creation.stderr,
            options: MessageField(creation.options.map(Box::new)),
            ..CreateTaskRequest::default()
        };
        let task = self.task();
        let created = patient(self.limit(), "create", task.create(&request)).await?;
        let request = ConnectRequest { id: self.id().to_owned(), ..ConnectRequest::default() };
        let connected = task.connect(&request).await?;
        log::debug!("created: process {}, shim {}", created.pid, connected.shim_pid);
        Ok(())
    }

    /// A container whose shim runs already.
    pub fn of_running(shim: Shim) -> Self {
        Self { shim }
    }

    /// The shim.
    pub fn shim(&self) -> &Shim {
        &self.shim
    }

    /// The shim's task service.
    pub fn task(&self) -> &Task {
        &self.shim.task
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        self.shim.bundle().id()
    }

    fn limit(&self) -> Duration {
        self.shim.daemon().limits.create
    }

    /// Starts a process and watches for its end; the empty exec id means the first process.
    ///
    /// The pid may belong to a process that has ended meanwhile.
    pub async fn start(&self, exec_id: &str) -> Result<(u32, Waiting)> {
        let waiting = self.wait(exec_id);
        let request = StartRequest {
            id: self.id().to_owned(),
            exec_id: exec_id.to_owned(),
            ..StartRequest::default()
        };
        if let Err(error) = patient(self.limit(), "start", self.task().start(&request)).await {
            waiting.abort();
            return Err(error);
        }
        let state = self.state(exec_id).await?;
        log::debug!("started: process {}", state.pid);
        Ok((state.pid, waiting))
    }

    /// Waits for the end of a process, in a task of its own.
    pub fn wait(&self, exec_id: &str) -> Waiting {
        let task = self.task().clone();
        let request = WaitRequest {
            id: self.id().to_owned(),
            exec_id: exec_id.to_owned(),
            ..WaitRequest::default()
        };
        tokio::spawn(async move { task.wait(&request).await })
    }

    /// Asks what a process is doing.
    pub async fn state(&self, exec_id: &str) -> Result<StateResponse, CallError> {
        let request = StateRequest {
            id: self.id().to_owned(),
            exec_id: exec_id.to_owned(),
            ..StateRequest::default()
        };
        self.task().state(&request).await
    }

    /// Sends a signal to one process, or to every process of the container.
    pub async fn kill(&self, exec_id: &str, signal: u32, whom: Whom) -> Result<(), CallError> {
        let request = KillRequest {
            id: self.id().to_owned(),
            exec_id: exec_id.to_owned(),
            signal,
            all: whom == Whom::Everyone,
            ..KillRequest::default()
        };
        self.task().kill(&request).await.map(drop)
    }

    /// Deletes an ended exec.
    pub async fn delete_exec(&self, exec_id: &str) -> Result<DeleteResponse, CallError> {
        let request = DeleteRequest {
            id: self.id().to_owned(),
            exec_id: exec_id.to_owned(),
            ..DeleteRequest::default()
        };
        self.task().delete(&request).await
    }

    /// Deletes the ended container, ends its shim and removes the bundle.
    ///
    /// When the shim refuses, as for a running container, everything stays as it was.
    pub async fn remove(self) -> Result<()> {
        // containerd asks for the state before every delete. The answer matters to nobody here,
        // and a shim that cannot give it can still delete.
        if let Err(error) = self.state("").await {
            log::debug!("{error}");
        }
        match self.delete_exec("").await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => bail!(error),
        }
        self.tear_down().await
    }

    /// Ends the container, whatever it is doing, and removes all of it.
    pub async fn remove_by_force(self) -> Result<()> {
        /// Each step may hang with the shim or in the kernel; `delete` is the last resort then.
        const PATIENCE: Duration = Duration::from_secs(10);
        let waiting = self.wait("");
        match patient(PATIENCE, "kill", self.kill("", 9, Whom::Everyone)).await {
            Ok(()) => {
                if timeout(PATIENCE, waiting).await.is_err() {
                    log::warn!("{} has not ended {PATIENCE:?} after SIGKILL", self.id());
                }
            }
            // Without a process to kill there may be none to wait for either.
            Err(error) => log::debug!("{error:#}"),
        }
        if let Err(error) = patient(PATIENCE, "delete", self.delete_exec("")).await {
            log::debug!("{error:#}");
        }
        self.tear_down().await
    }

    /// The way down after a failure, whose error is the one worth telling.
    async fn abandon(self) {
        let id = self.id().to_owned();
        let limit = self.shim.daemon().limits.clean_up;
        if let Err(error) = patient(limit, "delete", self.delete_exec("")).await {
            log::debug!("{error:#}");
        }
        if let Err(error) = self.tear_down().await {
            log::warn!("clean up after {id}: {error:#}");
        }
    }

    /// Leaves the container to itself, for a later command to find it.
    pub async fn leave(self) {
        self.shim.leave().await;
    }

    /// Ends the shim of a deleted container and runs its `delete`; the bundle stays.
    pub async fn remove_shim(self) -> Result<()> {
        self.shim.clean_up().await.map(drop)
    }

    async fn tear_down(self) -> Result<()> {
        let bundle = self.shim.bundle().clone();
        let cleaned = self.remove_shim().await;
        // The files go even if the shim's own cleaning failed; its error is the one to tell.
        let removed = bundle.remove();
        cleaned?;
        removed
    }
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The one process.
    Process,
    /// Every process of the container.
    Everyone,
}

async fn patient<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T> {
    match timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => bail!("{what}: no answer from the shim within {limit:?}"),
    }
}

/// Cleans up after a shim that cannot be connected to: its `delete` action, then the bundle.
///
/// The answer tells how the container ended.
pub async fn clean_up_dead(
    daemon: &Daemon,
    binary: &ShimBinary,
    bundle: &Bundle,
) -> Result<DeleteResponse> {
    let ended = execute::delete(daemon, binary, bundle).await;
    let removed = bundle.remove();
    let ended = ended.context("clean up after the dead shim")?;
    removed.map(|()| ended)
}
