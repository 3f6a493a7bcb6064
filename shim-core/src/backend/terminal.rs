//! A process's terminal: here, or where the process is.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{
    error::{Context, Result},
    linux::sys,
    model::WindowSize,
};

/// Sets the size of a terminal that is elsewhere. It does not wait: what comes of it is the backend's.
pub type Resize = Box<dyn Fn(WindowSize) -> Result<()> + Send + Sync>;

/// The shim's end of a process's terminal.
pub enum Terminal {
    /// The master of one on this host.
    Local(OwnedFd),
    /// One of another kernel.
    Remote {
        /// A socket with its bytes, both ways. The end of what is read is that of the output. A client
        /// that closes its stdin ends nothing, as with a master: the socket stays open.
        stream: OwnedFd,
        /// Its size goes another way.
        resize: Resize,
    },
}

impl Terminal {
    /// The master, of one on this host.
    pub fn into_master(self) -> Option<OwnedFd> {
        match self {
            Self::Local(master) => Some(master),
            Self::Remote { .. } => None,
        }
    }

    /// Sets the size.
    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        match self {
            Self::Local(master) => {
                sys::set_window_size(master.as_fd(), size).context("resize the terminal")
            }
            Self::Remote { resize, .. } => resize(size).context("resize the terminal"),
        }
    }

    /// A descriptor of its own for one who copies.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }
}

impl From<OwnedFd> for Terminal {
    fn from(master: OwnedFd) -> Self {
        Self::Local(master)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Local(fd) | Self::Remote { stream: fd, .. } => fd.as_fd(),
        }
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Local(_) => "Local",
            Self::Remote { .. } => "Remote",
        };
        f.debug_tuple(name).field(&self.as_fd()).finish()
    }
}
