//! The sandbox service as containerd calls it: the pod that a shim's containers live in.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use shim_protos::sandbox::{
    CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
    PlatformResponse, SandboxClient, SandboxMetricsRequest, SandboxMetricsResponse,
    SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse,
    StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, StopSandboxResponse,
    WaitSandboxRequest, WaitSandboxResponse,
};
use ttrpc::r#async::Client;

use crate::binary::ShimBinary;
use crate::bundle::Bundle;
use crate::daemon::Daemon;
use crate::error::CallError;
use crate::shim::Shim;
use crate::task::context;

/// A connection to a shim's sandbox service. Clones share the connection.
#[derive(Clone)]
pub struct Sandbox {
    client: SandboxClient,
    /// Sent along with every call, from containerd 2.0 on.
    namespace: Option<String>,
}

impl Sandbox {
    /// Calls the service over a connection, in the daemon's manner.
    pub fn new(connection: Client, daemon: &Daemon) -> Self {
        let namespace = daemon.generation.sends_namespace().then(|| daemon.namespace.clone());
        Self { client: SandboxClient::new(connection), namespace }
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

/// One method a call; containerd gives none of them a deadline.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $method:ident($request:ty) -> $response:ty;)*) => {
        impl Sandbox {
            $(
                $(#[$doc])*
                pub async fn $name(&self, request: &$request) -> Result<$response, CallError> {
                    let context = context(self.namespace.as_deref(), None::<Duration>);
                    let answer = self.client.$method(context, request).await;
                    answer.map_err(|error| CallError::new(stringify!($method), error))
                }
            )*
        }
    };
}

calls! {
    /// Makes the sandbox, up to the point where it waits to be started.
    create = create_sandbox(CreateSandboxRequest) -> CreateSandboxResponse;
    /// Starts it.
    start = start_sandbox(StartSandboxRequest) -> StartSandboxResponse;
    /// Tells what its containers run on.
    platform = platform(PlatformRequest) -> PlatformResponse;
    /// Ends it with all in it.
    stop = stop_sandbox(StopSandboxRequest) -> StopSandboxResponse;
    /// Answers when it has ended.
    wait = wait_sandbox(WaitSandboxRequest) -> WaitSandboxResponse;
    /// Says whether it runs.
    status = sandbox_status(SandboxStatusRequest) -> SandboxStatusResponse;
    /// Asks whether it is well.
    ping = ping_sandbox(PingRequest) -> PingResponse;
    /// Removes it, and ends the shim.
    shutdown = shutdown_sandbox(ShutdownSandboxRequest) -> ShutdownSandboxResponse;
    /// Reads its counters.
    metrics = sandbox_metrics(SandboxMetricsRequest) -> SandboxMetricsResponse;
}

impl Shim {
    /// Its sandbox service, over the same connection.
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::new(self.task.connection().clone(), self.daemon())
    }

    /// Connects a container of a pod to the pod's shim, as containerd does before Create: by the
    /// sandbox's own address, or through a `start` where the sandbox's shim is too old for that.
    pub async fn start_in(
        sandbox: &Self,
        daemon: &Daemon,
        binary: &ShimBinary,
        bundle: &Bundle,
    ) -> Result<Self> {
        /// From this version on a sandbox's address is its containers', too.
        const SHARED: u32 = 3;
        if sandbox.answer.version < SHARED {
            return Self::start(daemon, binary, bundle, None).await;
        }
        bundle.keep_start(daemon.generation, binary, &sandbox.answer)?;
        let answer = sandbox.answer.clone();
        Self::connect(daemon, binary, bundle, answer).await.context("connect to the sandbox's shim")
    }
}
