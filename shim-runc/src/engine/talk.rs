//! The shim's side of the conversation with a child: what it asks for, and what went wrong.

use std::{
    fs::OpenOptions,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use shim_core::{
    Context, Error, Result,
    model::{ExitStatus, Pid},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    execute,
    hooks::{self, Hooked},
    launch::{Launcher, Material},
    plan::{Limit, Plan},
    report::{Failure, LENGTH, Report},
    stem::{self, Request, ready},
    step::{Part, Step},
    sys::{self, Files},
};

/// A conversation with a child that runs a plan.
pub(crate) struct Talk<'plan> {
    plan: &'plan Plan,
    socket: AsyncFd<OwnedFd>,
    pid: Pid,
    terminal: Option<OwnedFd>,
}

/// Why a conversation went wrong.
pub(crate) enum Trouble {
    Step(Failure),
    Closed,
    Ours(Error),
}

/// Keeps an init process waiting. Dropped, the process ends.
#[derive(Debug)]
pub(crate) struct Gate {
    socket: AsyncFd<OwnedFd>,
    /// The steps that are left, and the number of the first of them.
    rest: Vec<Step>,
    first: usize,
    program: String,
    output: Option<OwnedFd>,
}

/// The steps that are left when a process waits for its start, as errors name them: for another process
/// than the one that planned them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rest {
    first: usize,
    names: Vec<String>,
    program: String,
}

/// What a child said.
enum Word {
    Report(Report, Option<OwnedFd>),
    Closed,
}

impl From<Error> for Trouble {
    fn from(err: Error) -> Self {
        Self::Ours(err)
    }
}

impl<'plan> Talk<'plan> {
    pub(crate) fn new(plan: &'plan Plan, socket: AsyncFd<OwnedFd>, pid: Pid) -> Self {
        Self { plan, socket, pid, terminal: None }
    }

    /// Gives a child that was made without one its plan.
    ///
    /// # Errors
    /// When the child is gone.
    pub(crate) async fn tell(&self, material: &Material<'_>) -> Result<()> {
        let mut files = material.files();
        // Not its own socket: in that socket's queue it would keep itself open when the child is gone,
        // until the kernel collects garbage, and nobody would hear of the end.
        files[execute::SOCKET.0] = files[0];
        let (plan, count) = (material.length, files.len() as u64);
        let request = Request { plan, files: count, ..Request::default() };
        stem::ask(&self.socket, &request, &files).await.context("tell the process its plan")
    }

