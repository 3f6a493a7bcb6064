//! Where the master of a terminal goes.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use shim_core::{Context, Error, Result};

use crate::engine::send;

/// What becomes of the terminal of a process, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// The caller stays, and gets the master.
    Kept,
    /// The master is sent to a unix socket, as runc does.
    Socket(PathBuf),
    /// There is nobody to take it: a process may have none.
    None,
}

/// The same, ready to be used.
#[derive(Debug)]
pub(super) enum Ready {
    Kept,
    Socket(UnixStream),
    None,
}

impl Console {
    /// Gets ready, before anything is made.
    ///
    /// # Errors
    /// `InvalidArgument` for a terminal without anybody to take it, or the reverse.
    pub(super) fn prepare(&self, has_terminal: bool) -> Result<Ready> {
        match (self, has_terminal) {
            (Self::None, true) => Err(Error::invalid(
                "a process that is left alone can have a terminal only with a console socket",
            )),
            (Self::Socket(_), false) => {
                Err(Error::invalid("a console socket is given, but the process has no terminal"))
            }
            (Self::Socket(path), true) => connect(path).map(Ready::Socket),
            (Self::Kept, true) => Ok(Ready::Kept),
            (Self::Kept | Self::None, false) => Ok(Ready::None),
        }
    }
}

impl Ready {
    /// Hands the master over; what comes back is for the caller.
    ///
    /// # Errors
    /// When nobody takes it.
    pub(super) fn hand_over(&self, master: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
        let Some(master) = master else { return Ok(None) };
        // Whoever copies expects a file as open(2) gives it.
        fcntl(&master, FcntlArg::F_SETFL(OFlag::empty())).context("prepare the terminal")?;
        match self {
            Self::Socket(socket) => {
                // runc's message: one text, one file.
                send(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])
                    .context("send the terminal to the console socket")?;
                Ok(None)
            }
            Self::Kept | Self::None => Ok(Some(master)),
        }
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).with_context(|| format!("connect to {}", path.display()))
}
