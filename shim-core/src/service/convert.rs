//! Between the wire's messages and the model.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use shim_protos::{
    Any, Timestamp, events,
    protobuf::{EnumOrUnknown, Message},
    runc::CheckpointOptions,
    streaming,
    task::CheckpointTaskRequest,
    types::{self, Status},
};

use crate::{
    backend::Checkpoint,
    error::{Error, Kind},
    lifecycle::Phase,
    model::{ExecId, Mount, RuntimeOptions, StdioUri, StdioUris},
};

/// A message that travels in an `Any`, under its bare name.
pub(crate) trait Named: Message {
    /// containerd's type URL for it.
    const TYPE_URL: &'static str;
}

macro_rules! named {
    ($($message:ty => $url:literal,)*) => {
        $(impl Named for $message {
            const TYPE_URL: &'static str = $url;
        })*
    };
}

named! {
    events::TaskCheckpointed => "containerd.events.TaskCheckpointed",
    events::TaskCreate => "containerd.events.TaskCreate",
    events::TaskDelete => "containerd.events.TaskDelete",
    events::TaskExecAdded => "containerd.events.TaskExecAdded",
    events::TaskExecStarted => "containerd.events.TaskExecStarted",
    events::TaskExit => "containerd.events.TaskExit",
    events::TaskOOM => "containerd.events.TaskOOM",
    events::TaskPaused => "containerd.events.TaskPaused",
    events::TaskResumed => "containerd.events.TaskResumed",
    events::TaskStart => "containerd.events.TaskStart",
    shim_protos::runc::ProcessDetails => "containerd.runc.v1.ProcessDetails",
    streaming::Data => "containerd.types.transfer.Data",
    streaming::StreamInit => "containerd.services.streaming.v1.StreamInit",
    streaming::WindowUpdate => "containerd.types.transfer.WindowUpdate",
}

/// A point in time as the wire has it.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).expect("less than a billion"),
        ..Default::default()
    }
}

/// An empty exec id on the wire means the init process.
pub(crate) fn exec_id(id: &str) -> Result<Option<ExecId>, Error> {
    if id.is_empty() { Ok(None) } else { Ok(Some(ExecId::parse(id)?)) }
}

pub(crate) fn mount(mount: &types::Mount) -> Mount {
    Mount {
        kind: mount.type_.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    }
}

pub(crate) fn wire_mount(mount: &Mount) -> types::Mount {
    types::Mount {
        type_: mount.kind.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
        ..Default::default()
    }
}

pub(crate) fn task_io(stdio: &StdioUris) -> events::TaskIO {
    events::TaskIO {
        stdin: StdioUri::wire(stdio.stdin.as_ref()),
        stdout: StdioUri::wire(stdio.stdout.as_ref()),
        stderr: StdioUri::wire(stdio.stderr.as_ref()),
        terminal: stdio.terminal,
        ..Default::default()
    }
}

/// No options, or empty ones, are none.
pub(crate) fn options(any: Option<&Any>) -> Option<RuntimeOptions> {
    let any = any.filter(|any| !any.type_url.is_empty())?;
    Some(RuntimeOptions { type_url: any.type_url.clone(), value: any.value.clone() })
}

/// How to save a container.
///
/// # Errors
/// `InvalidArgument` for options that are something else.
pub(crate) fn checkpoint(request: &CheckpointTaskRequest) -> Result<Checkpoint, Error> {
    let given = request.options.as_ref().filter(|any| !any.value.is_empty());
    let options = given.map_or_else(
        || Ok(CheckpointOptions::default()),
        |any| CheckpointOptions::parse_from_bytes(&any.value),
    );
    let options =
        options.map_err(|err| Error::invalid(format!("decode the checkpoint's options: {err}")))?;
    let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    let place = path(request.path.clone()).or_else(|| path(options.image_path));
    Ok(Checkpoint {
        path: place.ok_or_else(|| Error::invalid("a checkpoint needs a path"))?,
        exit: options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        terminal: options.terminal,
        file_locks: options.file_locks,
        empty_namespaces: options.empty_namespaces,
        cgroups_mode: (!options.cgroups_mode.is_empty()).then_some(options.cgroups_mode),
        work_path: path(options.work_path),
        parent_path: path(options.parent_path),
    })
}

pub(crate) fn status(phase: Phase) -> EnumOrUnknown<Status> {
    EnumOrUnknown::new(match phase {
        Phase::Created => Status::CREATED,
        Phase::Running => Status::RUNNING,
        Phase::Paused => Status::PAUSED,
        Phase::Stopped => Status::STOPPED,
    })
}

/// The one table from kinds to codes; containerd turns each code into one of its errors.
fn code(kind: Kind) -> ttrpc::Code {
    use ttrpc::Code;
    match kind {
        Kind::AlreadyExists => Code::ALREADY_EXISTS,
        Kind::FailedPrecondition => Code::FAILED_PRECONDITION,
        Kind::InvalidArgument => Code::INVALID_ARGUMENT,
        Kind::NotFound => Code::NOT_FOUND,
        Kind::Other => Code::UNKNOWN,
        Kind::PermissionDenied => Code::PERMISSION_DENIED,
        Kind::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
        Kind::TimedOut => Code::DEADLINE_EXCEEDED,
        Kind::Unavailable => Code::UNAVAILABLE,
        Kind::Unsupported => Code::UNIMPLEMENTED,
    }
}

/// Always a status of its own: any other error of ttrpc's goes out as UNKNOWN with Debug text.
impl From<Error> for ttrpc::Error {
    fn from(err: Error) -> Self {
        Self::RpcStatus(status_of(err))
    }
}

/// An error as the wire has it.
pub(crate) fn status_of(err: Error) -> ttrpc::proto::Status {
    ttrpc::get_status(code(err.kind()), format!("{err:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_goes_where_the_request_says_or_else_its_options() {
        let options = CheckpointOptions {
            exit: true,
            image_path: "/image".into(),
            work_path: "/work".into(),
            empty_namespaces: vec!["network".into()],
            ..Default::default()
        };
        let value = options.write_to_bytes().unwrap();
        let mut request = CheckpointTaskRequest { path: "/p".into(), ..Default::default() };
        request.options.mut_or_insert_default().value = value;
        let told = checkpoint(&request).unwrap();
        assert_eq!(told.path, PathBuf::from("/p"));
        assert_eq!(told.work_path, Some("/work".into()));
        assert_eq!(told.empty_namespaces, ["network"]);
        assert!(told.exit && !told.open_tcp && told.cgroups_mode.is_none());
        request.path.clear();
        assert_eq!(checkpoint(&request).unwrap().path, PathBuf::from("/image"));
        let err = checkpoint(&CheckpointTaskRequest::default()).unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        request.options.mut_or_insert_default().value = vec![0xff; 4];
        assert_eq!(checkpoint(&request).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
