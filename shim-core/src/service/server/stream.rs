//! Calls that are streams: messages both ways until either side ends them.
//!
//! What a client sends is taken as it is read, so that nothing is lost when its connection ends
//! behind it, and nothing is queued here: who listens has to bound what it keeps. What is sent to a
//! client waits until that reads.

use std::{pin::Pin, sync::Arc};

use tokio::{sync::Semaphore, task::AbortHandle};
use ttrpc::{
    Code, get_status,
    proto::{Request, Status},
};

use super::{connection::Answers, frame};

/// How many messages of a stream may wait for their client to read them.
const MESSAGES_LIMIT: u32 = 2;

/// How many streams a connection may have open. containerd's have one.
pub(super) const STREAMS_LIMIT: usize = 64;

/// Methods that are streams.
pub(crate) trait Streams: Send + Sync {
    /// Whether it has this one.
    fn has(&self, service: &str, method: &str) -> bool;

    /// Begins a stream.
    fn open(&self, sender: Sender) -> (Box<dyn Listener>, Speech);
}

/// Takes what a client says on a stream. Dropped, the client is gone.
pub(crate) trait Listener: Send {
    /// Takes a message.
    ///
    /// # Errors
    /// What ends the stream.
    fn message(&mut self, data: &[u8]) -> Result<(), Status>;

    /// Takes the end of what the client says.
    fn close(&mut self);
}

/// What is said to a client; the stream ends with it.
pub(crate) type Speech = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// Sends messages on a stream.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: u32,
    answers: Answers,
    waiting: Arc<Semaphore>,
}

impl Sender {
    pub(super) fn new(stream: u32, answers: Answers) -> Self {
        let waiting = Arc::new(Semaphore::new(MESSAGES_LIMIT as usize));
        Self { stream, answers, waiting }
    }

    /// Sends a message, once few enough wait for the client to read them.
    pub(crate) async fn message(&self, data: &[u8]) {
        self.send(frame::message(self.stream, data)).await;
    }

    /// Tells the client that this was all, and waits until that is sent.
    pub(crate) async fn end(&self) {
        self.send(frame::end(self.stream)).await;
        let _all = self.waiting.acquire_many(MESSAGES_LIMIT).await;
    }

    async fn send(&self, frame: Vec<u8>) {
        // It is never closed.
        let place = Arc::clone(&self.waiting).acquire_owned().await.ok();
        self.answers.send_holding(frame, place).await;
    }
}

/// A stream under way.
pub(super) struct OpenStream {
    listener: Box<dyn Listener>,
    speech: AbortHandle,
    is_closed: bool,
}

impl OpenStream {
    pub(super) fn new(listener: Box<dyn Listener>, speech: AbortHandle) -> Self {
        Self { listener, speech, is_closed: false }
    }

    /// Takes the message that came with the request, which most streams have none of.
    pub(super) fn begin(&mut self, request: &Request, flags: u8) -> Result<(), Status> {
        if !request.payload.is_empty() {
            self.listener.message(&request.payload)?;
        }
        self.close_if(flags);
        Ok(())
    }

    /// Takes a frame with data.
    pub(super) fn take(&mut self, flags: u8, data: &[u8]) -> Result<(), Status> {
        if self.is_closed {
            return Err(get_status(Code::INVALID_ARGUMENT, "data on a stream that was closed"));
        }
        if flags & frame::EMPTY == 0 {
            self.listener.message(data)?;
        }
        self.close_if(flags);
        Ok(())
    }

    fn close_if(&mut self, flags: u8) {
        if flags & frame::CLOSED != 0 {
            self.is_closed = true;
            self.listener.close();
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.speech.abort();
    }
}
