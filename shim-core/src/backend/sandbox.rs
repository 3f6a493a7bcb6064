//! The second seam: what a backend adds that has something for its containers to live in.
//!
//! A shim has one sandbox, and containerd drives it beside the containers: it is created, started,
//! stopped and deleted once each. The framework owns the wire, the states and the waiting.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use oci_spec::runtime::Spec;

use super::{Backend, ExitFuture, Host};
use crate::{
    error::{Error, Result},
    model::{Bundle, ContainerId, Mount, Pid, Platform, RuntimeOptions, Stats},
};

/// A backend whose containers share a sandbox: a virtual machine, or namespaces.
///
/// Its [`Backend::group`] is never asked for more than a pod, and [`Backend::clean_up`] is called with the
/// sandbox's id and bundle, too: it removes what a dead shim left of the whole sandbox then.
/// [`Backend::create`] is refused by the backend as long as the sandbox does not run.
#[async_trait]
pub trait SandboxBackend: Backend {
    /// Makes the sandbox, which waits for [`Sandbox::start`].
    ///
    /// # Errors
    /// Nothing may be left behind: the framework calls nothing else for this sandbox.
    async fn create_sandbox(&self, request: CreateSandbox) -> Result<Arc<dyn Sandbox>>;
}

/// What containers live in, from its creation to its deletion.
///
/// `start` and `delete` are called once each and do not overlap. Everything else may come at any moment,
/// during a `start` that takes its time, too.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// Starts it, and returns once containers can be created.
    ///
    /// # Errors
    /// Why it does not run. What was begun is undone but for what `delete` removes.
    async fn start(&self) -> Result<SandboxProcess>;

    /// Ends it with all containers in it, and returns when [`SandboxProcess::exit`] has resolved or is about
    /// to. One that was never started, or has ended, is stopped without a word.
    ///
    /// During `start` it makes that fail soon. A `start` that succeeds all the same is stopped once more.
    ///
    /// Programs may take as long as `grace` to end by themselves. CRI gives none, for it has stopped the
    /// containers before.
    ///
    /// # Errors
    /// What could not be ended; the client tries again.
    async fn stop(&self, grace: Duration) -> Result<()>;

    /// Removes all that is left, at the end of the shim. It has been stopped, or that has failed: then it
    /// is ended here, whatever that takes.
    ///
    /// # Errors
    /// What could not be removed; the client may try again.
    async fn delete(&self) -> Result<()>;

    /// Asks a running sandbox whether it is well.
    ///
    /// # Errors
    /// What is wrong with it.
    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    /// What the containers run on.
    fn platform(&self) -> Platform {
        Platform::own()
    }

    /// Reads what a running sandbox uses on the host, all in all.
    ///
    /// # Errors
    /// Which file could not be read.
    async fn stats(&self) -> Result<Stats> {
        Err(Error::unsupported("sandbox metrics"))
    }

    /// What people may want to know, by name. The name `info` is containerd's own.
    fn info(&self) -> HashMap<String, String> {
        HashMap::new()
    }
}

/// Everything known when a sandbox is asked for.
#[derive(Debug)]
pub struct CreateSandbox {
    /// The sandbox's id.
    pub id: ContainerId,
    /// Its bundle. It has no `config.json` where CRI is the client, and containerd 2.0 may remove it from
    /// under a live shim: what the sandbox needs for long is better kept elsewhere.
    pub bundle: Bundle,
    /// What its root filesystem was mounted from: mostly nothing, and there is none.
    pub rootfs: Vec<Mount>,
    /// CRI's `runtime.v1.PodSandboxConfig`; other clients have none.
    pub config: Option<RuntimeOptions>,
    /// The runtime's options that the shim was started with.
    pub options: Vec<RuntimeOptions>,
    /// The pod's network namespace. The host's has no path.
    pub netns: Option<PathBuf>,
    /// Sent by clients that have any.
    pub annotations: HashMap<String, String>,
    /// The shim it runs in.
    pub host: Host,
}

/// A sandbox that runs, and the news of its end.
pub struct SandboxProcess {
    /// A process of the host. CRI puts its namespaces into the spec of every container of the pod.
    pub pid: Pid,
    /// Resolves once, when the sandbox has ended, by itself or not. The backend ends the containers.
    pub exit: ExitFuture,
    /// Since when it runs.
    pub created_at: SystemTime,
    /// What the sandbox is, in OCI terms, where a client can use that.
    pub spec: Option<Spec>,
}

impl fmt::Debug for SandboxProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxProcess").field("pid", &self.pid).finish_non_exhaustive()
    }
}
