//! Streams that clients open at the shim's socket, joined with processes by their ids.
//!
//! ```text
//! client ─ Data ─▶ Caller ─▶ inbox ─▶ Line ─▶ copier ─▶ process
//! client ◀─ Data ─ Words ◀── words ◀── Line ◀─ copier ◀─ process
//! ```
//! Either side may come first, and a client may come back: CRI opens the streams of a container
//! before it creates it, and again when containerd was restarted. So an id that no process has named
//! is no mistake. Of two clients with one id the later one has the stream: the earlier is, as a rule,
//! of a containerd that is gone.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::watch;

use super::line::{Inbox, Line, Presence, Words};
use crate::{
    error::{Error, Kind, Result},
    model::SocketStream,
};

/// How many streams may wait for their processes.
const WAITING_LIMIT: usize = 1024;

/// The longest id: container's and stream's names fit in.
const LONGEST_ID: usize = 256;

/// All streams of a shim. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Where clients find it.
    socket: Option<PathBuf>,
    places: Mutex<HashMap<Box<str>, Place>>,
}

/// What is known of an id.
#[derive(Debug)]
enum Place {
    /// A client has opened it.
    Waiting(Line),
    /// A process has named it; the client may not be there yet, or be gone.
    Named(Arc<watch::Sender<Option<Line>>>),
}

/// A stream that a process has named. Dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Port {
    exchange: Exchange,
    id: Box<str>,
    line: Arc<watch::Sender<Option<Line>>>,
}

/// The side on which a client is heard. Dropped, the client is gone.
#[derive(Debug)]
pub(crate) struct Caller {
    exchange: Exchange,
    id: Box<str>,
    inbox: Inbox,
}

impl Exchange {
    /// Streams that clients open at this socket.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self(Arc::new(Shared { socket: Some(socket), places: Mutex::default() }))
    }

    /// Takes a client that opens a stream.
    ///
    /// # Errors
    /// `InvalidArgument` for an id that makes no sense, `ResourceExhausted` when too many wait.
    pub(crate) fn open(&self, id: &str) -> Result<(Caller, Words)> {
        if id.is_empty() || id.len() > LONGEST_ID {
            return Err(Error::invalid(format!("a stream's id has 1 to {LONGEST_ID} bytes")));
        }
        let (line, inbox, words) = Line::new();
        let mut places = self.places();
        let waiting = places.values().filter(|place| matches!(place, Place::Waiting(_))).count();
        match places.entry(id.into()) {
            Entry::Vacant(_) if waiting >= WAITING_LIMIT => {
                let why = format!("{WAITING_LIMIT} streams wait for a process to name them");
                return Err(Error::new(Kind::ResourceExhausted, why));
            }
            Entry::Vacant(place) => {
                place.insert(Place::Waiting(line));
            }
            Entry::Occupied(mut place) => match place.get_mut() {
                Place::Waiting(earlier) => std::mem::replace(earlier, line).replaced(),
                Place::Named(port) => {
                    if let Some(earlier) = port.send_replace(Some(line)) {
                        earlier.replaced();
                    }
                }
            },
        }
        drop(places);
        Ok((Caller { exchange: self.clone(), id: id.into(), inbox }, words))
    }

    /// Takes a process that names a stream.
    ///
    /// # Errors
    /// `InvalidArgument` when the stream is somebody else's, `AlreadyExists` when it is another
    /// process's.
    pub(super) fn name(&self, stream: &SocketStream) -> Result<Port> {
        if self.0.socket.as_deref() != Some(&*stream.socket) {
            let own = self.0.socket.as_deref().unwrap_or(Path::new("none"));
            let (asked, own) = (stream.socket.display(), own.display());
            return Err(Error::invalid(format!(
                "a stream at {asked} is not this shim's, whose socket is {own}"
            )));
        }
        let mut places = self.places();
        let line = match places.remove(&stream.id) {
            None => None,
            Some(Place::Waiting(line)) => Some(line),
            Some(taken @ Place::Named(_)) => {
                places.insert(stream.id.clone(), taken);
                let why = format!("stream {:?} is another process's", stream.id);
                return Err(Error::new(Kind::AlreadyExists, why));
            }
        };
        let line = Arc::new(watch::Sender::new(line));
        places.insert(stream.id.clone(), Place::Named(Arc::clone(&line)));
        drop(places);
        Ok(Port { exchange: self.clone(), id: stream.id.clone(), line })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Box<str>, Place>> {
        self.0.places.lock().expect("nobody panics with it locked")
    }
}

impl Port {
    /// Waits for a client.
    pub(super) async fn line(&self) -> Line {
        let mut lines = self.line.subscribe();
        let present = lines.wait_for(|line| line.as_ref().is_some_and(Line::has_client)).await;
        let present = present.expect("the sender is our own").clone();
        present.expect("was waited for")
    }

    /// Is done with a client: it is let go, if no other has come.
    pub(super) fn hang_up(&self, line: &Line) {
        self.line.send_if_modified(|now| now.take_if(|now| now.is(line)).is_some());
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.exchange.places().remove(&self.id);
    }
}

impl Caller {
    /// Takes bytes for the process.
    ///
    /// # Errors
    /// `ResourceExhausted` for more than there was room for.
    pub(crate) fn data(&self, bytes: &[u8]) -> Result<()> {
        if self.inbox.put(bytes) {
            return Ok(());
        }
        let why = format!("{} bytes for stream {:?}, which has no room", bytes.len(), self.id);
        Err(Error::new(Kind::ResourceExhausted, why))
    }

    /// Takes what the client has room for.
    pub(crate) fn room(&self, bytes: usize) {
        self.inbox.widen(bytes);
    }

    /// Takes the end of what the client says.
    pub(crate) fn close(&self) {
        self.inbox.leave(Presence::Closed);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.inbox.leave(Presence::Gone);
        let mut places = self.exchange.places();
        if let Some(Place::Waiting(line)) = places.get(&self.id)
            && line.is_of(&self.inbox)
        {
            places.remove(&self.id);
        }
    }
}
