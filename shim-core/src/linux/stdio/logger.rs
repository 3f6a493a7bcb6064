//! Logging binaries: programs that read a process's output from pipes of their own.
//!
//! ```text
//! process ── pipe ──▶ fd 3, fd 4   logging binary   fd 5 ──▶ "I am ready"
//!             └─ tap ─▶ shim, which reads only once the binary is dead
//! ```
//! The pipes join the two directly: the shim copies nothing, and output goes on when the shim is
//! killed. It keeps the reading ends, so that a binary that dies takes no container with it by
//! SIGPIPE; from then on it reads and drops what comes. So a binary may start others, but has to stay
//! itself for as long as they read.
//!
//! A binary ends by itself when all writers are gone. One that doesn't is ended after its process:
//! beside whoever deletes that, but not after the shim's own end.

use std::{
    ffi::{CString, OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::{self, Pid as RawPid},
};
use tokio::{io::Interest, sync::watch, time};

use super::{
    copy::{self, Output},
    null,
};
use crate::{
    backend::ExitFuture,
    error::{Context, Error, Kind, Result},
    linux::{Program, Reaper, given_files, spawn_program, sys, watch_for},
    model::{ContainerId, Exit, ExitStatus, LogBinary, LogProtocol, Namespace, Pid},
};

/// containerd's own limits: for a binary to say that it is ready, and to end when it is told to.
const READY_LIMIT: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 10 });
const TERM_LIMIT: Duration = Duration::from_secs(12);
/// How long a binary may take to end by itself after the end of its input.
const END_GRACE: Duration = Duration::from_secs(1);

/// What is needed to run logging binaries, and all of them that run. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Loggers {
    reaper: Reaper,
    namespace: Namespace,
    /// Set once, at the end of the shim.
    closing: Arc<watch::Sender<bool>>,
    alive: Arc<watch::Sender<usize>>,
}

/// A running logging binary. Dropped, it is ended, in its own time.
#[derive(Debug)]
pub(super) struct Logger {
    wish: watch::Sender<Wish>,
    has_ended: watch::Receiver<bool>,
    taps: Arc<[OwnedFd]>,
}

/// What is wanted of a logging binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    End,
    Die,
}

impl Loggers {
    pub(crate) fn new(reaper: Reaper, namespace: Namespace) -> Self {
        let (closing, alive) = (watch::Sender::new(false), watch::Sender::new(0));
        Self { reaper, namespace, closing: Arc::new(closing), alive: Arc::new(alive) }
    }

    /// Ends them all, and returns when they are gone.
    pub(crate) async fn end_all(&self) {
        self.closing.send_replace(true);
        let mut alive = self.alive.subscribe();
        let _never_closed = alive.wait_for(|alive| *alive == 0).await;
    }

    /// Runs a binary on the reading ends of a container's output, and returns once it is ready.
    pub(super) async fn start(
        &self,
        binary: &LogBinary,
        container: &ContainerId,
        outputs: [Option<OwnedFd>; 2],
    ) -> Result<Logger> {
        let taps: Vec<_> = outputs.iter().flatten().map(OwnedFd::try_clone).collect();
        let taps = taps.into_iter().collect::<Result<Arc<[_]>, _>>().context("share a pipe")?;
        let (ready, tell_ready) = unistd::pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let program = self.program(binary, container, outputs, tell_ready)?;
        let (pid, exit, gate) = spawn_program(&self.reaper, &program)?;
        // Its ends in this process: it is to be the only one that holds them.
        drop(program);
        let (end, has_ended) = watch::channel(false);
        let logger =
            Logger { wish: watch::Sender::new(Wish::Run), has_ended, taps: Arc::clone(&taps) };
        let name = format!("{} of {container}", binary.path.display());
        self.alive.send_modify(|alive| *alive += 1);
        let mut keeper = Keeper {
            name,
            pid,
            exit,
            wish: logger.wish.subscribe(),
            closing: self.closing.subscribe(),
            taps,
        };
        let alive = Arc::clone(&self.alive);
        tokio::spawn(async move {
            keeper.keep(&end).await;
            end.send_replace(true);
            alive.send_modify(|alive| *alive -= 1);
        });
        let is_ready = async {
            gate.open().await?;
            until_ready(ready, binary.protocol).await
        };
        match time::timeout(READY_LIMIT, is_ready).await {
            Ok(ready) => ready.map(|()| logger),
            Err(_) => {
                logger.wish.send_replace(Wish::Die);
                let limit = READY_LIMIT.as_secs();
                Err(Error::new(Kind::TimedOut, format!("it is not ready after {limit} seconds")))
            }
        }
    }

    fn program(
        &self,
        binary: &LogBinary,
        container: &ContainerId,
        outputs: [Option<OwnedFd>; 2],
        ready: OwnedFd,
    ) -> Result<Program> {
        let [stdout, stderr] = outputs.map(|output| output.map_or_else(null, Ok));
        let name = std::iter::once(binary.path.as_os_str());
        let arguments = name.chain(binary.arguments.iter().map(OsString::as_os_str));
        // These and no others, as with containerd's own shim.
        let environment = [
            CString::new(format!("CONTAINER_ID={container}")),
            CString::new(format!("CONTAINER_NAMESPACE={}", self.namespace)),
        ];
        Ok(Program {
            path: c_string(binary.path.as_os_str())?,
            arguments: arguments.map(c_string).collect::<Result<_>>()?,
            environment: environment
                .into_iter()
                .map(|pair| pair.expect("ids have no NUL"))
                .collect(),
            // Where the shim stands: a bundle.
            directory: c".".to_owned(),
            streams: vec![null()?, null()?, null()?, stdout?, stderr?, ready],
            terminal: false,
            dies_with_us: false,
            files: given_files(),
        })
    }
}

