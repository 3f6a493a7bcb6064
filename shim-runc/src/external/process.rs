//! A process that a command leaves to the shim: its pid, its exit, its terminal.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use shim_core::{Context, Error, Kind, Process, Result, Streams, model::Pid};

use super::{
    cli::{Line, Told},
    command::{Caller, Io, Scratch},
    console::Console,
};

/// A process that was left to the shim.
pub(super) struct Left {
    pub(super) process: Process,
    pub(super) pidfd: OwnedFd,
}

impl Caller {
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
        let pid_file = Scratch(self.bundle.join(format!("{name}.pid")));
        let console = match &streams {
            Streams::Terminal => Some(Console::listen(&self.bundle, format!("{name}.sock"))?),
            Streams::Pipes { .. } => None,
        };
        let told =
            Told { pid_file: pid_file.0.clone(), console: console.as_ref().map(Console::path) };
        // Until the pid is known, whatever has ended stays: neither its status nor its pid is lost.
        let hold = self.reaper.hold();
        self.call(line(&told), Io::Passed(streams)).await?;
        let pid = read_pid(&pid_file.0)?;
        // gVisor puts a pod's containers into one process, which has one exit.
        let left = hold.adopt_orphan(pid).map_err(|err| match err.kind() {
            Kind::AlreadyExists => err
                .with_kind(Kind::Unsupported)
                .context("a container in the process of another is not supported"),
            _ => err,
        });
        let (pidfd, exit) = left?;
        let terminal = console.map(Console::take).transpose()?;
        Ok(Left { process: Process { pid, exit, terminal: terminal.map(Into::into) }, pidfd })
    }
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
