//! The ttrpc server: who may call what, and how much of it at once.
//!
//! The services are those of the ttrpc crate; the connections are served here, since a shim has to
//! outlive every client it meets: a request costs memory only as its bytes come, a client that
//! never reads its answers stops being read, a stream keeps little, a flood is refused call by call, and what is not served
//! is answered UNIMPLEMENTED, by which containerd finds out what a shim can do.

mod call;
mod connection;
mod frame;
mod guests;
mod stream;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::watch,
    task::yield_now,
    time::timeout,
};
use ttrpc::r#async::Service;

use self::{call::Services, guests::Guests};
pub(crate) use self::{
    call::request_frame,
    frame::HEAD,
    stream::{Listener, Sender, Speech, Streams},
};

/// Serves connections as they come.
#[derive(Clone)]
pub(crate) struct Server {
    services: Services,
    streams: Arc<dyn Streams>,
    unsent: Unsent,
    guests: Guests,
}

/// From the end of an operation to its answer: the one who waits for it, the call, its connection.
const TURNS: usize = 4;

/// How many answers are on their way to clients.
type Unsent = Arc<watch::Sender<usize>>;

impl Server {
    /// A server of these services, by their full names, and of methods that are streams.
    pub(crate) fn new(services: HashMap<String, Service>, streams: impl Streams + 'static) -> Self {
        let (services, streams) = (Arc::new(services), Arc::new(streams));
        Self { services, streams, unsent: Unsent::default(), guests: Guests::default() }
    }

    /// Waits until clients have been sent what they were answered, for a bounded time: a shim that
    /// ends says so first.
    pub(crate) async fn flushed(&self, limit: Duration) {
        // What is done may not be an answer yet: its caller gets some turns to make it one. The Shutdown
        // of one container comes at the same moment as the Delete of another.
        for _ in 0..TURNS {
            yield_now().await;
        }
        let mut unsent = self.unsent.subscribe();
        // Whoever does not read gets no answer.
        let _late = timeout(limit, unsent.wait_for(|count| *count == 0)).await;
    }

    /// Waits until the clients have left, for a bounded time: an answer that has been sent counts for
    /// nothing with a client that finds the connection closed when it comes to read.
    pub(crate) async fn deserted(&self, limit: Duration) {
        let _rude = timeout(limit, self.guests.gone()).await;
    }

    /// Serves one connection, until its client closes it. A socket's halves need no lock between them.
    pub(crate) async fn serve(&self, stream: UnixStream) {
        let (reader, writer) = stream.into_split();
        self.serve_halves(reader, writer).await;
    }

    /// The same, of any kind.
    pub(crate) async fn serve_halves(
        &self,
        reader: impl AsyncRead + Unpin,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) {
        if let Err(err) = connection::serve(reader, writer, self).await {
            log::debug!("a connection broke: {err}");
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.services.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
