//! One call to whoever listens at a shim's socket: `start` and `delete` find out whether a shim
//! lives, and tell it what they are about.
//!
//! That a connection is taken says nothing: the kernel takes it for a process that is dying, and
//! for one that has not begun to serve.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use shim_protos::{
    protobuf::Message,
    task::{ConnectRequest, ShutdownRequest},
};
use ttrpc::{
    Code,
    proto::{KeyValue, Request, Response},
};

use crate::{model::ContainerId, service};

/// How long a shim may take to answer. One that is slower lives, and is busy or stopped.
const LIMIT: Duration = Duration::from_secs(1);

/// Longer than any answer to what is asked here.
const LONGEST: u32 = 64 << 10;

/// What there is at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A shim that answers.
    Answer,
    /// Somebody who takes connections and says nothing.
    Silence,
    /// A process on its way out: it lets the connection go, or says so.
    Dropped,
    /// Nobody.
    Nothing,
}

/// Tells the group's shim that containerd is about to create a container in it.
pub(super) fn announce(path: &Path, id: &ContainerId) -> Heard {
    let request = ConnectRequest { id: id.to_string(), ..Default::default() };
    let mark = KeyValue {
        key: service::ANNOUNCES.to_owned(),
        value: id.to_string(),
        ..Default::default()
    };
    ask(path, "Connect", &request, vec![mark])
}

/// Tells the group's shim that a container is gone for good: without another it ends.
pub(super) fn release(path: &Path, id: &ContainerId) -> Heard {
    let request = ShutdownRequest { id: id.to_string(), ..Default::default() };
    ask(path, "Shutdown", &request, Vec::new())
}

fn ask(path: &Path, method: &str, payload: &impl Message, metadata: Vec<KeyValue>) -> Heard {
    let Ok(payload) = payload.write_to_bytes() else { return Heard::Silence };
    let request = Request {
        service: service::V2.to_owned(),
        method: method.to_owned(),
        payload,
        metadata,
        ..Default::default()
    };
    let stream = match open(path) {
        Ok(stream) => UnixStream::from(stream),
        // Its queue is full: somebody has it, and does not take from it.
        Err(Errno::EAGAIN) => return Heard::Silence,
        Err(_) => return Heard::Nothing,
    };
    talk(stream, &request).unwrap_or_else(|err| match err.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Heard::Silence,
        _ => Heard::Dropped,
    })
}

/// Connects without waiting for room in the listener's queue.
fn open(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream)
}

/// Whatever comes back is an answer, for shims of other makers and other times are asked too; but for
/// one that tells that the shim ends.
fn talk(mut stream: UnixStream, request: &Request) -> io::Result<Heard> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&service::request_frame(request))?;
    let mut head = [0; service::HEAD];
    stream.read_exact(&mut head)?;
    let [l0, l1, l2, l3, ..] = head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if length > LONGEST {
        return Ok(Heard::Answer);
    }
    let mut answer = Vec::new();
    stream.take(length.into()).read_to_end(&mut answer)?;
    Ok(if is_unavailable(&answer) { Heard::Dropped } else { Heard::Answer })
}

fn is_unavailable(answer: &[u8]) -> bool {
    let answer = Response::parse_from_bytes(answer).unwrap_or_default();
    answer.status().code() == Code::UNAVAILABLE
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// What is heard from somebody who says this, whatever he is asked.
    fn hear(code: Option<Code>) -> Heard {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; service::HEAD]).unwrap();
            let Some(code) = code else { return };
            let mut response = Response::new();
            response.set_status(ttrpc::get_status(code, "why"));
            let data = response.write_to_bytes().unwrap();
            let length = u32::try_from(data.len()).unwrap().to_be_bytes();
            stream.write_all(&length).unwrap();
            stream.write_all(&[0, 0, 0, 1, 2, 0]).unwrap();
            stream.write_all(&data).unwrap();
        });
        let heard = announce(&path, &ContainerId::parse("c1").unwrap());
        answering.join().unwrap();
        heard
    }

    #[test]
    fn who_says_that_it_ends_is_as_good_as_gone() {
        assert_eq!(hear(Some(Code::UNAVAILABLE)), Heard::Dropped);
        assert_eq!(hear(Some(Code::OK)), Heard::Answer);
        assert_eq!(hear(Some(Code::NOT_FOUND)), Heard::Answer);
        assert_eq!(hear(None), Heard::Dropped);
        let nowhere = ContainerId::parse("c1").unwrap();
        assert_eq!(announce(Path::new("/nowhere"), &nowhere), Heard::Nothing);
    }
}
