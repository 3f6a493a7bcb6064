//! The console socket: a runtime sends the terminal's master there.

use std::{
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
};

use anyhow::{Context, Result};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A socket for one master.
pub(super) struct Console(UnixListener);

impl Console {
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path).context("bind the console socket")?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Takes the master, if one came.
    pub(super) fn take(&self) -> Result<Option<OwnedFd>> {
        let Ok((stream, _)) = self.0.accept() else { return Ok(None) };
        // The verb is over: what has not come by now does not come.
        stream.set_nonblocking(true)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 256];
        let room = &mut [IoSliceMut::new(&mut name)];
        if recvmsg(&stream, room, &mut ancillary, RecvFlags::CMSG_CLOEXEC).is_err() {
            return Ok(None);
        }
        let master = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        Ok(master)
    }
}
