//! What hostile bytes reach on the wire: frames, requests, and their conversion into the model.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;
use shim_protos::{
    Empty,
    protobuf::Message,
    task::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
        StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
        Task, UpdateTaskRequest, WaitRequest, WaitResponse, create_task,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use ttrpc::{
    r#async::{Service, TtrpcContext},
    proto::Request,
};

use super::{
    convert,
    server::Server,
    streaming::Streaming,
    task::{parse_create, parse_json, parse_process, parse_size},
};
use crate::{
    error::Result,
    linux::stdio::Exchange,
    model::{ContainerId, Signal},
};

/// The methods of the task service, in the order of their numbers here.
const METHODS: [&str; 17] = [
    "State",
    "Create",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Checkpoint",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Update",
    "Wait",
    "Stats",
    "Connect",
    "Shutdown",
];

const SERVICE: &str = "containerd.task.v3.Task";

/// Serves these bytes as a client's.
pub fn frames(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(serve(bytes));
}

/// Serves one call: the first byte chooses the method, the others are its payload.
pub fn request(bytes: &[u8]) {
    let Some((&first, payload)) = bytes.split_first() else { return };
    let request = Request {
        service: SERVICE.to_owned(),
        method: METHODS[usize::from(first) % METHODS.len()].to_owned(),
        payload: payload.to_vec(),
        ..Request::default()
    };
    let data = request.write_to_bytes().expect("a request in memory encodes");
    let Ok(length) = u32::try_from(data.len()) else { return };
    frames(&[&length.to_be_bytes()[..], &[0, 0, 0, 1, 1, 0], &data].concat());
}

/// Everything is answered, and the server ends with its client.
async fn serve(bytes: &[u8]) {
    let (mut client, theirs) = UnixStream::pair().expect("a socket pair");
    let server = Server::new(services(), Streaming(Exchange::default()));
    let serving = tokio::spawn(async move { server.serve(theirs).await });
    let (mut reader, mut writer) = client.split();
    let talk = async {
        let _refused = writer.write_all(bytes).await;
        let _gone = writer.shutdown().await;
    };
    let mut answers = Vec::new();
    let (_, _) = tokio::join!(talk, reader.read_to_end(&mut answers));
    serving.await.expect("the server neither panics nor hangs");
}

fn services() -> HashMap<String, Service> {
    create_task(Arc::new(Converter))
}

/// Does what the task service does before it acts, and no more: a fuzzer runs as root.
struct Converter;

fn converted<T, R: Default>(request: Result<T>) -> ttrpc::Result<R> {
    request?;
    Ok(R::default())
}

fn target(id: &str, exec: &str) -> Result<()> {
    ContainerId::parse(id)?;
    convert::exec_id(exec).map(drop)
}

#[async_trait]
impl Task for Converter {
    async fn state(&self, _: &TtrpcContext, it: StateRequest) -> ttrpc::Result<StateResponse> {
        converted(target(&it.id, &it.exec_id))
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        it: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        converted(parse_create(&it))
    }

    async fn start(&self, _: &TtrpcContext, it: StartRequest) -> ttrpc::Result<StartResponse> {
        converted(target(&it.id, &it.exec_id))
    }

    async fn delete(&self, _: &TtrpcContext, it: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        converted(target(&it.id, &it.exec_id))
    }

    async fn pids(&self, _: &TtrpcContext, it: PidsRequest) -> ttrpc::Result<PidsResponse> {
        converted(target(&it.id, ""))
    }

    async fn pause(&self, _: &TtrpcContext, it: PauseRequest) -> ttrpc::Result<Empty> {
        converted(target(&it.id, ""))
    }

    async fn resume(&self, _: &TtrpcContext, it: ResumeRequest) -> ttrpc::Result<Empty> {
        converted(target(&it.id, ""))
    }

    async fn checkpoint(
        &self,
        _: &TtrpcContext,
        it: CheckpointTaskRequest,
    ) -> ttrpc::Result<Empty> {
        converted(target(&it.id, ""))
    }

    async fn kill(&self, _: &TtrpcContext, it: KillRequest) -> ttrpc::Result<Empty> {
        target(&it.id, &it.exec_id)?;
        converted(Signal::parse(it.signal))
    }

    async fn exec(&self, _: &TtrpcContext, it: ExecProcessRequest) -> ttrpc::Result<Empty> {
        target(&it.id, &it.exec_id)?;
        converted(parse_process(&it))
    }

    async fn resize_pty(&self, _: &TtrpcContext, it: ResizePtyRequest) -> ttrpc::Result<Empty> {
        converted(parse_size(&it))
    }

    async fn close_io(&self, _: &TtrpcContext, it: CloseIORequest) -> ttrpc::Result<Empty> {
        converted(target(&it.id, &it.exec_id))
    }

    async fn update(&self, _: &TtrpcContext, it: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        converted(parse_json::<LinuxResources>("resources", &it.resources.value))
    }

    async fn wait(&self, _: &TtrpcContext, it: WaitRequest) -> ttrpc::Result<WaitResponse> {
        converted(target(&it.id, &it.exec_id))
    }

    async fn stats(&self, _: &TtrpcContext, it: StatsRequest) -> ttrpc::Result<StatsResponse> {
        converted(target(&it.id, ""))
    }

    async fn connect(
        &self,
        _: &TtrpcContext,
        it: ConnectRequest,
    ) -> ttrpc::Result<ConnectResponse> {
        converted(target(&it.id, ""))
    }

    async fn shutdown(&self, _: &TtrpcContext, it: ShutdownRequest) -> ttrpc::Result<Empty> {
        converted(target(&it.id, ""))
    }
}
