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
//!
//! Who sends bytes sends no more than it was given room for: a stream costs the shim a window.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{mpsc, watch};

use crate::{
    error::{Error, Kind, Result},
    model::SocketStream,
};

/// What a client may send ahead of the process, as containerd's own receivers have it.
const WINDOW: usize = 64 * 1024;

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

/// What a process says to a client.
#[derive(Debug)]
pub(crate) enum Word {
    Data(Vec<u8>),
    /// The client may send this much more.
    Room(usize),
    /// There is no more.
    End,
}

/// What a client has said, and what became of it.
#[derive(Debug, Default)]
struct Inbox {
    /// At most a window.
    data: Vec<u8>,
    /// What the client may still send.
    granted: usize,
    /// What the client takes.
    room: usize,
    presence: Presence,
    is_input: bool,
}

/// Whether somebody is at the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Presence {
    #[default]
    Open,
    /// It has said that it sends no more.
    Closed,
    /// Its connection has ended.
    Gone,
    /// Another one has its place.
    Replaced,
}

type SharedInbox = Arc<watch::Sender<Inbox>>;

/// A client as its process sees it. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Line {
    words: mpsc::Sender<Word>,
    inbox: SharedInbox,
}

/// What a process gets from its client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Data(Vec<u8>),
    /// The client has closed its side: an input ends.
    Closed,
    /// It is gone, and may come back.
    Gone,
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
    inbox: SharedInbox,
}

/// The side on which a client is spoken to.
#[derive(Debug)]
pub(crate) struct Words {
    words: mpsc::Receiver<Word>,
    inbox: SharedInbox,
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
        let (words, listening) = mpsc::channel(1);
        let inbox = SharedInbox::default();
        let line = Line { words, inbox: Arc::clone(&inbox) };
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
        let caller = Caller { exchange: self.clone(), id: id.into(), inbox: Arc::clone(&inbox) };
        Ok((caller, Words { words: listening, inbox }))
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
        self.line.send_if_modified(|now| {
            now.take_if(|now| Arc::ptr_eq(&now.inbox, &line.inbox)).is_some()
        });
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.exchange.places().remove(&self.id);
    }
}

impl Line {
    /// Sends; false when the client is gone.
    pub(super) async fn say(&self, word: Word) -> bool {
        self.words.send(word).await.is_ok()
    }

    /// Waits until the client takes bytes, and tells how many; none when it is not there any more.
    pub(super) async fn room(&self) -> Option<usize> {
        let mut inbox = self.inbox.subscribe();
        let ready = inbox.wait_for(|now| now.room > 0 || now.presence != Presence::Open).await;
        let ready = ready.expect("the sender is our own");
        (ready.presence == Presence::Open).then_some(ready.room)
    }

    /// Takes room that is about to be filled.
    pub(super) fn fill(&self, bytes: usize) {
        self.inbox.send_if_modified(|now| {
            now.room = now.room.saturating_sub(bytes);
            false
        });
    }

    /// Waits until the client closes its side or is gone.
    pub(super) async fn left(&self) {
        let mut inbox = self.inbox.subscribe();
        let _ours = inbox.wait_for(|now| now.presence != Presence::Open).await;
    }

    /// Gives the client room again, once half a window has been used.
    pub(super) async fn widen(&self) {
        let bytes = widened(&self.inbox);
        if bytes > 0 {
            // Who is gone is heard of when there is nothing left of what it said.
            self.say(Word::Room(bytes)).await;
        }
    }

    /// Waits for what the client says.
    pub(super) async fn hear(&self) -> Heard {
        let mut inbox = self.inbox.subscribe();
        let is_news = |now: &Inbox| !now.data.is_empty() || now.presence != Presence::Open;
        let presence = inbox.wait_for(is_news).await.expect("the sender is our own").presence;
        let data = taken(&self.inbox);
        match presence {
            _ if !data.is_empty() => Heard::Data(data),
            Presence::Closed => Heard::Closed,
            Presence::Open | Presence::Gone | Presence::Replaced => Heard::Gone,
        }
    }

