//! Copies between a process's end and the client's: splice(2) moves pages between pipes, so no byte
//! passes through the shim's memory. Only what goes into a file does.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::JoinHandle,
    time,
};

use crate::{
    error::{Context, Result},
    linux::sys,
};

/// What one splice may move: a fifo's usual size.
const CHUNK: usize = 64 * 1024;
/// How long a pipe with nothing in it may take to end before a holder that lives on is assumed.
const END_GRACE: Duration = Duration::from_millis(100);

/// How long the end of a process waits for a client to read the last of its output.
const READ_GRACE: Duration = Duration::from_millis(200);

/// A running copy of one output.
#[derive(Debug)]
pub(super) struct Output {
    copier: JoinHandle<()>,
    progress: watch::Receiver<Progress>,
}

/// How long output that nobody has read yet is kept for a client.
const LINGER_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be something to copy.
    Copying,
    /// Everything so far is copied.
    Idle,
    /// All writers are gone and everything is copied.
    Ended,
    /// And the client has read it, or does not.
    Read,
}

impl Output {
    pub(super) fn start(pipe: OwnedFd, sink: OwnedFd) -> Result<Self> {
        set_nonblocking(&pipe)?;
        let source = sys::watch(pipe, Interest::READABLE).context("watch an output")?;
        let sink = Sink::new(sink)?;
        Ok(Self::spawn(|tell| async move {
            if let Err(err) = copy(&source, &sink, &tell).await {
                log::warn!("copy an output: {err}");
            }
            tell.send_replace(Progress::Ended);
            linger(&sink).await;
            tell.send_replace(Progress::Read);
        }))
    }

    /// Runs what copies and tells of it.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(
        copy: impl FnOnce(watch::Sender<Progress>) -> F,
    ) -> Self {
        let (tell, progress) = watch::channel(Progress::Copying);
        Self { copier: tokio::spawn(copy(tell)), progress }
    }

    /// Waits until everything printed so far is copied, and a moment for the client to read it:
    /// `ctr` stops reading as soon as it hears of the end.
    pub(super) async fn drained(&self) {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|now| matches!(now, Progress::Ended | Progress::Read));
        let has_ended = time::timeout(END_GRACE, ended).await.is_ok();
        if !has_ended {
            // Somebody else holds it open, or it is a lot: what is there now is what counts.
            let caught_up = progress.wait_for(|now| *now != Progress::Copying);
            if caught_up.await.is_ok_and(|now| *now == Progress::Idle) {
                return;
            }
        }
        let read = progress.wait_for(|now| *now == Progress::Read);
        let _unread = time::timeout(READ_GRACE, read).await;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.copier.abort();
    }
}

/// Keeps a fifo open until the client has read what is in it, for a bounded time: a client that is
/// slow to open its end would find the fifo closed on both sides, and empty.
async fn linger(sink: &Sink) {
    // What is in a file stays.
    let Sink::Waited(_) = sink else { return };
    let mut pause = Duration::from_millis(1);
    let deadline = time::Instant::now() + LINGER_LIMIT;
    while sys::unread(sink.fd()).is_ok_and(|bytes| bytes > 0) && time::Instant::now() < deadline {
        // The kernel does not tell when a pipe runs empty.
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(64));
    }
}

/// Copies a client's fifo into the process until either side ends.
pub(super) fn input(fifo: OwnedFd, pipe: OwnedFd) -> Result<JoinHandle<()>> {
    set_nonblocking(&pipe)?;
    let source = sys::watch(fifo, Interest::READABLE).context("watch stdin")?;
    let sink = Sink::new(pipe)?;
    let (tell, _) = watch::channel(Progress::Copying);
    Ok(tokio::spawn(async move {
        match copy(&source, &sink, &tell).await {
            Ok(()) => {}
            // The process has closed its stdin, as it may.
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
            Err(err) => log::warn!("copy stdin: {err}"),
        }
    }))
}

/// Where a copy goes: something that can be waited for, or a file, which is always ready.
enum Sink {
    Waited(AsyncFd<OwnedFd>),
    File(LogFile),
}

/// A file that grows. What it doesn't take is lost: a full disk must not stop the process, and a
/// shim that kept the output would only fill up in its place.
struct LogFile {
    fd: OwnedFd,
    /// Set when something was lost: that is told once.
    has_lost: AtomicBool,
}

