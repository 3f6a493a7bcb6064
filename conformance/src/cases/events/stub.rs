//! Events services that are not as they should be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use shim_protos::forward::ForwardRequest;
use shim_protos::protobuf::{Message, MessageField};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use ttrpc::Code;
use ttrpc::proto::{Request, Response, Status};

use crate::wire::{RESPONSE, head};

/// A service that does not do its work; it ends with the value.
pub(super) struct Stub {
    path: PathBuf,
    accepting: JoinHandle<()>,
    forwarded: Arc<Mutex<Vec<String>>>,
}

/// What a stub does with calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// It takes connections, and never answers.
    Silent,
    /// It refuses the first event, and takes all others.
    RefusesOne,
}

impl Stub {
    /// Listens at that path.
    pub(super) fn listen(path: &Path, temper: Temper) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen at {}", path.display()))?;
        let forwarded: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = Arc::clone(&forwarded);
        let accepting = tokio::spawn(async move {
            let mut is_first = true;
            let mut held = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                match temper {
                    Temper::Silent => held.push(socket),
                    // One connection is all that a shim needs; the next one comes when it ends.
                    Temper::RefusesOne => {
                        let _ = answer(&mut socket, &mut is_first, &told).await;
                    }
                }
            }
        });
        Ok(Self { path: path.to_owned(), accepting, forwarded })
    }

    /// The topics of the events that it took.
    pub(super) fn topics(&self) -> Vec<String> {
        self.forwarded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Frees the path.
    pub(super) async fn close(mut self) {
        self.accepting.abort();
        // It ends as cancelled, which is what is wanted.
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.accepting.abort();
        // Another service may listen there at once, before the task has noticed.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(
    socket: &mut UnixStream,
    is_first: &mut bool,
    told: &Mutex<Vec<String>>,
) -> io::Result<()> {
    loop {
        let mut start = [0; 10];
        socket.read_exact(&mut start).await?;
        let field = |at: usize| {
            u32::from_be_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]])
        };
        let (length, stream) = (field(0), field(4));
        let mut data = vec![0; length as usize];
        socket.read_exact(&mut data).await?;
        let request = Request::parse_from_bytes(&data)?;
        let event =
            ForwardRequest::parse_from_bytes(&request.payload)?.envelope.unwrap_or_default();
        let mut status = Status::default();
        if std::mem::take(is_first) {
            status.set_code(Code::UNAVAILABLE);
            "come back later".clone_into(&mut status.message);
        } else {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(event.topic);
        }
        let response = Response { status: MessageField::some(status), ..Response::default() };
        let bytes = response.write_to_bytes()?;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        socket.write_all(&head(length, stream, RESPONSE)).await?;
        socket.write_all(&bytes).await?;
    }
}