    /// Gives the child the files of its cgroup, if there are any. It has just been made, so there is
    /// room for a message.
    ///
    /// # Errors
    /// When the child is gone.
    pub(crate) fn hand_over(&self, tasks: Vec<OwnedFd>) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        let tasks: Vec<_> = tasks.iter().map(AsFd::as_fd).collect();
        let sent = sys::send(self.socket.get_ref().as_fd(), &[0], &tasks);
        sent.context("hand over the cgroup")
    }

    /// Listens until the child waits for its start (true), or has become its program (false).
    pub(crate) async fn listen(
        &mut self,
        launcher: &Launcher,
        hooked: Option<&Hooked>,
    ) -> Result<bool, Trouble> {
        let awaits = self.plan.start().is_some();
        loop {
            let word = hear(&self.socket).await.context("listen to the process")?;
            match word {
                Word::Report(Report::Settings, _) => {
                    self.set_from_outside()?;
                    say_go(&self.socket, None).await.context("answer the process")?;
                }
                Word::Report(Report::Terminal, file) => self.terminal = file,
                Word::Report(Report::Listener(number), _) => self.tell_agent(number).await?,
                Word::Report(Report::Ready, _) => return Ok(true),
                Word::Report(Report::RunHooks, _) => self.run_hooks(launcher, hooked).await?,
                Word::Report(Report::Failed(failure), _) => return Err(Trouble::Step(failure)),
                Word::Closed if awaits => return Err(Trouble::Closed),
                Word::Closed => return Ok(false),
            }
        }
    }

    /// Ends the conversation; the gate is for a child that waits.
    pub(crate) fn part(
        self,
        waits: bool,
        output: Option<OwnedFd>,
    ) -> (Option<OwnedFd>, Option<Gate>) {
        let Self { plan, socket, terminal, .. } = self;
        let first = plan.start().filter(|_| waits);
        let gate = first.map(|first| {
            let mut rest = plan.steps[first..].to_vec();
            // The program's step is large, and its name is known.
            rest.retain(|step| !matches!(step, Step::Execute { .. }));
            Gate { socket, rest, first, program: plan.program(), output }
        });
        (terminal, gate)
    }

    async fn run_hooks(&self, launcher: &Launcher, hooked: Option<&Hooked>) -> Result<()> {
        let hooked = hooked.ok_or_else(|| Error::other("the process asks for unknown hooks"))?;
        let pid = Some(self.pid);
        hooked.run(launcher, &hooked.hooks.host, "creating", pid).await?;
        let state = hooked.state("creating", pid)?;
        say_go(&self.socket, Some(state.as_fd())).await.context("answer the process")
    }

    async fn tell_agent(&self, listener: RawFd) -> Result<()> {
        let agent = self.plan.agent.as_ref();
        let agent = agent.ok_or_else(|| Error::other("the process has an unknown listener"))?;
        agent.tell(listener, self.pid, self.plan.init).await?;
        say_go(&self.socket, None).await.context("answer the process")
    }

    fn set_from_outside(&self) -> Result<()> {
        let write = |name: &str, text: &str| -> Result<()> {
            let path = PathBuf::from(format!("/proc/{}/{name}", self.pid));
            let file = OpenOptions::new().write(true).open(path);
            // One write: the kernel takes a map whole or not at all.
            let written = file.and_then(|mut file| file.write(text.as_bytes()))?;
            if written == text.len() { Ok(()) } else { Err(Errno::EIO.into()) }
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
        if let Some(moves) = &self.plan.moves {
            moves.make(self.pid)?;
        }
        Ok(())
    }

    /// Says what went wrong, by the name of the step.
    pub(crate) fn explain(
        &self,
        trouble: Trouble,
        ended: ExitStatus,
        output: Option<OwnedFd>,
    ) -> Error {
        let failure = match trouble {
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
        let step = usize::try_from(failure.step).ok().and_then(|step| self.plan.steps.get(step));
        match step {
            Some(step) => describe(step, failure, output),
            None => unknown(failure),
        }
    }
}

impl Gate {
    /// Lets the program run, after the hooks that the container runs itself.
    ///
    /// # Errors
    /// Why it did not; the process has ended or is about to.
    pub(crate) async fn open(self, state: Option<OwnedFd>) -> Result<()> {
        let state = state.as_ref().map(AsFd::as_fd);
        say_go(&self.socket, state).await.context("start the process")?;
        match hear(&self.socket).await.context("start the process")? {
            Word::Closed => Ok(()),
            Word::Report(Report::Failed(failure), _) => Err(self.explain(failure)),
            Word::Report(..) => Err(Error::other("the process said something out of order")),
        }
    }

    fn explain(self, failure: Failure) -> Error {
        let place = usize::try_from(failure.step).ok();
        let place = place.and_then(|step| step.checked_sub(self.first));
        match place.and_then(|place| self.rest.get(place)) {
            Some(step) => describe(step, failure, self.output),
            None => unknown(failure).context(format!("exec {}", self.program)),
        }
    }
}

impl Rest {
    /// What is left of a plan from its wait on.
    pub(crate) fn of(plan: &Plan) -> Self {
        let first = plan.start().unwrap_or(plan.steps.len());
        let rest = plan.steps[first..].iter();
        // The program's own name says more than the last step's.
        let names = rest.filter(|step| !matches!(step, Step::Execute { .. }));
        Self { first, names: names.map(Step::to_string).collect(), program: plan.program() }
    }

    /// Says what went wrong, by the name of the step.
    pub(crate) fn explain(&self, failure: Failure, output: Option<OwnedFd>) -> Error {
        let place = usize::try_from(failure.step).ok();
        let place = place.and_then(|step| step.checked_sub(self.first));
        match place.and_then(|place| self.names.get(place)) {
            Some(name) => describe_by(name.clone(), failure, output),
            None => unknown(failure).context(format!("exec {}", self.program)),
        }
    }
}

/// An error for a step, as its part and the step call it.
fn describe(step: &Step, failure: Failure, output: Option<OwnedFd>) -> Error {
    let Step::FindProgram { name, .. } = step else {
        return describe_by(step.to_string(), failure, output);
    };
    // The words of Go's os/exec: people and tests look for them.
    let name = name.to_string();
    let number = failure.number;
    let why = match failure.part {
        Part::Stat if number == Errno::ENOENT as i32 => {
            format!("stat {name}: no such file or directory")
        }
        Part::Stat => format!("stat {name}: {}", Errno::from_raw(number)),
        part => part.what().unwrap_or("not found").to_owned(),
    };
    Error::other(format!("exec: {name:?}: {why}"))
}

fn describe_by(name: String, failure: Failure, output: Option<OwnedFd>) -> Error {
    let Failure { part, number, .. } = failure;
    let err = match (part, part.what()) {
        (Part::HookExit | Part::HookSignal, what) => {
            let printed = output.map(hooks::printed).unwrap_or_default();
            Error::other(format!("{} {number}{printed}", what.unwrap_or_default()))
        }
        (_, Some(what)) => unknown(failure).context(what),
        (_, None) => unknown(failure),
    };
    err.context(name)
}

fn unknown(failure: Failure) -> Error {
    Errno::from_raw(failure.number).into()
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

async fn say_go(socket: &AsyncFd<OwnedFd>, file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let files: Vec<_> = file.into_iter().collect();
    ready(socket, Interest::WRITABLE, |socket| sys::send(socket, &[1], &files)).await
}
