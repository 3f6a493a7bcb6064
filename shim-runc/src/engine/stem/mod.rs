//! The stem, as the shim sees it: asks for processes, one at a time.

mod request;
mod serve;
mod spawn;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::errno::Errno;
use shim_core::{
    Context, Error, Kind, Result,
    linux::{Reaper, open_pid, signal_pidfd},
    model::{Pid, Signal},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Mutex,
};

pub(crate) use request::Request;
use request::{ANSWER, Answer, NUMBERS, Outcome};
pub(crate) use spawn::{Seed, run_if_asked};

use super::{
    step::Part,
    sys::{self, FILES_PER_MESSAGE, Files},
};

/// Makes processes. Clones are the same stem.
#[derive(Clone, Debug)]
pub(crate) struct Stem {
    line: Arc<Mutex<Line>>,
    reaper: Reaper,
}

/// The way to the stem, for one request at a time.
#[derive(Debug)]
struct Line {
    seed: Seed,
    /// None while there is no stem.
    socket: Option<AsyncFd<OwnedFd>>,
    /// The number of the next request.
    next: u64,
}

/// A process that the stem has made: a child of the shim.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// Why the stem made no process.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The kernel refused.
    Kernel(Part, Errno),
    /// The stem can't be asked.
    Gone(Error),
}

impl Stem {
    /// A stem that is made when it is first needed.
    ///
    /// # Errors
    /// When the kernel is too old.
    pub(crate) fn of(seed: Seed, reaper: Reaper) -> Result<Self> {
        check_kernel()?;
        let line = Line { seed, socket: None, next: 0 };
        Ok(Self { line: Arc::new(Mutex::new(line)), reaper })
    }

    /// Has a stem made as soon as the runtime has nothing more urgent to do: a shim is ready
    /// without it.
    ///
    /// # Errors
    /// When the kernel is too old.
    pub(crate) fn plant(reaper: Reaper) -> Result<Self> {
        // The shim stands in its first container's bundle.
        let stem = Self::of(Seed::new(".", 0), reaper)?;
        let planted = stem.clone();
        tokio::spawn(async move { planted.grow().await });
        Ok(stem)
    }

    /// Sees to it that there is a stem. It takes a while to begin, which others can use.
    pub(crate) async fn grow(&self) {
        // Whoever needs it tries again, and is told.
        if let Err(err) = self.line.lock().await.grown(&self.reaper) {
            log::warn!("{err:#}");
        }
    }

    /// Has a process made that runs a plan, by a new stem if the old one has died, and does something
    /// while the stem does it. The caller holds the reaper, and adopts the process.
    ///
    /// # Errors
    /// [`Refused`], and there is no process.
    pub(crate) async fn make(
        &self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        meanwhile: impl FnOnce(),
    ) -> Result<Made, Refused> {
        let mut line = self.line.lock().await;
        let number = line.next;
        line.next = (number + 1) % NUMBERS;
        let request = Request { number, ..request.clone() };
        if let Err(errno) = ask(line.grown(&self.reaper)?, &request, files).await {
            if !is_gone(errno) {
                return Err(errno.into());
            }
            log::warn!("the stem has died: another one takes its place");
            // What was not asked in whole has not been done: another one may be asked. One that
            // dies later may have made a process that nobody knows, and the caller has to know.
            line.socket = None;
            ask(line.grown(&self.reaper)?, &request, files).await?;
        }
        meanwhile();
        let heard = hear(line.grown(&self.reaper)?, number).await?;
        let (Answer { between, outcome, .. }, pidfd) = heard;
        self.collect(between).map_err(Refused::Gone)?;
        match (outcome, pidfd) {
            (Outcome::Made { pid }, Some(pidfd)) => {
                let pid = Pid::new(pid).map_err(Refused::Gone)?;
                Ok(Made { pid, pidfd })
            }
            (Outcome::Made { .. }, None) => Err(Refused::Kernel(Part::Clone, Errno::EMFILE)),
            (Outcome::Refused { part, errno }, _) => Err(Refused::Kernel(part, errno)),
        }
    }

