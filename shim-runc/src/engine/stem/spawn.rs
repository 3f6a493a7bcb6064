//! Making a stem: our own executable once more, from a file that can't be written.
//!
//! A fork would be as large as the shim, and would show the shim's file as `/proc/PID/exe` to the
//! containers that its children enter.

use std::{
    env,
    ffi::CString,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use shim_core::{
    Context, Kind, Result,
    linux::{Reaper, SealedExecutable, watch},
    model::Pid,
};
use tokio::io::unix::AsyncFd;

use super::serve;
use crate::engine::sys;

/// The command line of a stem: this, and the number of its socket.
const NAME: &str = "shim-stem";

/// Runs as a stem if this process was executed to be one, and then does not return.
pub(crate) fn run_if_asked() {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != NAME) {
        return;
    }
    let number = arguments.next().and_then(|number| number.to_str()?.parse().ok());
    if let Some(Ok(socket)) = number.map(sys::inherited_alone) {
        serve::serve(&socket);
    }
    sys::exit(0);
}

/// What a stem is made from.
#[derive(Debug, Default)]
pub(super) struct Seed {
    /// Our executable, once it has been needed.
    sealed: Option<SealedExecutable>,
}

impl Seed {
    /// Executes a stem, and returns the way to it.
    pub(super) fn grow(&mut self, reaper: &Reaper) -> Result<AsyncFd<OwnedFd>> {
        self.spawn(reaper).map_err(|err| err.context("make the stem").with_kind(Kind::Unavailable))
    }

    fn spawn(&mut self, reaper: &Reaper) -> Result<AsyncFd<OwnedFd>> {
        let program = self.program()?;
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .context("make its socket")?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("prepare its socket")?;
        let ours = watch(ours)?;
        let mut actions = PosixSpawnFileActions::init().context("prepare a process")?;
        let number = theirs.as_raw_fd();
        // A descriptor that is given its own number stays open across exec, posix_spawn(3).
        actions.add_dup2(number, number).context("prepare a process")?;
        let plain = PosixSpawnAttr::init().context("prepare a process")?;
        let line = [NAME.to_owned(), number.to_string()].map(c_string);
        let none: [CString; 0] = [];
        let hold = reaper.hold();
        let pid = posix_spawn(program.as_c_str(), &actions, &plain, &line, &none);
        hold.keep(Pid::new(pid.context("execute ourselves")?.as_raw())?);
        Ok(ours)
    }

    /// The path of our executable's descriptor.
    fn program(&mut self) -> Result<CString> {
        let sealed = match self.sealed.take() {
            Some(sealed) => sealed,
            // The shim stands in its first container's bundle.
            None => SealedExecutable::open(Path::new("."))?,
        };
        let sealed = self.sealed.insert(sealed);
        Ok(c_string(format!("/proc/self/fd/{}", sealed.as_fd().as_raw_fd())))
    }
}

fn c_string(text: String) -> CString {
    CString::new(text).expect("names and numbers have no NUL")
}
