//! Making a stem: our own executable once more, from a file that can't be written.
//!
//! A fork would be as large as the shim, and would show the shim's file as `/proc/PID/exe` to the
//! containers that its children enter.

use std::{
    env,
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use shim_core::{
    Context, Kind, Result,
    linux::{Reaper, SealedExecutable, given_files, watch},
    model::Pid,
};
use tokio::io::unix::AsyncFd;

use super::serve;
use crate::engine::sys;

/// The command line of a stem: this, the number of its socket, and how many files behind the standard
/// streams it keeps for its children.
const NAME: &CStr = c"shim-stem";

/// Runs as a stem if this process was executed to be one, and then does not return.
pub(crate) fn run_if_asked() {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name.as_encoded_bytes() != NAME.to_bytes()) {
        return;
    }
    let number = arguments.next().and_then(|number| number.to_str()?.parse().ok());
    let kept = arguments.next().and_then(|kept| kept.to_str()?.parse().ok());
    if let Some((number, kept)) = number.zip(kept)
        && let Ok(socket) = sys::inherited(number, kept)
    {
        serve::serve(&socket);
    }
    sys::exit(0);
}

/// What a stem is made from.
#[derive(Debug)]
pub(crate) struct Seed {
    /// Our executable, once it has been needed.
    sealed: Option<SealedExecutable>,
    /// A directory that our executable is not in.
    apart: PathBuf,
    /// How many files behind the standard streams a stem keeps.
    kept: u32,
}

impl Seed {
    /// A seed for stems whose children keep that many files behind the standard streams, all of which
    /// were open when this process began. `apart` is for [`SealedExecutable::open`].
    pub(crate) fn new(apart: impl Into<PathBuf>, kept: u32) -> Self {
        Self { sealed: None, apart: apart.into(), kept }
    }

    /// Executes a stem, and returns the way to it.
    pub(super) fn grow(&mut self, reaper: &Reaper) -> Result<AsyncFd<OwnedFd>> {
        self.spawn(reaper).map_err(|err| err.context("make the stem").with_kind(Kind::Unavailable))
    }

    fn spawn(&mut self, reaper: &Reaper) -> Result<AsyncFd<OwnedFd>> {
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .context("make its socket")?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("prepare its socket")?;
        let ours = watch(ours)?;
        let text = |number: String| CString::new(number).expect("a number has no NUL");
        let (number, kept) = (text(theirs.as_raw_fd().to_string()), text(self.kept.to_string()));
        let hold = reaper.hold();
        let pid = sys::spawn(self.program()?.as_fd(), [NAME, &number, &kept], theirs.as_fd());
        let pid = pid.context("execute ourselves")?;
        hold.keep(Pid::new(pid)?);
        if let Some((soft, hard)) = given_files() {
            // Before it is asked for anything: what it makes gets what the shim was given. Set here
            // and not around the spawn, which may need descriptors of its own.
            sys::set_limit(pid, libc::RLIMIT_NOFILE, soft, hard).context("limit its files")?;
        }
        Ok(ours)
    }

    /// Our executable.
    fn program(&mut self) -> Result<&SealedExecutable> {
        let sealed = match self.sealed.take() {
            Some(sealed) => sealed,
            None => SealedExecutable::open(&self.apart)?,
        };
        Ok(self.sealed.insert(sealed))
    }
}
