//! Making a stem: our own executable once more, from a file that can't be written.
//!
//! A fork would be as large as the shim, and would show the shim's file as `/proc/PID/exe` to the
//! containers that its children enter.

use std::{
    env,
    ffi::{CStr, CString},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use shim_core::{
    Context, Kind, Result,
    linux::{Reaper, given_files, sealed_executable, watch},
    model::Pid,
};
use tokio::io::unix::AsyncFd;

use super::serve;
use crate::engine::sys;

/// The command line of a stem.
const NAME: &CStr = c"shim-stem";
/// The number of its socket.
const SOCKET: RawFd = 3;
/// Numbers from here on are not given to the stem's own files.
const ASIDE: RawFd = 10;

/// Runs as a stem if this process was executed to be one, and then does not return.
pub(crate) fn run_if_asked() {
    let mut arguments = env::args_os();
    let is_stem = arguments.next().is_some_and(|name| name.as_encoded_bytes() == NAME.to_bytes());
    if is_stem && arguments.next().is_none() {
        if let Ok(socket) = sys::inherited_alone(SOCKET) {
            serve::serve(&socket);
        }
        sys::exit(0);
    }
}

/// What a stem is made from.
#[derive(Debug, Default)]
pub(super) struct Seed {
    /// Our executable, once it has been needed.
    sealed: Option<OwnedFd>,
}

impl Seed {
    /// Executes a stem, and returns the way to it.
    pub(super) fn grow(&mut self, reaper: &Reaper) -> Result<AsyncFd<OwnedFd>> {
        self.spawn(reaper).map_err(|err| err.context("make the stem").with_kind(Kind::Unavailable))
    }

    fn spawn(&mut self, reaper: &Reaper) -> Result<AsyncFd<OwnedFd>> {
        let program = CString::new(format!("/proc/self/fd/{}", self.executable()?))
            .expect("a number has no NUL");
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .context("make its socket")?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("prepare its socket")?;
        let ours = watch(ours)?;
        let mut actions = PosixSpawnFileActions::init().context("prepare a process")?;
        actions.add_dup2(theirs.as_raw_fd(), SOCKET).context("prepare a process")?;
        let plain = PosixSpawnAttr::init().context("prepare a process")?;
        let none: [CString; 0] = [];
        let hold = reaper.hold();
        let pid = posix_spawn(program.as_c_str(), &actions, &plain, &[NAME], &none);
        let pid = pid.context("execute ourselves")?.as_raw();
        hold.keep(Pid::new(pid)?);
        if let Some((soft, hard)) = given_files() {
            // Before it is asked for anything: what it makes gets what the shim was given. Set here
            // and not around the spawn, which may need descriptors of its own.
            sys::set_limit(pid, libc::RLIMIT_NOFILE, soft, hard).context("limit its files")?;
        }
        Ok(ours)
    }

    /// The number of our executable's descriptor.
    fn executable(&mut self) -> Result<RawFd> {
        if self.sealed.is_none() {
            // The shim stands in its first container's bundle.
            let sealed = sealed_executable(Path::new("."))?;
            self.sealed = Some(sys::lift_to(sealed.as_fd(), ASIDE).context("keep the executable")?);
        }
        Ok(self.sealed.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }
}
