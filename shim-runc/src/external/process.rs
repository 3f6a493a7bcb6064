//! A process that a command leaves to the shim: its pid, its exit, its terminal.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime::Spec;
use shim_core::{
    Context, Error, Process, Result, Streams, Terminal,
    linux::open_pid,
    model::{ContainerId, Pid},
};

use super::{
    cli::{Line, Told},
    command::{Caller, Io, Scratch},
    console::Console,
    member::Member,
    place,
};

/// A process that was left to the shim.
pub(super) struct Left {
    pub(super) process: Process,
    pub(super) pidfd: OwnedFd,
    /// It has no process of its own: the pid is its sandbox's.
    pub(super) member: Option<Arc<Member>>,
}

/// Whose container is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// It is a pod, or in none, or a process is added.
    Own,
    /// One of a pod's, which some runtimes put into the pod's process.
    Pod,
}

impl Whose {
    /// By what CRI says of it.
    pub(super) fn of(spec: &Spec) -> Self {
        let annotations = spec.annotations().as_ref();
        let kind = annotations.and_then(|all| all.get("io.kubernetes.cri.container-type"));
        if kind.is_some_and(|kind| kind == "container") { Self::Pod } else { Self::Own }
    }
}

impl Caller {
    /// Runs a command that makes a container.
    ///
    /// # Errors
    /// As [`Caller::leave`].
    pub(super) async fn leave_init(
        &self,
        id: &ContainerId,
        whose: Whose,
        streams: Streams,
        line: impl FnOnce(&Told) -> Line,
    ) -> Result<Left> {
        // A pod's may get its streams as late as at its start. Who has a process of its own has them, and
        // a copy would keep them open.
        let copy = (whose == Whose::Pod).then(|| copied(&streams)).transpose()?.flatten();
        let hold = self.reaper.hold();
        let (pid, terminal) = self.run("runtime", streams, line).await?;
        let left = match hold.adopt_orphan(pid) {
            Err(_) if whose == Whose::Pod && place::is_sandbox(pid) => {
                let (pidfd, member) = (open_pid(pid)?, Arc::new(Member::new(copy)));
                let exit = Arc::clone(&member).exit(self.clone(), id.clone(), pidfd.try_clone()?);
                Ok((pidfd, exit, Some(member)))
            }
            adopted => adopted.map(|(pidfd, exit)| (pidfd, exit, None)),
        };
        let (pidfd, exit, member) = left?;
        Ok(Left { process: Process { pid, exit, terminal }, pidfd, member })
    }

    /// Runs a command that leaves a process behind. `name` is the stem of its files' names.
    ///
    /// # Errors
    /// What the runtime says; or why there is no process, which the runtime may think there is.
    pub(super) async fn leave(
        &self,
        name: &str,
        streams: Streams,
        line: impl FnOnce(&Told) -> Line,
    ) -> Result<Left> {
        // Until the pid is known, whatever has ended stays: neither its status nor its pid is lost.
        let hold = self.reaper.hold();
        let (pid, terminal) = self.run(name, streams, line).await?;
        let (pidfd, exit) = hold.adopt_orphan(pid)?;
        Ok(Left { process: Process { pid, exit, terminal }, pidfd, member: None })
    }

    async fn run(
        &self,
        name: &str,
        streams: Streams,
        line: impl FnOnce(&Told) -> Line,
    ) -> Result<(Pid, Option<Terminal>)> {
        let pid_file = Scratch(self.bundle.join(format!("{name}.pid")));
        let console = match &streams {
            Streams::Terminal => Some(Console::listen(&self.bundle, format!("{name}.sock"))?),
            Streams::Pipes { .. } => None,
        };
        let told =
            Told { pid_file: pid_file.0.clone(), console: console.as_ref().map(Console::path) };
        self.call(line(&told), Io::Passed(streams)).await?;
        let pid = read_pid(&pid_file.0)?;
        let terminal = console.map(Console::take).transpose()?;
        Ok((pid, terminal.map(Into::into)))
    }
}

/// The same files once more; a terminal is made once.
fn copied(streams: &Streams) -> Result<Option<Streams>> {
    let Streams::Pipes { stdin, stdout, stderr } = streams else { return Ok(None) };
    Ok(Some(Streams::Pipes {
        stdin: stdin.try_clone()?,
        stdout: stdout.try_clone()?,
        stderr: stderr.try_clone()?,
    }))
}

/// Reads a file that a runtime has written a pid to.
pub(super) fn read_pid(path: &PathBuf) -> Result<Pid> {
    let text = fs::read_to_string(path).context("read the pid that the runtime tells")?;
    let pid = text.trim().parse().ok().and_then(|pid| Pid::new(pid).ok());
    pid.ok_or_else(|| Error::other(format!("the runtime tells of a process {text:?}")))
}

/// Writes what a command reads.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<Scratch> {
    let scratch = Scratch(path.to_owned());
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(scratch)
}
