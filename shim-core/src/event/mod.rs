//! What containerd is told of a task: one variant a topic, so that a new one can't lack its own.

mod publisher;

use std::path::{Path, PathBuf};

use shim_protos::{Any, events as wire, protobuf::MessageField};

use crate::{
    model::{Bundle, ContainerId, ExecId, Exit, Mount, Namespace, Pid, StdioUris},
    service::convert,
};

pub(crate) use publisher::Publisher;

/// Tells the events of one shim's containers.
#[derive(Clone, Debug)]
pub(crate) struct Herald {
    pub(crate) publisher: Publisher,
    pub(crate) namespace: Namespace,
}

impl Herald {
    /// Queues an event behind those before it.
    pub(crate) fn tell(&self, event: &Event) {
        self.publisher.publish(&self.namespace, event);
    }
}

/// Something that happened to a task.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Created(Box<Created>),
    Started {
        container: ContainerId,
        pid: Pid,
    },
    ExecAdded {
        container: ContainerId,
        exec: ExecId,
    },
    ExecStarted {
        container: ContainerId,
        exec: ExecId,
        pid: Pid,
    },
    OutOfMemory {
        container: ContainerId,
    },
    Paused {
        container: ContainerId,
    },
    Resumed {
        container: ContainerId,
    },
    Checkpointed {
        container: ContainerId,
        path: PathBuf,
    },
    /// The init process ended when there is no exec's id.
    Exited {
        container: ContainerId,
        exec: Option<ExecId>,
        pid: Pid,
        exit: Exit,
    },
    Deleted {
        container: ContainerId,
        exec: Option<ExecId>,
        pid: Option<Pid>,
        exit: Exit,
    },
}

/// A fresh task. One that is to be restored has no process yet.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) container: ContainerId,
    pub(crate) pid: Option<Pid>,
    pub(crate) bundle: Bundle,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: StdioUris,
    pub(crate) checkpoint: Option<PathBuf>,
}

impl Event {
    /// containerd's name for what happened.
    pub(crate) fn topic(&self) -> &'static str {
        match self {
            Self::Created(_) => "/tasks/create",
            Self::Started { .. } => "/tasks/start",
            Self::ExecAdded { .. } => "/tasks/exec-added",
            Self::ExecStarted { .. } => "/tasks/exec-started",
            Self::OutOfMemory { .. } => "/tasks/oom",
            Self::Paused { .. } => "/tasks/paused",
            Self::Resumed { .. } => "/tasks/resumed",
            Self::Checkpointed { .. } => "/tasks/checkpointed",
            Self::Exited { .. } => "/tasks/exit",
            Self::Deleted { .. } => "/tasks/delete",
        }
    }

    /// The message as it travels.
    pub(crate) fn to_any(&self) -> Any {
        match self {
            Self::Created(created) => pack(&created.to_wire()),
            Self::Started { container, pid } => pack(&wire::TaskStart {
                container_id: container.to_string(),
                pid: pid.get(),
                ..Default::default()
            }),
            Self::ExecAdded { container, exec } => pack(&wire::TaskExecAdded {
                container_id: container.to_string(),
                exec_id: exec.to_string(),
                ..Default::default()
            }),
            Self::ExecStarted { container, exec, pid } => pack(&wire::TaskExecStarted {
                container_id: container.to_string(),
                exec_id: exec.to_string(),
                pid: pid.get(),
                ..Default::default()
            }),
            Self::OutOfMemory { container } => {
                pack(&wire::TaskOOM { container_id: container.to_string(), ..Default::default() })
            }
            Self::Paused { container } => pack(&wire::TaskPaused {
                container_id: container.to_string(),
                ..Default::default()
            }),
            Self::Resumed { container } => pack(&wire::TaskResumed {
                container_id: container.to_string(),
                ..Default::default()
            }),
            Self::Checkpointed { container, path } => pack(&wire::TaskCheckpointed {
                container_id: container.to_string(),
                checkpoint: path_text(path),
                ..Default::default()
            }),
            Self::Exited { container, exec, pid, exit } => pack(&wire::TaskExit {
                container_id: container.to_string(),
                id: process_id(container, exec.as_ref()),
                pid: pid.get(),
                exit_status: exit.status.wire(),
                exited_at: MessageField::some(convert::timestamp(exit.at)),
                ..Default::default()
            }),
            Self::Deleted { container, exec, pid, exit } => pack(&wire::TaskDelete {
                container_id: container.to_string(),
                id: exec.as_ref().map(ToString::to_string).unwrap_or_default(),
                pid: pid.map_or(0, Pid::get),
                exit_status: exit.status.wire(),
                exited_at: MessageField::some(convert::timestamp(exit.at)),
                ..Default::default()
            }),
        }
    }
}

impl Created {
    fn to_wire(&self) -> wire::TaskCreate {
        wire::TaskCreate {
            container_id: self.container.to_string(),
            bundle: path_text(self.bundle.path()),
            rootfs: self.rootfs.iter().map(convert::wire_mount).collect(),
            io: MessageField::some(convert::task_io(&self.stdio)),
            checkpoint: self.checkpoint.as_deref().map(path_text).unwrap_or_default(),
            pid: self.pid.map_or(0, Pid::get),
            ..Default::default()
        }
    }
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

/// An exit is told by the exec's id, or by the container's for the init process.
fn process_id(container: &ContainerId, exec: Option<&ExecId>) -> String {
    exec.map_or_else(|| container.to_string(), ToString::to_string)
}

/// containerd's type URL is the bare message name, with no `type.googleapis.com/` in front.
fn pack<M: convert::Named>(message: &M) -> Any {
    Any {
        type_url: M::TYPE_URL.to_owned(),
        value: message.write_to_bytes().expect("a message in memory encodes"),
        ..Default::default()
    }
}
