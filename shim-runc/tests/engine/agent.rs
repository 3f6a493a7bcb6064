//! A seccomp agent: takes listeners, and answers the calls that come by them; seccomp_unotify(2).

use std::{
    io::IoSliceMut,
    mem,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::mpsc::{self, Receiver},
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use serde_json::Value;

nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(answer, b'!', 1, libc::seccomp_notif_resp);

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// An agent that has each call it hears of fail.
#[derive(Debug)]
pub(crate) struct Agent {
    told: Receiver<Value>,
    thread: JoinHandle<()>,
}

impl Agent {
    /// Listens at a path for this many processes, one after the other, and fails the first call of each
    /// with an error.
    pub(crate) fn listen(path: &Path, processes: usize, errno: i32) -> Self {
        let socket = UnixListener::bind(path).unwrap();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            for _ in 0..processes {
                wait(&socket);
                let (state, listener) = hear(&socket.accept().unwrap().0);
                tell.send(state).unwrap();
                fail_one(&listener, errno);
            }
        });
        Self { told, thread }
    }

    /// What it was told of the next process.
    pub(crate) fn told(&self) -> Value {
        self.told.recv_timeout(LIMIT).unwrap()
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        self.thread.join().unwrap();
    }
}

fn wait(file: impl AsFd) {
    let mut poll_file = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut poll_file, u16::try_from(LIMIT.as_millis()).unwrap()).unwrap();
    assert_eq!(ready, 1, "nothing within {LIMIT:?}");
}

/// Hears a state to its end, and the descriptor that came with it.
fn hear(stream: &UnixStream) -> (Value, OwnedFd) {
    let (mut text, mut listener) = (Vec::new(), None);
    loop {
        wait(stream);
        let mut bytes = [0; 4096];
        let mut room = nix::cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut room), flags).unwrap();
        for message in got.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(files) = message else { continue };
            // SAFETY: the kernel has just made it for us.
            listener = files.first().map(|file| unsafe { OwnedFd::from_raw_fd(*file) });
        }
        let length = got.bytes;
        text.extend_from_slice(&bytes[..length]);
        if length == 0 {
            return (serde_json::from_slice(&text).unwrap(), listener.unwrap());
        }
    }
}

fn fail_one(listener: &OwnedFd, errno: i32) {
    wait(listener);
    // SAFETY: all zeros is what the kernel asks for.
    let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills the structure, which lives for the length of the call.
    unsafe { receive(listener.as_raw_fd(), &raw mut call) }.unwrap();
    let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the kernel reads the structure, which lives for the length of the call.
    unsafe { answer(listener.as_raw_fd(), &raw mut response) }.unwrap();
}
