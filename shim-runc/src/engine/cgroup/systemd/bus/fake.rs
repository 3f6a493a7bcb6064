//! A peer that says what a test wants, over a real socket.

use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

use super::{
    Address, Peer,
    message::{HEAD, length_of, message},
    value::{Reader, Value},
};

/// What the peer does after a call.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Return(Vec<Value>),
    /// The name of an error, and its text.
    Refuse(&'static str, &'static str),
    /// That a job has ended, and how.
    Ended(&'static str, &'static str),
    Bytes(&'static [u8]),
    HangUp,
}

/// A call that has come in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Called {
    pub(crate) destination: Option<String>,
    pub(crate) member: String,
    pub(crate) body: Vec<Value>,
}

/// The peer. It listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Fake {
    directory: TempDir,
    calls: Arc<Mutex<Vec<Called>>>,
}

impl Fake {
    /// A peer that answers by the name of the method and the number of calls of it before.
    pub(crate) fn new(answer: impl Fn(&str, usize) -> Vec<Say> + Send + Sync + 'static) -> Self {
        Self::greeting("DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n", answer)
    }

    /// The same, which answers something else to who authenticates.
    pub(crate) fn greeting(
        greeting: &'static str,
        answer: impl Fn(&str, usize) -> Vec<Say> + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let calls = Arc::<Mutex<Vec<Called>>>::default();
        let noted = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(&stream, greeting, &answer, &noted).await;
            }
        });
        Self { directory, calls }
    }

    pub(crate) fn address(&self, peer: Peer) -> Address {
        Address { path: self.directory.path().join("socket"), peer }
    }

    pub(crate) fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap().clone()
    }

    /// The names of the methods that were called.
    pub(crate) fn called(&self) -> String {
        let calls = self.calls();
        calls.iter().map(|call| call.member.as_str()).collect::<Vec<_>>().join(" ")
    }
}

async fn serve(
    stream: &UnixStream,
    greeting: &str,
    answer: &impl Fn(&str, usize) -> Vec<Say>,
    noted: &Mutex<Vec<Called>>,
) {
    let mut unread = Vec::new();
    let begins = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
    if !fill(stream, &mut unread, begins.len()).await {
        return;
    }
    assert_eq!(&unread.drain(..begins.len()).collect::<Vec<_>>(), begins);
    send(stream, greeting.as_bytes()).await;
    while fill(stream, &mut unread, HEAD).await {
        let length = length_of(unread.first_chunk().unwrap()).unwrap();
        if !fill(stream, &mut unread, length).await {
            return;
        }
        let message: Vec<_> = unread.drain(..length).collect();
        let (serial, called) = understand(&message);
        let before = noted.lock().unwrap().iter().filter(|one| one.member == called.member).count();
        let says = answer(&called.member, before);
        noted.lock().unwrap().push(called);
        for say in says {
            if !do_say(stream, serial, say).await {
                return;
            }
        }
    }
}

fn understand(bytes: &[u8]) -> (u32, Called) {
    let mut reader = Reader::new(bytes, 0);
    let head = reader.read("yyyyuua(yv)").unwrap();
    let (Value::Uint32(serial), Value::Array(_, fields)) = (&head[5], &head[6]) else {
        panic!("{head:?}")
    };
    let field = |code: u8| {
        fields.iter().find_map(|field| match field {
            Value::Tuple(pair) if pair[0] == Value::Byte(code) => pair[1].as_text(),
            _ => None,
        })
    };
    let at = reader.at().next_multiple_of(8);
    let called = Called {
        destination: field(6).map(str::to_owned),
        member: field(3).unwrap().to_owned(),
        body: Reader::new(bytes, at).read(field(8).unwrap_or_default()).unwrap(),
    };
    (*serial, called)
}

/// Whether the conversation goes on.
async fn do_say(stream: &UnixStream, serial: u32, say: Say) -> bool {
    let text = |text: &str| Value::Text(text.to_owned());
    let to = (5, Value::Uint32(serial));
    let bytes = match say {
        Say::Return(body) => message(2, 1, vec![to], &body),
        Say::Refuse(name, why) => message(3, 1, vec![to, (4, text(name))], &[text(why)]),
        Say::Ended(job, result) => {
            let body =
                [Value::Uint32(1), Value::Path(job.to_owned()), text("x.scope"), text(result)];
            message(4, 1, vec![(3, text("JobRemoved"))], &body)
        }
        Say::Bytes(bytes) => bytes.to_vec(),
        Say::HangUp => return false,
    };
    send(stream, &bytes).await
}

async fn fill(stream: &UnixStream, unread: &mut Vec<u8>, count: usize) -> bool {
    while unread.len() < count {
        let mut chunk = [0; 512];
        stream.readable().await.unwrap();
        match stream.try_read(&mut chunk) {
            Ok(0) => return false,
            Ok(count) => unread.extend(&chunk[..count]),
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}

async fn send(stream: &UnixStream, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        stream.writable().await.unwrap();
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}
