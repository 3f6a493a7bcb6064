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
use ttrpc::proto::{KeyValue, Request};

use crate::{model::ContainerId, service};

/// How long a shim may take to answer. One that is slower lives, and is busy or stopped.
const LIMIT: Duration = Duration::from_secs(1);

/// What there is at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A shim that answers.
    Answer,
    /// Somebody who takes connections and says nothing.
    Silence,
    /// A process on its way out: it lets the connection go.
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

/// Whatever comes back is an answer: shims of other makers and other times are asked too.
fn talk(mut stream: UnixStream, request: &Request) -> io::Result<Heard> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&service::request_frame(request))?;
    match stream.read(&mut [0])? {
        0 => Ok(Heard::Dropped),
        _ => Ok(Heard::Answer),
    }
}
