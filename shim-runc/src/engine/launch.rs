//! From a plan to a process: asks the stem, does what only the shim can, and listens.

use std::{
    fs::OpenOptions,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
    },
};
use shim_core::{
    Context, Error, Kind, Result,
    backend::ExitFuture,
    linux::{Reaper, signal_pidfd, watch},
    model::{ExitStatus, Pid, Signal},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    files::{self, Given},
    plan::{Limit, Plan},
    report::{Failure, LENGTH, Report},
    stem::{Made, Refused, Stem, ready},
    step::{Part, Step},
    sys::{self, Files},
};

/// A process that runs a plan, or has run it.
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Has to be awaited: that collects the process.
    pub(crate) exit: ExitFuture,
    pub(crate) terminal: Option<OwnedFd>,
    /// The way to an init process that waits for its start.
    pub(crate) gate: Option<Gate>,
}

/// Keeps an init process waiting. Dropped, the process ends.
#[derive(Debug)]
pub(crate) struct Gate {
    socket: AsyncFd<OwnedFd>,
    program: String,
}

/// Makes processes from plans.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    stem: Stem,
    reaper: Reaper,
}

/// What a child said last.
enum Word {
    Report(Report, Option<OwnedFd>),
    Closed,
}

impl Launcher {
    pub(crate) fn new(stem: Stem, reaper: Reaper) -> Self {
        Self { stem, reaper }
    }

    /// Makes a process and stays with it until it waits for its start, or for a plan that waits
    /// for nothing until its program runs.
    ///
    /// # Errors
    /// The step that failed. The process has ended and is collected.
    pub(crate) async fn launch(&self, plan: &Plan, given: &Given<'_>) -> Result<Launched> {
        let (ours, theirs) = socket_pair()?;
        let socket = watch(ours)?;
        let (made, exit) = self.make(plan, given, theirs).await?;
        let mut talk = Talk { plan, socket, pid: made.pid, terminal: None };
        match talk.listen().await {
            Ok(waits) => {
                let Talk { socket, terminal, .. } = talk;
                let gate = waits.then(|| Gate { socket, program: plan.program() });
                let Made { pid, pidfd } = made;
                Ok(Launched { pid, pidfd, exit, terminal, gate })
            }
            Err(err) => {
                // It may have ended by itself; then there is nobody to signal.
                let _ = signal_pidfd(&made.pidfd, Signal::KILL);
                let ended = exit.await.status;
                Err(talk.explain(err, ended))
            }
        }
    }

    async fn make(
        &self,
        plan: &Plan,
        given: &Given<'_>,
        socket: OwnedFd,
    ) -> Result<(Made, ExitFuture)> {
        let opened = files::open_all(plan, given)?;
        let bytes = plan.bytes();
        let memory = sealed(&bytes).context("write the plan")?;
        let mut files = vec![memory.as_fd(), socket.as_fd()];
        files.extend(opened.iter().map(AsFd::as_fd));
        let mut request = plan.request.clone();
        request.plan = bytes.len() as u64;
        request.files = files.len() as u64;
        if files.len() > Files::ROOM {
            let why = format!("the spec needs {} files at once", files.len());
            return Err(Error::new(Kind::ResourceExhausted, why));
        }
        let hold = self.reaper.hold();
        let made = self.stem.make(&request, &files).await.map_err(refused)?;
        let pidfd = made.pidfd.try_clone();
        let exit = match pidfd {
            Ok(pidfd) => hold.adopt(made.pid, pidfd),
            // Without a descriptor to wait with, the original has to do.
            Err(err) => {
                let _ = signal_pidfd(&made.pidfd, Signal::KILL);
                hold.adopt(made.pid, made.pidfd).await;
                return Err(Error::from(err).context("copy a pidfd"));
            }
        };
        Ok((made, exit))
    }
}

impl Gate {
    /// Lets the program run.
    ///
    /// # Errors
    /// Why it did not; the process has ended or is about to.
    pub(crate) async fn open(self) -> Result<()> {
        say_go(&self.socket).await.context("start the process")?;
        match hear(&self.socket).await.context("start the process")? {
            Word::Closed => Ok(()),
            Word::Report(Report::Failed(failure), _) => {
                Err(Error::from(failure.errno).context(format!("exec {}", self.program)))
            }
            Word::Report(..) => Err(Error::other("the process said something out of order")),
        }
    }
}

/// A conversation with a child.
struct Talk<'plan> {
    plan: &'plan Plan,
    socket: AsyncFd<OwnedFd>,
    pid: Pid,
    terminal: Option<OwnedFd>,
}

/// Why a conversation went wrong.
enum Trouble {
    Step(Failure),
    Closed,
    Ours(Error),
}

impl From<Error> for Trouble {
    fn from(err: Error) -> Self {
        Self::Ours(err)
    }
}

