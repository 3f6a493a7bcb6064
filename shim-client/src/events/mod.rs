//! The events service that a shim publishes to, and what it received.

mod payload;

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use serde_json::{Value, json};
use shim_protos::forward::{Envelope, Events, ForwardRequest, create_events};
use shim_protos::{Any, Empty, Timestamp};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::timeout;
use ttrpc::r#async::{Server, TtrpcContext};
use ttrpc::asynchronous::transport::Listener;
use ttrpc::{Code, get_status};

use crate::clock::rfc3339;

/// One event as a shim sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When the shim says it happened.
    pub timestamp: Timestamp,
    /// The container's namespace.
    pub namespace: String,
    /// Such as `/tasks/exit`.
    pub topic: String,
    /// The payload with its type URL, as it came.
    pub payload: Any,
    /// Values of the call's `containerd-namespace-ttrpc` metadata.
    pub metadata_namespace: Vec<String>,
}

impl Event {
    /// The event as one JSON object; a payload of unknown type shows as hex.
    pub fn to_json(&self) -> Value {
        json!({
            "timestamp": rfc3339(self.timestamp.seconds, self.timestamp.nanos),
            "namespace": self.namespace,
            "topic": self.topic,
            "type": self.payload.type_url,
            "event": payload::to_json(&self.payload),
        })
    }
}

/// An events service on a unix socket; dropping it frees the socket.
pub struct EventServer {
    path: PathBuf,
    server: Server,
    received: watch::Receiver<Vec<Event>>,
    store: Arc<watch::Sender<Vec<Event>>>,
}

impl EventServer {
    /// Listens at that path, in place of a server that is gone.
    ///
    /// # Errors
    ///
    /// Also when a living server has the path.
    pub async fn bind(path: &Path) -> Result<Self> {
        let listener = listen(path)?;
        let (store, received) = watch::channel(Vec::new());
        let store = Arc::new(store);
        let service = Recorder { store: Arc::clone(&store) };
        let mut server = Server::new()
            .add_listener(Listener::from(listener))
            .register_service(create_events(Arc::new(service)));
        server.start().await.with_context(|| format!("serve events at {}", path.display()))?;
        Ok(Self { path: path.to_owned(), server, received, store })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All events so far, in the order of their arrival.
    pub fn received(&self) -> Vec<Event> {
        self.received.borrow().clone()
    }

    /// Takes the events out that came since the last call; waits if there are none.
    pub async fn take(&mut self) -> Vec<Event> {
        // The sender lives as long as self, so waiting cannot fail.
        let _ = self.received.wait_for(|events| !events.is_empty()).await;
        self.store.send_replace(Vec::new())
    }

    /// Waits until the events so far satisfy the condition, and returns them.
    pub async fn wait_for(
        &self,
        limit: Duration,
        condition: impl FnMut(&Vec<Event>) -> bool,
    ) -> Result<Vec<Event>> {
        let mut received = self.received.clone();
        let Ok(events) = timeout(limit, received.wait_for(condition)).await else {
            let topics: Vec<String> =
                self.received().into_iter().map(|event| event.topic).collect();
            bail!("the awaited event has not come within {limit:?}; so far: {topics:?}");
        };
        Ok(events.context("the events server ended")?.clone())
    }

    /// Ends all connections and the listener.
    pub async fn close(mut self) {
        // It has nothing to tell but that it ended.
        let _ = self.server.shutdown().await;
    }
}

impl Drop for EventServer {
    fn drop(&mut self) {
        // Best effort: the next server at this path replaces a dead socket anyway.
        let _ = fs::remove_file(&self.path);
    }
}

impl fmt::Debug for EventServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventServer").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Whether a living server listens at that path.
pub fn is_served(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

fn listen(path: &Path) -> Result<UnixListener> {
    if is_served(path) {
        bail!("another process serves events at {} already", path.display());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).context("restrict the socket")?;
    Ok(listener)
}

struct Recorder {
    store: Arc<watch::Sender<Vec<Event>>>,
}

#[async_trait]
impl Events for Recorder {
    async fn forward(
        &self,
        context: &TtrpcContext,
        request: ForwardRequest,
    ) -> ttrpc::Result<Empty> {
        let Some(envelope) = request.envelope.into_option() else {
            let status = get_status(Code::INVALID_ARGUMENT, "an event without an envelope");
            return Err(ttrpc::Error::RpcStatus(status));
        };
        let namespace =
            context.metadata.get("containerd-namespace-ttrpc").cloned().unwrap_or_default();
        let event = received(envelope, namespace);
        log::debug!("event {} {}", event.topic, payload::to_json(&event.payload));
        self.store.send_modify(|events| events.push(event));
        Ok(Empty::default())
    }
}

fn received(envelope: Envelope, metadata_namespace: Vec<String>) -> Event {
    Event {
        timestamp: envelope.timestamp.unwrap_or_default(),
        namespace: envelope.namespace,
        topic: envelope.topic,
        payload: envelope.event.unwrap_or_default(),
        metadata_namespace,
    }
}

#[cfg(test)]
mod tests;