impl Logger {
    /// Waits until it has taken all that there is.
    pub(super) async fn drained(&self) {
        let mut pause = Duration::from_millis(1);
        while !*self.has_ended.borrow() && self.taps.iter().any(is_filled) {
            // The kernel does not tell when a pipe runs empty.
            time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(64));
        }
    }

    /// Has it ended, if it hasn't by itself.
    pub(super) fn ask_to_end(&self) {
        self.wish.send_replace(Wish::End);
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) {
        let mut has_ended = self.has_ended.clone();
        let _gone = has_ended.wait_for(|ended| *ended).await;
    }
}

/// Holds a binary's exit, and sees to it that there is one.
struct Keeper {
    name: String,
    pid: Pid,
    exit: ExitFuture,
    wish: watch::Receiver<Wish>,
    closing: watch::Receiver<bool>,
    taps: Arc<[OwnedFd]>,
}

impl Keeper {
    async fn keep(&mut self, end: &watch::Sender<bool>) {
        let asked = asked(&mut self.wish, &mut self.closing);
        tokio::select! {
            biased;
            wish = asked => self.end(wish).await,
            exit = &mut self.exit => {
                self.report(exit);
                if self.taps.iter().all(is_over) {
                    return;
                }
                log::warn!("logging binary {} is gone: what it was to take is dropped", self.name);
                end.send_replace(true);
                self.drop_output().await;
            }
        }
    }

    /// Reads in the binary's place, so that nobody waits or dies for it.
    async fn drop_output(&mut self) {
        let drop_one =
            |tap: &OwnedFd| Output::start(tap.try_clone().context("share a pipe")?, null()?);
        let _dropped: Vec<_> = self.taps.iter().map(drop_one).collect();
        asked(&mut self.wish, &mut self.closing).await;
    }

    async fn end(&mut self, wish: Wish) {
        if wish == Wish::End {
            // What reads to the end needs no signal, and might lose its last lines by one.
            if self.taps.iter().all(is_over)
                && let Ok(exit) = time::timeout(END_GRACE, &mut self.exit).await
            {
                return self.report(exit);
            }
            self.signal(Signal::SIGTERM);
            if let Ok(exit) = time::timeout(TERM_LIMIT, &mut self.exit).await {
                return self.report(exit);
            }
            log::warn!("logging binary {} does not end on SIGTERM: killed", self.name);
        }
        self.signal(Signal::SIGKILL);
        (&mut self.exit).await;
    }

    /// It has not been collected yet, so the number is its own.
    fn signal(&self, signal: Signal) {
        let pid = RawPid::from_raw(self.pid.raw());
        // With what it has started itself. It has no group of its own before it runs.
        let sent = killpg(pid, signal).or_else(|_| nix::sys::signal::kill(pid, signal));
        if let Err(err) = sent {
            log::warn!("signal logging binary {}: {err}", self.name);
        }
    }

    fn report(&self, exit: Exit) {
        match exit.status {
            ExitStatus::Code(0) => {}
            ExitStatus::Signal(signal) if signal == crate::model::Signal::TERM => {}
            status => log::warn!("logging binary {} ended with {}", self.name, status.wire()),
        }
    }
}

/// Waits until the binary is not wanted any more.
async fn asked(wish: &mut watch::Receiver<Wish>, closing: &mut watch::Receiver<bool>) -> Wish {
    tokio::select! {
        biased;
        // A sender that is gone wants nothing more of it.
        wish = wish.wait_for(|wish| *wish != Wish::Run) => wish.map_or(Wish::End, |wish| *wish),
        _ = closing.wait_for(|closing| *closing) => Wish::End,
    }
}

async fn until_ready(ready: OwnedFd, protocol: LogProtocol) -> Result<()> {
    copy::set_nonblocking(&ready)?;
    let ready = watch_for(ready, Interest::READABLE)?;
    loop {
        let mut readable = ready.readable().await.context("wait until it is ready")?;
        match unistd::read(ready.get_ref(), &mut [0]) {
            Err(Errno::EAGAIN) => readable.clear_ready(),
            Ok(0) if protocol == LogProtocol::Byte => {
                return Err(Error::other("it ended without saying that it is ready"));
            }
            read => return read.map(drop).context("wait until it is ready"),
        }
    }
}

fn is_filled(tap: &OwnedFd) -> bool {
    sys::unread(tap.as_fd()).is_ok_and(|bytes| bytes > 0)
}

/// Whether nobody can write any more.
fn is_over(tap: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(tap.as_fd(), PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|told| told.contains(PollFlags::POLLHUP))
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Error::invalid(format!("{text:?} has a NUL")))
}