impl Talk<'_> {
    /// Listens until the child waits for its start (true), or has become its program (false).
    async fn listen(&mut self) -> Result<bool, Trouble> {
        let awaits = self.plan.steps.contains(&Step::AwaitStart {});
        loop {
            let word = hear(&self.socket).await.context("listen to the process")?;
            match word {
                Word::Report(Report::Settings, _) => {
                    self.set_from_outside()?;
                    say_go(&self.socket).await.context("answer the process")?;
                }
                Word::Report(Report::Terminal, file) => self.terminal = file,
                Word::Report(Report::Ready, _) => return Ok(true),
                Word::Report(Report::RunHooks, _) => {
                    return Err(Error::other("the process asks for hooks that it has not").into());
                }
                Word::Report(Report::Failed(failure), _) => return Err(Trouble::Step(failure)),
                Word::Closed if awaits => return Err(Trouble::Closed),
                Word::Closed => return Ok(false),
            }
        }
    }

    fn set_from_outside(&self) -> Result<()> {
        let write = |name: &str, text: &str| -> Result<()> {
            let path = PathBuf::from(format!("/proc/{}/{name}", self.pid));
            let file = OpenOptions::new().write(true).open(path);
            Ok(file.and_then(|mut file| file.write_all(text.as_bytes()))?)
        };
        if let Some(score) = self.plan.oom_score {
            write("oom_score_adj", &score.to_string())
                .with_context(|| format!("set oom score to {score}"))?;
        }
        if self.plan.raises_limits {
            self.plan.limits.iter().try_for_each(|limit| raise(self.pid, limit))?;
        }
        if let Some(mappings) = &self.plan.mappings {
            write("uid_map", &mappings.users).context("map user ids")?;
            write("gid_map", &mappings.groups).context("map group ids")?;
        }
        Ok(())
    }

    /// Says what went wrong, by the name of the step.
    fn explain(&self, trouble: Trouble, ended: ExitStatus) -> Error {
        let Failure { step, part, errno } = match trouble {
            Trouble::Ours(err) => return err,
            Trouble::Step(failure) => failure,
            Trouble::Closed => {
                let how = match ended {
                    ExitStatus::Code(code) => format!("with code {code}"),
                    ExitStatus::Signal(signal) => format!("by signal {}", signal.number()),
                    ExitStatus::Unknown => "for an unknown reason".to_owned(),
                };
                return Error::other(format!("the process ended {how} before it was ready"));
            }
        };
        let step = usize::try_from(step).ok().and_then(|step| self.plan.steps.get(step));
        step.map_or_else(|| errno.into(), |step| describe(step, part, errno))
    }
}

/// An error for a step, as its part and the step call it.
fn describe(step: &Step, part: Part, errno: Errno) -> Error {
    if let Step::FindProgram { name, .. } = step {
        // The words of Go's os/exec: people and tests look for them.
        let name = name.to_string();
        return Error::other(match part {
            Part::Stat if errno == Errno::ENOENT => {
                format!("exec: {name:?}: stat {name}: no such file or directory")
            }
            Part::Stat => format!("exec: {name:?}: stat {name}: {errno}"),
            _ => format!("exec: {name:?}: {}", part.what().unwrap_or("not found")),
        });
    }
    let err = Error::from(errno);
    let err = match part.what() {
        Some(what) => err.context(what),
        None => err,
    };
    err.context(step.to_string())
}

fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Gone(err) => err,
        Refused::Kernel(part, errno) => {
            let kind = match errno {
                Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENOSPC => {
                    Kind::ResourceExhausted
                }
                _ => Kind::Other,
            };
            let err = Error::from(errno).with_kind(kind);
            err.context(part.what().unwrap_or("clone a process"))
        }
    }
}

/// Raises a hard limit as far as the child will want it; the child sets it exactly.
fn raise(pid: Pid, limit: &Limit) -> Result<()> {
    let (soft, hard) = sys::limit(pid.raw(), limit.resource)?;
    if limit.hard <= hard {
        return Ok(());
    }
    sys::set_limit(pid.raw(), limit.resource, soft, limit.hard)
        .with_context(|| format!("raise {} to {}", limit.name, limit.hard))
}

/// Puts bytes into memory that nobody can change any more.
fn sealed(bytes: &[u8]) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = std::fs::File::from(memfd_create(c"plan", flags)?);
    (&memory).write_all(bytes)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory.into())
}

/// A socket for one child: our end is for the runtime, the child's blocks.
fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let make = || -> sys::Result<(OwnedFd, OwnedFd)> {
        let kind = SockType::SeqPacket;
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, flags)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((ours, theirs))
    };
    make().context("make a socket")
}

async fn hear(socket: &AsyncFd<OwnedFd>) -> Result<Word, Errno> {
    let mut bytes = [0; LENGTH];
    let heard = ready(socket, Interest::READABLE, |socket| {
        let mut files = Files::new();
        let length = sys::receive(socket, &mut bytes, &mut files)?;
        Ok((length, files.take()))
    });
    match heard.await {
        Ok((0, _)) | Err(Errno::ECONNRESET) => Ok(Word::Closed),
        Ok((length, file)) => {
            let report = Report::of(&bytes[..length]).ok_or(Errno::EBADMSG)?;
            Ok(Word::Report(report, file))
        }
        Err(errno) => Err(errno),
    }
}

async fn say_go(socket: &AsyncFd<OwnedFd>) -> Result<(), Errno> {
    ready(socket, Interest::WRITABLE, |socket| sys::send(socket, &[1], &[])).await
}
