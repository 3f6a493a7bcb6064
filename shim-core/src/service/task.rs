//! The task service, v2 and v3: one implementation under both names, for the messages are the same.
//!
//! Whatever changes state runs detached: ttrpc drops a handler when the client's deadline passes or
//! its connection ends, and a create torn in half leaks.

use std::{collections::HashMap, future::Future, sync::Arc};

use async_trait::async_trait;
use oci_spec::runtime::Process;
use shim_protos::{
    Any, Empty,
    protobuf::{Message, MessageField},
    runc::ProcessDetails,
    task::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
        StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
        Task, UpdateTaskRequest, WaitRequest, WaitResponse, create_task,
    },
    types::ProcessInfo,
};
use ttrpc::r#async::{Service, TtrpcContext};

use super::{convert, convert::Named, stats};
use crate::{
    backend::{Backend, Target, Update},
    error::{Error, Result},
    lifecycle::{CreateTask, Deleted, ProcessState, Shim},
    model::{Bundle, ContainerId, ExecId, Exit, Pid, Signal, StdioUris, WindowSize},
};

/// containerd 2.x asks for the third version, 1.x for the second.
const V3: &str = "containerd.task.v3.Task";
pub(crate) const V2: &str = "containerd.task.v2.Task";

/// Metadata of a Connect by which `start` tells of a container that containerd is to create.
pub(crate) const ANNOUNCES: &str = "shim-announces";

struct TaskService<B: Backend> {
    shim: Arc<Shim<B>>,
}

/// The services of a shim, by name.
pub(crate) fn services<B: Backend>(shim: &Arc<Shim<B>>) -> HashMap<String, Service> {
    let make = || {
        let service = TaskService { shim: Arc::clone(shim) };
        create_task(Arc::new(service)).remove(V3).expect("the generated code names it so")
    };
    HashMap::from([(V2.to_owned(), make()), (V3.to_owned(), make())])
}

/// Runs an operation to its end, whatever becomes of the caller.
pub(super) async fn detached<T: Send + 'static>(
    operation: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let ended = tokio::spawn(operation).await;
    ended.unwrap_or_else(|err| Err(Error::other(format!("the operation died: {err}"))))
}

