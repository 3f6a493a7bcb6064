//! A client's stream from one end to the other: what each side has said, and who is still there.
//!
//! Who sends bytes sends no more than it was given room for: a stream costs the shim a window.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::error::{Error, Kind, Result};

/// What a client may send ahead of the process, as containerd's own receivers have it.
const WINDOW: usize = 64 * 1024;

/// What a process says to a client.
#[derive(Debug)]
pub(crate) enum Word {
    Data(Vec<u8>),
    /// The client may send this much more.
    Room(usize),
    /// There is no more.
    End,
}

/// What a client has said and nobody has taken yet. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbox(Arc<watch::Sender<Said>>);

#[derive(Debug, Default)]
struct Said {
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
pub(super) enum Presence {
    #[default]
    Open,
    /// It has said that it sends no more.
    Closed,
    /// Its connection has ended.
    Gone,
    /// Another one has its place.
    Replaced,
}

/// A client as its process sees it. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Line {
    words: mpsc::Sender<Word>,
    inbox: Inbox,
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

/// The side on which a client is spoken to.
#[derive(Debug)]
pub(crate) struct Words {
    words: mpsc::Receiver<Word>,
    inbox: Inbox,
}

impl Line {
    /// A client's stream, with the side on which it is heard and the one on which it is spoken to.
    pub(super) fn new() -> (Self, Inbox, Words) {
        let (words, listening) = mpsc::channel(1);
        let inbox = Inbox::default();
        let line = Self { words, inbox: inbox.clone() };
        (line, inbox.clone(), Words { words: listening, inbox })
    }

    /// Whether it is the same client's.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.is_of(&other.inbox)
    }

    /// Whether what its client says goes there.
    pub(super) fn is_of(&self, inbox: &Inbox) -> bool {
        Arc::ptr_eq(&self.inbox.0, &inbox.0)
    }

    /// Sends; false when the client is gone.
    pub(super) async fn say(&self, word: Word) -> bool {
        self.words.send(word).await.is_ok()
    }

    /// Waits until the client takes bytes, and tells how many; none when it is not there any more.
    pub(super) async fn room(&self) -> Option<usize> {
        let mut inbox = self.inbox.0.subscribe();
        let ready = inbox.wait_for(|now| now.room > 0 || now.presence != Presence::Open).await;
        let ready = ready.expect("the sender is our own");
        (ready.presence == Presence::Open).then_some(ready.room)
    }

    /// Takes room that is about to be filled.
    pub(super) fn fill(&self, bytes: usize) {
        self.inbox.0.send_if_modified(|now| {
            now.room = now.room.saturating_sub(bytes);
            false
        });
    }

    /// Waits until the client closes its side or is gone.
    pub(super) async fn left(&self) {
        let mut inbox = self.inbox.0.subscribe();
        let _ours = inbox.wait_for(|now| now.presence != Presence::Open).await;
    }

    /// Gives the client room again, once half a window has been used.
    pub(super) async fn widen(&self) {
        let bytes = self.inbox.grant();
        if bytes > 0 {
            // Who is gone is heard of when there is nothing left of what it said.
            self.say(Word::Room(bytes)).await;
        }
    }

    /// Waits for what the client says.
    pub(super) async fn hear(&self) -> Heard {
        let mut inbox = self.inbox.0.subscribe();
        let is_news = |now: &Said| !now.data.is_empty() || now.presence != Presence::Open;
        let presence = inbox.wait_for(is_news).await.expect("the sender is our own").presence;
        let data = self.inbox.take();
        match presence {
            _ if !data.is_empty() => Heard::Data(data),
            Presence::Closed => Heard::Closed,
            Presence::Open | Presence::Gone | Presence::Replaced => Heard::Gone,
        }
    }

    /// Whether there is somebody to talk to, or something left of what was said.
    pub(super) fn has_client(&self) -> bool {
        let now = self.inbox.0.borrow();
        !now.data.is_empty() || matches!(now.presence, Presence::Open | Presence::Closed)
    }

    /// Tells that another client has its place.
    pub(super) fn replaced(self) {
        self.inbox.leave(Presence::Replaced);
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
        let mut inbox = self.inbox.0.subscribe();
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
            drop(self.inbox.take());
            match self.inbox.grant() {
                0 => drop(inbox.changed().await),
                bytes => return Ok(Some(Word::Room(bytes))),
            }
        }
    }

    /// Waits until the client closes its side.
    pub(crate) async fn left(&self) {
        let mut inbox = self.inbox.0.subscribe();
        let _ours = inbox.wait_for(|now| now.presence != Presence::Open).await;
    }
}

impl Inbox {
    /// Takes bytes of the client's; false when there is no room for them.
    pub(super) fn put(&self, bytes: &[u8]) -> bool {
        let mut has_room = false;
        self.0.send_if_modified(|now| {
            has_room = bytes.len() <= now.granted;
            if has_room {
                now.granted -= bytes.len();
                now.data.extend_from_slice(bytes);
            }
            has_room
        });
        has_room
    }

    /// Notes that the client takes that much more.
    pub(super) fn widen(&self, bytes: usize) {
        self.0.send_modify(|now| now.room = now.room.saturating_add(bytes));
    }

    /// Notes that the client has left. Who was replaced stays so, and what was closed stays closed.
    pub(super) fn leave(&self, how: Presence) {
        self.0.send_if_modified(|now| {
            let leaves = match now.presence {
                Presence::Open => true,
                Presence::Closed => how == Presence::Replaced,
                Presence::Gone | Presence::Replaced => false,
            };
            if leaves {
                now.presence = how;
            }
            leaves
        });
    }

    /// What the client has sent, taken out.
    fn take(&self) -> Vec<u8> {
        let mut data = Vec::new();
        self.0.send_if_modified(|now| {
            data = std::mem::take(&mut now.data);
            false
        });
        data
    }

    /// Grants what is missing of the window, if it is much, and returns it.
    fn grant(&self) -> usize {
        let mut missing = 0;
        self.0.send_if_modified(|now| {
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
}
