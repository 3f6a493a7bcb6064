//! What containerd tells its clients about tasks.

use anyhow::{Context, Result, bail};
use protobuf::Message;
use shim_protos::{Any, events as e};

use crate::client::messages::Envelope;
use crate::grpc::Answers;

/// The kind of an event that no shim sends; see [`Events::mark`].
pub(crate) const MARK: &str = "mark";

/// An event about a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// What happened: the topic without `/tasks/`.
    pub kind: String,
    /// The container that it happened to.
    pub container: String,
    /// The exec that it happened to; empty when it is the task itself.
    pub exec: String,
    /// The process, where the event names one.
    pub pid: u32,
    /// The exit status, where the event has one.
    pub status: u32,
}

impl Event {
    /// Reads an event; none of another kind than a task's.
    fn parse(envelope: &Envelope) -> Result<Option<Self>> {
        let Some(kind) = envelope.topic.strip_prefix("/tasks/") else { return Ok(None) };
        let bytes = envelope.event.value.as_slice();
        let (container, exec, pid, status) = match kind {
            "create" => read(bytes, |e: e::TaskCreate| (e.container_id, String::new(), e.pid, 0)),
            "start" => read(bytes, |e: e::TaskStart| (e.container_id, String::new(), e.pid, 0)),
            "oom" | MARK => read(bytes, |e: e::TaskOOM| (e.container_id, String::new(), 0, 0)),
            "paused" => read(bytes, |e: e::TaskPaused| (e.container_id, String::new(), 0, 0)),
            "resumed" => read(bytes, |e: e::TaskResumed| (e.container_id, String::new(), 0, 0)),
            "checkpointed" => {
                read(bytes, |e: e::TaskCheckpointed| (e.container_id, String::new(), 0, 0))
            }
            "exec-added" => read(bytes, |e: e::TaskExecAdded| (e.container_id, e.exec_id, 0, 0)),
            "exec-started" => {
                read(bytes, |e: e::TaskExecStarted| (e.container_id, e.exec_id, e.pid, 0))
            }
            "exit" => read(bytes, |e: e::TaskExit| (e.container_id, e.id, e.pid, e.exit_status)),
            "delete" => {
                read(bytes, |e: e::TaskDelete| (e.container_id, e.id, e.pid, e.exit_status))
            }
            _ => bail!("an event of an unknown kind: {kind}"),
        }
        .with_context(|| format!("read an event of the kind {kind}"))?;
        // The first process is named by its container's id, where it is named.
        let exec = if exec == container { String::new() } else { exec };
        Ok(Some(Self { kind: kind.to_owned(), container, exec, pid, status }))
    }
}

fn read<M: Message, T>(bytes: &[u8], pick: impl FnOnce(M) -> T) -> Result<T> {
    Ok(pick(M::parse_from_bytes(bytes)?))
}

/// The events of one container, from the subscription on.
#[derive(Debug)]
pub struct Events {
    answers: Answers<Envelope>,
    container: String,
    seen: Vec<Event>,
}

impl Events {
    pub(crate) fn new(answers: Answers<Envelope>, container: &str) -> Self {
        Self { answers, container: container.to_owned(), seen: Vec::new() }
    }

    /// The payload of an event that a client publishes to see its own subscription work.
    pub(crate) fn mark(&self) -> Result<Any> {
        let event = e::TaskOOM { container_id: self.container.clone(), ..Default::default() };
        let (type_url, value) = ("containerd.events.TaskOOM".to_owned(), event.write_to_bytes()?);
        Ok(Any { type_url, value, ..Default::default() })
    }

    /// Waits for an event of that kind about the task itself, not about an exec of it, and returns
    /// all events up to and with it.
    ///
    /// # Errors
    /// When containerd ends the stream.
    pub async fn until(&mut self, kind: &str) -> Result<&[Event]> {
        loop {
            let envelope = self.answers.next().await;
            let envelope = envelope.with_context(|| format!("no {kind} after {:?}", self.seen))?;
            let envelope = envelope.context("the stream of events has ended")?;
            let Some(event) = Event::parse(&envelope)? else { continue };
            if event.container != self.container {
                continue;
            }
            let last = event.kind == kind && event.exec.is_empty();
            if event.kind != MARK {
                self.seen.push(event);
            }
            if last {
                return Ok(&self.seen);
            }
        }
    }
}
