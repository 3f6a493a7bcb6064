//! The way from one process to the init process that another one has made: `start` on the command line,
//! when `create` has ended.
//!
//! Two named pipes. The init process reads a byte from one when it may go on; the other ends when the
//! program runs, or brings a [`Report`] first. It needs nothing but read(2) and write(2), which no seccomp
//! filter forbids, and no right to look into the process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::mkfifo,
};
use shim_core::{Context, Error, Kind, Result};

use super::{
    hooks,
    report::{LENGTH, Report},
    talk::Rest,
};

const GO: &str = "go";
const ANSWER: &str = "answer";

/// The ends that the init process holds, and the state that its own hooks are told.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(super) go: OwnedFd,
    pub(super) answer: OwnedFd,
    pub(crate) state: OwnedFd,
}

impl Doors {
    /// Makes the pipes in a directory that is the container's own.
    ///
    /// # Errors
    /// What could not be made.
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let make = |name: &str| -> Result<(PathBuf, File)> {
            let path = directory.join(name);
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            // For both: it does not wait for another end, and there is no end of file.
            let both = OpenOptions::new().read(true).write(true).open(&path)?;
            Ok((path, both))
        };
        let all = || -> Result<Self> {
            let (_, go) = make(GO)?;
            let (path, _both) = make(ANSWER)?;
            // For writing alone: the reader is to see the end.
            let answer = OpenOptions::new().write(true).open(path)?;
            let state = hooks::memory(c"state")?;
            Ok(Self { go: go.into(), answer: answer.into(), state })
        };
        all().with_context(|| format!("make the pipes in {}", directory.display()))
    }
}

/// Whether the container of a directory has not been started yet.
pub(crate) fn are_closed(directory: &Path) -> bool {
    directory.join(GO).exists()
}

/// Takes the pipes away: the container has been started.
pub(crate) fn remove(directory: &Path) {
    // Those that stay lead to nobody, which `open` sees.
    let _ = fs::remove_file(directory.join(ANSWER));
    let _ = fs::remove_file(directory.join(GO));
}

/// Lets an init process go on, and waits until its program runs. `output` is what its hooks printed.
///
/// # Errors
/// `FailedPrecondition` when nobody waits; else why the program did not run.
pub(crate) fn open(directory: &Path, rest: &Rest, output: Option<OwnedFd>) -> Result<()> {
    let end = |name: &str, options: &mut OpenOptions| {
        options.custom_flags(libc::O_NONBLOCK).open(directory.join(name))
    };
    let nobody = |err: io::Error| match err.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO | Errno::ENOENT) => {
            Error::new(Kind::FailedPrecondition, "the container does not wait for its start")
        }
        _ => Error::from(err),
    };
    let open = || -> Result<(File, File)> {
        let answer = end(ANSWER, OpenOptions::new().read(true)).map_err(nobody)?;
        let mut go = end(GO, OpenOptions::new().write(true)).map_err(nobody)?;
        go.write_all(b"!")?;
        Ok((answer, go))
    };
    let (answer, _go) = open().context("start the process")?;
    match hear(answer).context("wait for the program")? {
        None => Ok(()),
        Some(Report::Failed(failure)) => Err(rest.explain(failure, output)),
        Some(_) => Err(Error::other("the process said something out of order")),
    }
}

/// Waits for a report, or for the end.
fn hear(mut answer: File) -> Result<Option<Report>> {
    let mut bytes = [0; LENGTH];
    loop {
        match poll(&mut [PollFd::new(answer.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            ready => ready?,
        };
        match answer.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(length) => {
                let report = Report::of(&bytes[..length]);
                return report.map(Some).ok_or_else(|| Errno::EBADMSG.into());
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(err) => return Err(err.into()),
        }
    }
}
