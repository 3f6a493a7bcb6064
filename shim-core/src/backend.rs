//! The seam: what a backend author implements.
//!
//! A backend turns verbs into kernel work and nothing else. The framework owns the wire, the
//! lifecycle, the locks, the stdio, the events and the exits. When a method here is called, its
//! request has been parsed and is legal in the current state.

mod boxed;
mod sandbox;
mod terminal;

use std::{collections::HashMap, fmt, future::Future, os::fd::OwnedFd, path::PathBuf, pin::Pin};

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;

use crate::{
    error::{Error, Result},
    linux::Reaper,
    model::{
        About, Bundle, ContainerId, ExecId, Exit, Group, Mount, Namespace, Pid, RuntimeOptions,
        Sharing, Signal, Stats,
    },
};

pub use self::{
    sandbox::{CreateSandbox, Sandbox, SandboxBackend, SandboxProcess},
    terminal::{Resize, Terminal},
};

/// A way of running containers. A shim process holds exactly one.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// A container this backend has made.
    type Container: Container;

    /// Names the backend for `-v`, `-info` and the logs.
    fn about(&self) -> About;

    /// The features document for these options of the runtime, as JSON; without a word here that of
    /// [`Backend::about`].
    fn features(&self, _options: &RuntimeOptions) -> Option<String> {
        self.about().features
    }

    /// Tells which containers share a shim, if the runtime's options say so. Called in the process
    /// that starts the shim; without a word here `SHIM_GROUPING` of the environment counts.
    ///
    /// # Errors
    /// Fails the start of the shim; the text reaches the user.
    fn sharing(&self, _options: &RuntimeOptions) -> Result<Option<Sharing>> {
        Ok(None)
    }

    /// Chooses the shim process for a bundle; bundles of one group share a shim. Not asked where all
    /// of a namespace share one.
    ///
    /// # Errors
    /// Fails the start of the shim; the text reaches the user.
    fn group(&self, id: &ContainerId, bundle: &Bundle) -> Result<Group> {
        Group::of_pod(id, bundle)
    }

    /// Names the cgroup that the shim itself joins, if the runtime's options ask for one. Called in
    /// the process that starts the shim; options that make no sense are told by `create`.
    ///
    /// # Errors
    /// Fails the start of the shim; the text reaches the user.
    fn shim_cgroup(&self, _options: &RuntimeOptions) -> Result<Option<String>> {
        Ok(None)
    }

    /// Called once, in the serving process only, while it has one thread. The runtime is there: what
    /// is spawned here runs as soon as `start` has been told that the shim is ready.
    ///
    /// # Errors
    /// Ends the shim before it serves.
    fn open(&mut self, _host: Host) -> Result<()> {
        Ok(())
    }

    /// Makes ready what it can for the container that the shim was started for, while containerd still
    /// reads the answer of `start`. It has ended when [`Backend::create`] or [`Backend::abandon`] is
    /// called for that container. There is nobody to hear of errors: `create` meets them again.
    async fn prepare(&self, _coming: &Coming) {}

    /// Removes what was prepared for a container that does not come: `create` is not called for it.
    async fn abandon(&self, _id: &ContainerId) {}

    /// Makes a container whose init process waits for [`Container::start`]. Its root filesystem
    /// is mounted already.
    ///
    /// # Errors
    /// Nothing may be left behind: the framework calls nothing else for this container.
    async fn create(&self, request: Create) -> Result<Created<Self::Container>>;

    /// Removes whatever a dead shim left of a container, and waits until its processes are gone.
    /// Succeeds when nothing is left. The framework unmounts the root filesystem afterwards.
    ///
    /// # Errors
    /// What could not be removed, and why.
    fn clean_up(&self, namespace: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()>;
}

/// One container, from its creation to its deletion.
///
/// Methods take `&self`: different processes of a container may be worked on at once. Two calls
/// about the same process never overlap, but for `kill`.
///
/// A backend with several kinds of containers boxes them: `Box<dyn Container>` is one, too.
#[async_trait]
pub trait Container: Send + Sync + 'static {
    /// Lets the init process run the user's program.
    ///
    /// # Errors
    /// Why the program did not run; the container can still be deleted.
    async fn start(&self) -> Result<()>;

    /// Sends a signal, at any moment.
    ///
    /// # Errors
    /// `NotFound` when the process has ended.
    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()>;

    /// Frees the container. Its init process has ended or never ran the user's program; in the
    /// second case it is ended here.
    ///
    /// # Errors
    /// What could not be freed; the client may try again.
    async fn delete(&self) -> Result<()>;

    // Optional from here on: one left out answers UNIMPLEMENTED, as containerd requires.

    /// Runs one more process in the container.
    ///
    /// # Errors
    /// Why the process did not run. Nothing may be left behind.
    async fn exec(&self, _request: Exec) -> Result<Process> {
        Err(Error::unsupported("exec"))
    }

    /// Freezes every process, and returns when all stand still.
    ///
    /// # Errors
    /// The container runs on.
    async fn pause(&self) -> Result<()> {
        Err(Error::unsupported("pause"))
    }

    /// Thaws every process.
    ///
    /// # Errors
    /// The container stays frozen.
    async fn resume(&self) -> Result<()> {
        Err(Error::unsupported("resume"))
    }

    /// Changes a live container. Annotations alone may be left out as this whole method may: they
    /// change no limit, and the client hears that all is well.
    ///
    /// # Errors
    /// Which limit could not be set.
    async fn update(&self, _request: &Update) -> Result<()> {
        Err(Error::unsupported("update"))
    }

    /// Saves the processes to a directory, and ends them if that is asked for.
    ///
    /// # Errors
    /// The container runs on, or stays frozen.
    async fn checkpoint(&self, _request: &Checkpoint) -> Result<()> {
        Err(Error::unsupported("checkpoint"))
    }

    /// Makes the init process from the checkpoint that [`Create`] named, and lets it run on: the
    /// start of a container whose [`Init`] was left until then.
    ///
    /// # Errors
    /// Why there is no process; the container can still be deleted.
    async fn restore(&self) -> Result<Process> {
        Err(Error::unsupported("restore"))
    }

    /// Reads the current use of resources.
    ///
    /// # Errors
    /// Which file could not be read.
    async fn stats(&self) -> Result<Stats> {
        Err(Error::unsupported("stats"))
    }

    /// Waits until the kernel next kills a process of the container for want of memory. Left out, the
    /// framework never hears of it. It is called again after each time, and dropped at the end.
    ///
    /// # Errors
    /// When it can't be watched; it is not called again then.
    async fn out_of_memory(&self) -> Result<()> {
        std::future::pending().await
    }

    /// Lists the processes as the host sees them. Left out, the framework lists those it started:
    /// containerd deletes a container without processes as leaked when it starts again.
    ///
    /// # Errors
    /// Why they can't be told.
    async fn pids(&self) -> Result<Vec<Pid>> {
        Err(Error::unsupported("pids"))
    }
}

