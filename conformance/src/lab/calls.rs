//! The calls of the task service, as short as cases want them: the empty exec id is the container's
//! first process, and an answer that does not come is an error.

use std::time::Duration;

use serde_json::{Value, json};
use shim_client::{CallError, ExecChange, Reason, exec_process};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use ttrpc::Code;

use super::guest::{Guest, PATIENCE};

type Answer<T> = Result<T, CallError>;

/// Gives up on an answer that does not come.
pub(super) async fn patient<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Answer<T>>,
) -> Answer<T> {
    timeout(limit, answer).await.unwrap_or_else(|_| {
        Err(CallError { call, reason: Reason::Broken(format!("no answer within {limit:?}")) })
    })
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $answer:ty
        = $call:ident $request:ident { $($field:ident $(: $value:expr)?),* };)*) => {
        impl Guest {
            $(
                $(#[$doc])*
                pub(crate) async fn $name(&self, $($argument: $type),*) -> Answer<$answer> {
                    let id = self.id.clone();
                    let request = $request { id, $($field $(: $value)?,)* ..Default::default() };
                    patient(stringify!($call), PATIENCE, self.shim.task.$call(&request)).await
                }
            )*
        }
    };
}

calls! {
    start(exec: &str) -> StartResponse = start StartRequest { exec_id: exec.to_owned() };
    state(exec: &str) -> StateResponse = state StateRequest { exec_id: exec.to_owned() };
    pids() -> PidsResponse = pids PidsRequest {};
    pause() -> shim_protos::Empty = pause PauseRequest {};
    resume() -> shim_protos::Empty = resume ResumeRequest {};
    kill(exec: &str, signal: u32) -> shim_protos::Empty
        = kill KillRequest { exec_id: exec.to_owned(), signal };
    /// Signals every process of the container.
    kill_all(signal: u32) -> shim_protos::Empty = kill KillRequest { signal, all: true };
    delete(exec: &str) -> DeleteResponse = delete DeleteRequest { exec_id: exec.to_owned() };
    stats() -> StatsResponse = stats StatsRequest {};
    connect() -> ConnectResponse = connect ConnectRequest {};
    shutdown() -> shim_protos::Empty = shutdown ShutdownRequest {};
    resize(exec: &str, width: u32, height: u32) -> shim_protos::Empty
        = resize_pty ResizePtyRequest { exec_id: exec.to_owned(), width, height };
    close_stdin(exec: &str) -> shim_protos::Empty
        = close_io CloseIORequest { exec_id: exec.to_owned(), stdin: true };
    update_any(resources: Option<Any>) -> shim_protos::Empty
        = update UpdateTaskRequest { resources: MessageField(resources.map(Box::new)) };
    checkpoint(path: &str) -> shim_protos::Empty
        = checkpoint CheckpointTaskRequest { path: path.to_owned() };
}

impl Guest {
    /// Create, with what the case asked for.
    pub(crate) async fn create(&self) -> Answer<CreateTaskResponse> {
        self.create_with(|_| ()).await
    }

    /// Create, with a request changed so.
    pub(crate) async fn create_with(
        &self,
        change: impl FnOnce(&mut CreateTaskRequest),
    ) -> Answer<CreateTaskResponse> {
        let mut request = self.create_request();
        change(&mut request);
        patient("create", PATIENCE, self.shim.task.create(&request)).await
    }

    /// Exec, of this in the container's own surroundings, with its streams at `/dev/null`.
    pub(crate) async fn exec(&self, exec: &str, args: &[&str]) -> Answer<shim_protos::Empty> {
        self.exec_with(exec, args, |_| ()).await
    }

    /// Exec, with a request changed so.
    pub(crate) async fn exec_with(
        &self,
        exec: &str,
        args: &[&str],
        change: impl FnOnce(&mut ExecProcessRequest),
    ) -> Answer<shim_protos::Empty> {
        let args = args.iter().map(ToString::to_string).collect();
        let process = exec_process(&self.spec, &ExecChange { args, ..ExecChange::default() });
        let mut request = ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.to_owned(),
            spec: MessageField::some(process_any(&process)),
            ..Default::default()
        };
        change(&mut request);
        patient("exec", PATIENCE, self.shim.task.exec(&request)).await
    }

    /// Exec and Start; its end is the case's to wait for.
    pub(crate) async fn started(&self, exec: &str, args: &[&str]) -> Answer<u32> {
        self.exec(exec, args).await?;
        Ok(self.start(exec).await?.pid)
    }

    /// Executes a program beside the first one, up to its end; false for a shim without Exec.
    pub(crate) async fn execute(&self, exec: &str) -> anyhow::Result<bool> {
        match self.exec(exec, &["true"]).await {
            Err(error) if error.code() == Some(Code::UNIMPLEMENTED) => return Ok(false),
            answer => answer?,
        };
        self.start(exec).await?;
        self.expect_exit(exec, 0).await?;
        Ok(true)
    }

    /// Wait.
    pub(crate) async fn wait(&self, exec: &str) -> Answer<WaitResponse> {
        let request = self.wait_request(exec);
        patient("wait", PATIENCE, self.shim.task.wait(&request)).await
    }

    /// Wait, in a task of its own.
    pub(crate) fn waiting(&self, exec: &str) -> JoinHandle<Answer<WaitResponse>> {
        let (task, request) = (self.shim.task.clone(), self.wait_request(exec));
        tokio::spawn(async move { patient("wait", PATIENCE, task.wait(&request)).await })
    }

    fn wait_request(&self, exec: &str) -> WaitRequest {
        WaitRequest { id: self.id.clone(), exec_id: exec.to_owned(), ..Default::default() }
    }

    /// Update, with OCI resources as containerd packs them.
    pub(crate) async fn update(&self, resources: &Value) -> Answer<shim_protos::Empty> {
        self.update_any(Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.to_string().into_bytes(),
            ..Any::default()
        }))
        .await
    }
}

/// An OCI process as containerd packs it.
pub(crate) fn process_any(process: &Value) -> Any {
    Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
        value: json!(process).to_string().into_bytes(),
        ..Any::default()
    }
}