impl Sink {
    fn new(fd: OwnedFd) -> Result<Self> {
        // epoll(7) takes no regular files.
        let spare = fd.try_clone().context("share a sink")?;
        match sys::watch(fd, Interest::WRITABLE) {
            Ok(fd) => Ok(Self::Waited(fd)),
            Err(err) if err.raw_os_error() == Some(libc::EPERM) => {
                Ok(Self::File(LogFile { fd: spare, has_lost: AtomicBool::new(false) }))
            }
            Err(err) => Err(err).context("watch a sink"),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Waited(fd) => fd.get_ref().as_fd(),
            Self::File(file) => file.fd.as_fd(),
        }
    }
}

async fn copy(
    source: &AsyncFd<OwnedFd>,
    sink: &Sink,
    tell: &watch::Sender<Progress>,
) -> io::Result<()> {
    loop {
        match step(source.get_ref().as_fd(), sink) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                tell.send_if_modified(|now| now.leave_idle());
                // Others have their turn between two chunks.
                tokio::task::yield_now().await;
            }
            // A terminal whose last holder is gone; a socket whose other end did not read all.
            Err(Errno::EIO | Errno::ECONNRESET) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => wait(source, sink, tell).await?,
            Err(err) => return Err(err.into()),
        }
    }
}

/// Waits for whichever side holds the copy up.
async fn wait(
    source: &AsyncFd<OwnedFd>,
    sink: &Sink,
    tell: &watch::Sender<Progress>,
) -> io::Result<()> {
    let mut readable = source.readable().await?;
    if !has_input(source.get_ref().as_fd())? {
        tell.send_if_modified(|now| now.enter_idle());
        readable.clear_ready();
        drop(source.readable().await?);
        return Ok(());
    }
    drop(readable);
    if let Sink::Waited(sink) = sink {
        let mut writable = sink.writable().await?;
        if !has_room(sink.get_ref().as_fd())? {
            writable.clear_ready();
            drop(sink.writable().await?);
        }
    }
    Ok(())
}

fn step(source: BorrowedFd<'_>, sink: &Sink) -> nix::Result<usize> {
    let sink = match sink {
        Sink::Waited(sink) => sink.get_ref().as_fd(),
        // splice(2) refuses a file opened for appending.
        Sink::File(file) => return append(source, file),
    };
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    match splice(source, None, sink, None, CHUNK, flags) {
        // splice(2) refuses a pair without a pipe.
        Err(Errno::EINVAL) => copy_bytes(source, sink),
        done => done,
    }
}

/// The slow way: through memory, a little at a time.
fn copy_bytes(source: BorrowedFd<'_>, sink: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut buffer = [0; 4096];
    if !has_room(sink).unwrap_or(true) {
        return Err(Errno::EAGAIN);
    }
    let read = nix::unistd::read(source, &mut buffer)?;
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        let written = nix::unistd::write(sink, rest)?;
        rest = &rest[written..];
    }
    Ok(read)
}

/// Moves what there is into a file. Only the source's side can fail.
fn append(source: BorrowedFd<'_>, file: &LogFile) -> nix::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let read = nix::unistd::read(source, &mut buffer)?;
    let mut rest = &buffer[..read];
    while !rest.is_empty() {
        match nix::unistd::write(&file.fd, rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => {}
            Err(err) => {
                if !file.has_lost.swap(true, Ordering::Relaxed) {
                    log::warn!("write an output to {}: {err}: it is dropped", name(&file.fd));
                }
                break;
            }
        }
    }
    Ok(read)
}

/// What a descriptor was opened as.
fn name(fd: &OwnedFd) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.map_or_else(|_| "a file".to_owned(), |path| path.display().to_string())
}

fn has_input(fd: BorrowedFd<'_>) -> io::Result<bool> {
    ready(fd, PollFlags::POLLIN)
}

fn has_room(fd: BorrowedFd<'_>) -> io::Result<bool> {
    ready(fd, PollFlags::POLLOUT)
}

/// Whether the descriptor has what was asked for, or an end or an error to tell.
fn ready(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, what)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

pub(super) fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).context("read a stream's flags")?;
    let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).context("set a stream's flags")?;
    Ok(())
}

impl Progress {
    pub(super) fn enter_idle(&mut self) -> bool {
        std::mem::replace(self, Self::Idle) != Self::Idle
    }

    pub(super) fn leave_idle(&mut self) -> bool {
        std::mem::replace(self, Self::Copying) != Self::Copying
    }
}