/// What the framework gives a backend in the serving process.
#[derive(Clone, Debug)]
pub struct Host {
    /// Collects the exits of the shim's children.
    pub reaper: Reaper,
    /// containerd's namespace.
    pub namespace: Namespace,
}

/// What is known of a container before it is asked for.
#[derive(Clone, Debug)]
pub struct Coming {
    /// The container's id.
    pub id: ContainerId,
    /// Its bundle. What is in it may change until the container is created.
    pub bundle: Bundle,
    /// The runtime's options that `start` was given, several by containerd 2.3 on.
    pub options: Vec<RuntimeOptions>,
}

/// Everything known when a container is asked for.
#[derive(Debug)]
pub struct Create {
    /// The container's id.
    pub id: ContainerId,
    /// Its bundle.
    pub bundle: Bundle,
    /// What the root filesystem was mounted from; empty when it was there already.
    pub rootfs: Vec<Mount>,
    /// What the init process gets as its streams.
    pub streams: Streams,
    /// The runtime's options, where the client gave any.
    pub options: Option<RuntimeOptions>,
    /// The checkpoint that it is to be restored from. A backend that can't refuses with
    /// `Unsupported`; one that can keeps the streams until [`Container::restore`].
    pub checkpoint: Option<PathBuf>,
    /// The shim it runs in.
    pub host: Host,
}

/// Everything known when one more process is asked for.
#[derive(Debug)]
pub struct Exec {
    /// The process's id.
    pub id: ExecId,
    /// What to run, in OCI terms.
    pub process: oci_spec::runtime::Process,
    /// What it gets as its streams.
    pub streams: Streams,
}

/// What a new process gets as its standard streams.
#[derive(Debug)]
pub enum Streams {
    /// Three open files; `/dev/null` where a stream was not asked for.
    Pipes {
        /// File descriptor 0.
        stdin: OwnedFd,
        /// File descriptor 1.
        stdout: OwnedFd,
        /// File descriptor 2.
        stderr: OwnedFd,
    },
    /// A terminal of the backend's making, which goes into [`Process::terminal`].
    Terminal,
}

/// A fresh container and its init process.
#[derive(Debug)]
pub struct Created<C> {
    /// The container.
    pub container: C,
    /// Its init process.
    pub init: Init,
}

/// The init process of a fresh container.
#[derive(Debug)]
pub enum Init {
    /// It exists, and waits for [`Container::start`].
    Made(Process),
    /// [`Container::restore`] makes it from a checkpoint.
    AtStart,
}

impl From<Process> for Init {
    fn from(process: Process) -> Self {
        Self::Made(process)
    }
}

/// What is to change about a container.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// New limits, where there are any.
    pub resources: Option<LinuxResources>,
    /// For backends that know some of them.
    pub annotations: HashMap<String, String>,
}

/// How a container is to be saved; criu(8) explains the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The directory that the checkpoint goes into.
    pub path: PathBuf,
    /// The container ends once it is saved.
    pub exit: bool,
    /// Open TCP connections are saved too.
    pub open_tcp: bool,
    /// Unix sockets may lead out of the container.
    pub external_unix_sockets: bool,
    /// There may be a terminal.
    pub terminal: bool,
    /// File locks are saved too.
    pub file_locks: bool,
    /// Namespaces that are not saved, by the names of the OCI spec.
    pub empty_namespaces: Vec<String>,
    /// What becomes of cgroups: one of criu's words.
    pub cgroups_mode: Option<String>,
    /// Where the tool that saves may work and keep its log.
    pub work_path: Option<PathBuf>,
    /// An earlier checkpoint that this one builds on.
    pub parent_path: Option<PathBuf>,
}

/// A process that exists, and the news of its end.
pub struct Process {
    /// Its id on the host.
    pub pid: Pid,
    /// Resolves once, when it has ended.
    pub exit: ExitFuture,
    /// Its terminal, when [`Streams::Terminal`] was asked for.
    pub terminal: Option<Terminal>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.pid)
            .field("terminal", &self.terminal)
            .finish_non_exhaustive()
    }
}

/// Resolves once, when the process has ended.
pub type ExitFuture = Pin<Box<dyn Future<Output = Exit> + Send>>;

/// Whom a signal is for.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The init process.
    Init,
    /// An added process.
    Exec {
        /// Its id.
        id: &'a ExecId,
        /// Its pid.
        pid: Pid,
    },
    /// Every process of the container.
    All,
}
