//! The task service as containerd calls it, in whichever version the shim speaks.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use shim_protos::Empty;
use shim_protos::task::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use shim_protos::{task, task_v2};
use ttrpc::r#async::Client;
use ttrpc::context::Context;

use crate::daemon::{Daemon, Limits};
use crate::error::CallError;

/// A connection to a shim's task service. Clones share the connection.
#[derive(Clone)]
pub struct Task {
    connection: Client,
    service: Service,
    /// Sent along with every call, from containerd 2.0 on.
    namespace: Option<String>,
    limits: Limits,
}

#[derive(Clone)]
enum Service {
    V2(task_v2::TaskClient),
    V3(task::TaskClient),
}

impl Task {
    /// Calls that version of the service over the connection, in the daemon's manner.
    pub fn new(connection: Client, version: u32, daemon: &Daemon) -> Self {
        let service = match version {
            2 => Service::V2(task_v2::TaskClient::new(connection.clone())),
            _ => Service::V3(task::TaskClient::new(connection.clone())),
        };
        let namespace = daemon.generation.sends_namespace().then(|| daemon.namespace.clone());
        Self { connection, service, namespace, limits: daemon.limits }
    }

    /// The connection below, for calls of another service or malformed ones.
    pub fn connection(&self) -> &Client {
        &self.connection
    }
}

/// What goes with each call; no limit leaves it without a deadline.
pub(crate) fn context(namespace: Option<&str>, limit: Option<Duration>) -> Context {
    let nanos = limit.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX));
    let mut metadata = HashMap::new();
    if let Some(namespace) = namespace {
        metadata.insert("containerd-namespace-ttrpc".to_owned(), vec![namespace.to_owned()]);
    }
    Context { metadata, timeout_nano: nanos }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.service {
            Service::V2(_) => 2,
            Service::V3(_) => 3,
        };
        f.debug_struct("Task").field("version", &version).finish_non_exhaustive()
    }
}

/// One method a call; those with a limit are the ones that containerd gives a deadline.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty $(, within $limit:ident)?;)*) => {
        impl Task {
            $(
                $(#[$doc])*
                pub async fn $name(&self, request: &$request) -> Result<$response, CallError> {
                    let limit = None $(.or(Some(self.limits.$limit)))?;
                    let context = context(self.namespace.as_deref(), limit);
                    let answer = match &self.service {
                        Service::V2(client) => client.$name(context, request).await,
                        Service::V3(client) => client.$name(context, request).await,
                    };
                    answer.map_err(|error| CallError::new(stringify!($name), error))
                }
            )*
        }
    };
}

calls! {
    /// Makes the container, up to the point where its first process waits to be started.
    create(CreateTaskRequest) -> CreateTaskResponse;
    /// Starts the first process, or one that `exec` added.
    start(StartRequest) -> StartResponse;
    /// Says what a process is doing.
    state(StateRequest) -> StateResponse, within state;
    /// Lists the container's processes.
    pids(PidsRequest) -> PidsResponse;
    /// Freezes the container.
    pause(PauseRequest) -> Empty;
    /// Thaws it.
    resume(ResumeRequest) -> Empty;
    /// Saves it to disk.
    checkpoint(CheckpointTaskRequest) -> Empty;
    /// Sends a signal.
    kill(KillRequest) -> Empty;
    /// Adds a process, which `start` then starts.
    exec(ExecProcessRequest) -> Empty;
    /// Tells a terminal its size.
    resize_pty(ResizePtyRequest) -> Empty;
    /// Gives up the shim's own hold on a stream.
    close_io(CloseIORequest) -> Empty;
    /// Changes the limits of a running container.
    update(UpdateTaskRequest) -> Empty;
    /// Answers when the process has ended.
    wait(WaitRequest) -> WaitResponse;
    /// Reads the counters.
    stats(StatsRequest) -> StatsResponse;
    /// Tells the shim's and the first process's pid.
    connect(ConnectRequest) -> ConnectResponse;
    /// Removes an ended process; for the first one, the container with it.
    delete(DeleteRequest) -> DeleteResponse;
    /// Ends the shim, unless it still has containers.
    shutdown(ShutdownRequest) -> Empty, within shutdown;
}
