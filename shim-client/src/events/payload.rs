//! Payloads of events as JSON, with the messages' own field names.

use serde_json::{Value, json};
use shim_protos::events::{
    SandboxCreate, SandboxExit, SandboxStart, TaskCheckpointed, TaskCreate, TaskDelete,
    TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use shim_protos::protobuf::{Message, MessageField};
use shim_protos::types::Mount;
use shim_protos::{Any, Timestamp};

use crate::clock::rfc3339;

/// The payload's fields; for an unknown or broken one, its bytes in hex.
pub(super) fn to_json(any: &Any) -> Value {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    decode(name, &any.value).unwrap_or_else(|| json!({ "hex": hex::encode(&any.value) }))
}

fn decode(name: &str, bytes: &[u8]) -> Option<Value> {
    Some(match name {
        "containerd.events.TaskCreate" => create(read(bytes)?),
        "containerd.events.TaskStart" => {
            let event: TaskStart = read(bytes)?;
            json!({ "container_id": event.container_id, "pid": event.pid })
        }
        "containerd.events.TaskDelete" => {
            let event: TaskDelete = read(bytes)?;
            json!({ "container_id": event.container_id, "id": event.id, "pid": event.pid,
                "exit_status": event.exit_status, "exited_at": time(&event.exited_at) })
        }
        "containerd.events.TaskExit" => {
            let event: TaskExit = read(bytes)?;
            json!({ "container_id": event.container_id, "id": event.id, "pid": event.pid,
                "exit_status": event.exit_status, "exited_at": time(&event.exited_at) })
        }
        "containerd.events.TaskOOM" => container(read::<TaskOOM>(bytes)?.container_id),
        "containerd.events.TaskPaused" => container(read::<TaskPaused>(bytes)?.container_id),
        "containerd.events.TaskResumed" => container(read::<TaskResumed>(bytes)?.container_id),
        "containerd.events.TaskExecAdded" => {
            let event: TaskExecAdded = read(bytes)?;
            json!({ "container_id": event.container_id, "exec_id": event.exec_id })
        }
        "containerd.events.TaskExecStarted" => {
            let event: TaskExecStarted = read(bytes)?;
            json!({ "container_id": event.container_id, "exec_id": event.exec_id,
                "pid": event.pid })
        }
        "containerd.events.TaskCheckpointed" => {
            let event: TaskCheckpointed = read(bytes)?;
            json!({ "container_id": event.container_id, "checkpoint": event.checkpoint })
        }
        "containerd.events.SandboxCreate" => sandbox(read::<SandboxCreate>(bytes)?.sandbox_id),
        "containerd.events.SandboxStart" => sandbox(read::<SandboxStart>(bytes)?.sandbox_id),
        "containerd.events.SandboxExit" => {
            let event: SandboxExit = read(bytes)?;
            json!({ "sandbox_id": event.sandbox_id, "exit_status": event.exit_status,
                "exited_at": time(&event.exited_at) })
        }
        _ => return None,
    })
}

fn read<M: Message>(bytes: &[u8]) -> Option<M> {
    M::parse_from_bytes(bytes).ok()
}

fn create(event: TaskCreate) -> Value {
    let io = event.io.unwrap_or_default();
    json!({
        "container_id": event.container_id,
        "bundle": event.bundle,
        "rootfs": event.rootfs.iter().map(mount).collect::<Vec<_>>(),
        "io": { "stdin": io.stdin, "stdout": io.stdout, "stderr": io.stderr,
            "terminal": io.terminal },
        "checkpoint": event.checkpoint,
        "pid": event.pid,
    })
}

fn mount(mount: &Mount) -> Value {
    json!({ "type": mount.type_, "source": mount.source, "target": mount.target,
        "options": mount.options })
}

fn container(id: String) -> Value {
    json!({ "container_id": id })
}

fn sandbox(id: String) -> Value {
    json!({ "sandbox_id": id })
}

fn time(timestamp: &MessageField<Timestamp>) -> Value {
    match timestamp.as_ref() {
        Some(timestamp) => json!(rfc3339(timestamp.seconds, timestamp.nanos)),
        None => Value::Null,
    }
}