    /// Collects the process that stood between the stem and the new one; it has just answered and
    /// is about to end.
    fn collect(&self, between: i32) -> Result<()> {
        if between == 0 {
            return Ok(());
        }
        let pid = Pid::new(between)?;
        let pidfd = open_pid(pid)?;
        let ended = self.reaper.hold().adopt(pid, pidfd);
        drop(tokio::spawn(ended));
        Ok(())
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        let err = Error::from(errno).context("ask the stem for a process");
        Self::Gone(err.with_kind(Kind::Unavailable))
    }
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        Self::Gone(err)
    }
}

/// Whether the other side of a socket is gone.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN)
}

/// The newest call that nothing here works without is mount_setattr(2).
const KERNEL: (u32, u32) = (5, 12);

fn check_kernel() -> Result<()> {
    let name = nix::sys::utsname::uname().context("look at the kernel")?;
    let release = name.release().to_string_lossy();
    match version(&release) {
        Some(found) if found < KERNEL => {
            let why = format!("Linux {release} is too old, {}.{} is needed", KERNEL.0, KERNEL.1);
            Err(Error::new(Kind::Unsupported, why))
        }
        _ => Ok(()),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|char: char| !char.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Line {
    /// The socket of a stem, which is made if there is none.
    fn grown(&mut self, reaper: &Reaper) -> Result<&AsyncFd<OwnedFd>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.seed.grow(reaper)?,
        };
        Ok(self.socket.insert(socket))
    }
}

/// Sends a request in whole.
pub(super) async fn ask(
    socket: &AsyncFd<OwnedFd>,
    request: &Request,
    files: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let request = request.bytes();
    if request.len() > request::LENGTH || files.len() > Files::ROOM {
        return Err(Errno::E2BIG);
    }
    let mut bytes = request.as_slice();
    for files in files.chunks(FILES_PER_MESSAGE) {
        ready(socket, Interest::WRITABLE, |socket| sys::send(socket, bytes, files)).await?;
        // Further messages are only there for their files.
        bytes = &[0];
    }
    Ok(())
}

/// Receives the answer to the request of that number.
async fn hear(socket: &AsyncFd<OwnedFd>, number: u64) -> Result<(Answer, Option<OwnedFd>), Errno> {
    loop {
        let mut answer = [0; ANSWER];
        let got = ready(socket, Interest::READABLE, |socket| {
            let mut files = Files::new();
            let got = sys::receive(socket, &mut answer, &mut files)?;
            Ok((got, files.take()))
        });
        let (answer, pidfd) = match got.await? {
            (ANSWER, pidfd) => (Answer::of(answer), pidfd),
            (0, _) => return Err(Errno::EPIPE),
            _ => return Err(Errno::EBADMSG),
        };
        if answer.number == number {
            return Ok((answer, pidfd));
        }
        // Whoever asked for this process was dropped: nobody else wants it.
        if let Some(pidfd) = pidfd {
            let _ = signal_pidfd(&pidfd, Signal::KILL);
        }
    }
}

/// Tries a call on a non-blocking socket until it does not have to wait.
pub(crate) async fn ready<T>(
    socket: &AsyncFd<OwnedFd>,
    interest: Interest,
    mut call: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    loop {
        // The first try is made at once: most of the time there is room, and the answer is fast.
        match call(socket.get_ref().as_fd()) {
            Err(Errno::EAGAIN) => {}
            done => return done,
        }
        let mut guard = socket.ready(interest).await.map_err(|_| Errno::EIO)?;
        match call(socket.get_ref().as_fd()) {
            Err(Errno::EAGAIN) => guard.clear_ready(),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.4.0-1"), Some((5, 4)));
        assert!(version("5.4.0").unwrap() < KERNEL);
        assert_eq!(version("x"), None);
    }
}