#[async_trait]
impl<B: Backend> Task for TaskService<B> {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let create = parse_create(&request)?;
        let shim = Arc::clone(&self.shim);
        let pid = detached(async move { shim.create(create).await }).await?;
        Ok(CreateTaskResponse { pid: pid.map_or(0, Pid::get), ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let (task, exec) = (self.task(&request.id)?, convert::exec_id(&request.exec_id)?);
        let pid = detached(async move {
            match exec {
                None => task.start().await,
                Some(exec) => task.start_exec(&exec).await,
            }
        });
        Ok(StartResponse { pid: pid.await?.get(), ..Default::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let task = self.task(&request.id)?;
        let state = match convert::exec_id(&request.exec_id)? {
            None => task.state(),
            Some(exec) => task.exec_state(&exec)?,
        };
        Ok(StateResponse {
            id: request.id,
            bundle: task.bundle.path().display().to_string(),
            exec_id: request.exec_id,
            ..state_response(&state)
        })
    }

    async fn delete(
        &self,
        _: &TtrpcContext,
        request: DeleteRequest,
    ) -> ttrpc::Result<DeleteResponse> {
        let id = ContainerId::parse(&request.id).map_err(Error::from)?;
        let (shim, exec) = (Arc::clone(&self.shim), convert::exec_id(&request.exec_id)?);
        let deleted = detached(async move {
            match exec {
                None => shim.delete(&id).await,
                Some(exec) => shim.task(&id)?.delete_exec(&exec).await,
            }
        });
        Ok(delete_response(&deleted.await?))
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        // containerd asks for the sandbox's, too, and takes a container without any for a leftover.
        let pids = match self.resident(&request.id) {
            Some(pid) => pid.map(|pid| (pid, None)).into_iter().collect(),
            None => self.task(&request.id)?.pids().await?,
        };
        let processes = pids.into_iter().map(|(pid, exec)| process_info(pid, exec)).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        detached(async move { task.pause().await }).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        detached(async move { task.resume().await }).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        request: CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        let checkpoint = convert::checkpoint(&request)?;
        detached(async move { task.checkpoint(&checkpoint).await }).await?;
        Ok(Empty::new())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        let signal = Signal::parse(request.signal)?;
        let exec = convert::exec_id(&request.exec_id)?;
        detached(async move {
            match exec {
                Some(exec) => task.kill_exec(&exec, signal).await,
                None if request.all => task.kill(Target::All, signal).await,
                None => task.kill(Target::Init, signal).await,
            }
        })
        .await?;
        Ok(Empty::new())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        let exec = ExecId::parse(&request.exec_id).map_err(Error::from)?;
        let process = parse_process(&request)?;
        let stdio =
            parse_stdio([&request.stdin, &request.stdout, &request.stderr], request.terminal)?;
        detached(async move { task.add_exec(exec, process, stdio).await }).await?;
        Ok(Empty::new())
    }

    async fn resize_pty(
        &self,
        _: &TtrpcContext,
        request: ResizePtyRequest,
    ) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        let size = parse_size(&request)?;
        match convert::exec_id(&request.exec_id)? {
            None => task.resize(size)?,
            Some(exec) => task.exec(&exec)?.resize(size)?,
        }
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        match convert::exec_id(&request.exec_id)? {
            None if request.stdin => task.close_stdin(),
            Some(exec) if request.stdin => task.exec(&exec)?.close_stdin(),
            _ => {}
        }
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let task = self.task(&request.id)?;
        let resources = request.resources.as_ref();
        let resources = resources.map(|any| parse_json("resources", &any.value)).transpose()?;
        let update = Update { resources, annotations: request.annotations };
        if update.resources.is_none() && update.annotations.is_empty() {
            return Ok(Empty::new());
        }
        detached(async move { task.update(&update).await }).await?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let task = self.task(&request.id)?;
        // Whoever waits holds the process, and hears its end even after its deletion.
        let exit = match convert::exec_id(&request.exec_id)? {
            None => task.wait().await,
            Some(exec) => task.exec(&exec)?.wait().await,
        };
        Ok(WaitResponse {
            exit_status: exit.status.wire(),
            exited_at: exited_at(Some(exit)),
            ..Default::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let stats = self.task(&request.id)?.stats().await?;
        Ok(StatsResponse { stats: MessageField::some(stats::to_any(stats)), ..Default::default() })
    }

    async fn connect(
        &self,
        context: &TtrpcContext,
        request: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        if context.metadata.contains_key(ANNOUNCES) {
            self.shim.announce(ContainerId::parse(&request.id).map_err(Error::from)?)?;
        }
        // An unknown id is no error: containerd asks before there is a task.
        let pid = self.resident(&request.id).unwrap_or_else(|| {
            let task = self.task(&request.id).ok();
            task.and_then(|task| task.state().pid)
        });
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: pid.map_or(0, Pid::get),
            version: String::new(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.shim.request_shutdown(ContainerId::parse(&request.id).ok().as_ref()).await;
        Ok(Empty::new())
    }
}

impl<B: Backend> TaskService<B> {
    fn task(&self, id: &str) -> Result<Arc<crate::lifecycle::Task<B::Container>>> {
        self.shim.task(&ContainerId::parse(id)?)
    }

    /// The process of the sandbox, if that is its id.
    fn resident(&self, id: &str) -> Option<Option<Pid>> {
        self.shim.resident(&ContainerId::parse(id).ok()?)
    }
}

pub(super) fn parse_create(request: &CreateTaskRequest) -> Result<CreateTask> {
    let streams = [&request.stdin, &request.stdout, &request.stderr];
    Ok(CreateTask {
        id: ContainerId::parse(&request.id)?,
        bundle: Bundle::new(&request.bundle)?,
        rootfs: request.rootfs.iter().map(convert::mount).collect(),
        stdio: parse_stdio(streams, request.terminal)?,
        options: convert::options(request.options.as_ref()),
        checkpoint: (!request.checkpoint.is_empty()).then(|| request.checkpoint.clone().into()),
    })
}

fn parse_stdio([stdin, stdout, stderr]: [&String; 3], terminal: bool) -> Result<StdioUris> {
    StdioUris::parse(stdin, stdout, stderr, terminal)
}

pub(super) fn parse_process(request: &ExecProcessRequest) -> Result<Process> {
    let spec =
        request.spec.as_ref().ok_or_else(|| Error::invalid("an exec needs a process spec"))?;
    let mut json: serde_json::Value = parse_json("process spec", &spec.value)?;
    // containerd's own shim takes a process without a user for root's; the parser here would not.
    if let Some(process) = json.as_object_mut() {
        process.entry("user").or_insert_with(|| serde_json::json!({"uid": 0, "gid": 0}));
    }
    let process = serde_json::from_value(json);
    let mut process: Process =
        process.map_err(|err| Error::invalid(format!("parse process spec: {err}")))?;
    process.set_terminal(Some(request.terminal));
    Ok(process)
}

/// Parses a JSON object; of a list the parser would take the items for the fields.
pub(super) fn parse_json<T: serde::de::DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    let parse = |err| Error::invalid(format!("parse {what}: {err}"));
    let value: serde_json::Value = serde_json::from_slice(json).map_err(parse)?;
    if !value.is_object() {
        return Err(Error::invalid(format!("parse {what}: it is no JSON object")));
    }
    serde_json::from_value(value).map_err(parse)
}

pub(super) fn parse_size(request: &ResizePtyRequest) -> Result<WindowSize> {
    let side = |side: u32| {
        u16::try_from(side).map_err(|_| Error::invalid(format!("{side} is no terminal's size")))
    };
    Ok(WindowSize { height: side(request.height)?, width: side(request.width)? })
}

fn state_response(state: &ProcessState) -> StateResponse {
    let io = convert::task_io(&state.stdio);
    StateResponse {
        pid: state.pid.map_or(0, Pid::get),
        status: convert::status(state.phase),
        stdin: io.stdin,
        stdout: io.stdout,
        stderr: io.stderr,
        terminal: io.terminal,
        exit_status: state.exit.map_or(0, |exit| exit.status.wire()),
        exited_at: exited_at(state.exit),
        ..Default::default()
    }
}

fn exited_at(exit: Option<Exit>) -> MessageField<shim_protos::Timestamp> {
    exit.map(|exit| convert::timestamp(exit.at)).into()
}

fn delete_response(deleted: &Deleted) -> DeleteResponse {
    DeleteResponse {
        pid: deleted.pid.map_or(0, Pid::get),
        exit_status: deleted.exit.status.wire(),
        exited_at: exited_at(Some(deleted.exit)),
        ..Default::default()
    }
}

fn process_info(pid: Pid, exec: Option<ExecId>) -> ProcessInfo {
    let details = exec.map(|exec| {
        let details = ProcessDetails { exec_id: exec.to_string(), ..Default::default() };
        Any {
            type_url: ProcessDetails::TYPE_URL.to_owned(),
            value: details.write_to_bytes().expect("a message in memory encodes"),
            ..Default::default()
        }
    });
    ProcessInfo { pid: pid.get(), info: details.into(), ..Default::default() }
}