    /// Whether there is somebody to talk to, or something left of what was said.
    fn has_client(&self) -> bool {
        let now = self.inbox.borrow();
        !now.data.is_empty() || matches!(now.presence, Presence::Open | Presence::Closed)
    }

    fn replaced(self) {
        leave(&self.inbox, Presence::Replaced);
    }
}

impl Caller {
    /// Takes bytes for the process.
    ///
    /// # Errors
    /// `ResourceExhausted` for more than there was room for.
    pub(crate) fn data(&self, bytes: &[u8]) -> Result<()> {
        let mut has_room = false;
        self.inbox.send_if_modified(|now| {
            has_room = bytes.len() <= now.granted;
            if has_room {
                now.granted -= bytes.len();
                now.data.extend_from_slice(bytes);
            }
            has_room
        });
        if has_room {
            return Ok(());
        }
        let why = format!("{} bytes for stream {:?}, which has no room", bytes.len(), self.id);
        Err(Error::new(Kind::ResourceExhausted, why))
    }

    /// Takes what the client has room for.
    pub(crate) fn room(&self, bytes: usize) {
        self.inbox.send_modify(|now| now.room = now.room.saturating_add(bytes));
    }

    /// Takes the end of what the client says.
    pub(crate) fn close(&self) {
        leave(&self.inbox, Presence::Closed);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        leave(&self.inbox, Presence::Gone);
        let mut places = self.exchange.places();
        if let Some(Place::Waiting(line)) = places.get(&self.id)
            && Arc::ptr_eq(&line.inbox, &self.inbox)
        {
            places.remove(&self.id);
        }
    }
}

impl Words {
    /// What the client is to be told next; none when all is said.
    ///
    /// Input that no process takes any more is taken here and dropped, until the client closes: a
    /// client that waited for room would wait for ever.
    ///
    /// # Errors
    /// `AlreadyExists` when another client has the stream now.
    pub(crate) async fn next(&mut self) -> Result<Option<Word>> {
        if let Some(word) = self.words.recv().await {
            return Ok(Some(word));
        }
        let mut inbox = self.inbox.subscribe();
        loop {
            let (presence, is_input) = {
                let now = inbox.borrow_and_update();
                (now.presence, now.is_input)
            };
            match presence {
                Presence::Replaced => {
                    let why = "another client has opened the stream";
                    return Err(Error::new(Kind::AlreadyExists, why));
                }
                Presence::Open if is_input => {}
                _ => return Ok(None),
            }
            drop(taken(&self.inbox));
            match widened(&self.inbox) {
                0 => drop(inbox.changed().await),
                bytes => return Ok(Some(Word::Room(bytes))),
            }
        }
    }

    /// Waits until the client closes its side.
    pub(crate) async fn left(&self) {
        let mut inbox = self.inbox.subscribe();
        let _ours = inbox.wait_for(|now| now.presence != Presence::Open).await;
    }
}

/// What the client has sent, taken out.
fn taken(inbox: &watch::Sender<Inbox>) -> Vec<u8> {
    let mut data = Vec::new();
    inbox.send_if_modified(|now| {
        data = std::mem::take(&mut now.data);
        false
    });
    data
}

/// Grants what is missing of the window, if it is much, and returns it.
fn widened(inbox: &watch::Sender<Inbox>) -> usize {
    let mut missing = 0;
    inbox.send_if_modified(|now| {
        now.is_input = true;
        missing = WINDOW - now.granted - now.data.len();
        if missing < WINDOW / 2 {
            missing = 0;
        }
        now.granted += missing;
        false
    });
    missing
}

/// Notes that a client has left. Who was replaced stays so, and who is gone closes nothing.
fn leave(inbox: &watch::Sender<Inbox>, how: Presence) {
    inbox.send_if_modified(|now| {
        let leaves = match now.presence {
            Presence::Open => true,
            // What it has closed is closed, connected or not.
            Presence::Closed => how == Presence::Replaced,
            Presence::Gone | Presence::Replaced => false,
        };
        if leaves {
            now.presence = how;
        }
        leaves
    });
}
