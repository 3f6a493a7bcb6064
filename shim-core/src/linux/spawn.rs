//! A child that waits at a gate before it runs its program: what Create and Start need of a plain
//! process.
//!
//! Children are made nowhere else: the standard library's would be collected by two owners.

use std::{
    ffi::CString,
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    errno::Errno,
    pty::openpty,
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd,
};
use tokio::io::unix::AsyncFd;

use super::{Reaper, given_files, reaper, sys};
use crate::{
    backend::{ExitFuture, Process, Streams},
    error::{Context, Error, Result},
    model::Pid,
    oci,
};

/// Holds a fresh child back from running its program. Dropped unopened, the child ends.
#[derive(Debug)]
pub struct Gate {
    socket: AsyncFd<OwnedFd>,
    program: String,
}

/// What a child is made of, laid out before the fork: the child allocates nothing.
#[derive(Debug)]
pub struct Program {
    /// The file to execute.
    pub path: CString,
    /// Its arguments, the name that it is called by first.
    pub arguments: Vec<CString>,
    /// `NAME=value`, each.
    pub environment: Vec<CString>,
    /// Its working directory.
    pub directory: CString,
    /// Standard input, output and error, and up to 29 more; each is given its place's number.
    pub streams: Vec<OwnedFd>,
    /// Whether standard input is to be the controlling terminal.
    pub terminal: bool,
    /// Whether it is killed when this process ends.
    pub dies_with_us: bool,
    /// How many descriptors it may have, where that is not what this process may: soft, then hard.
    pub files: Option<(u64, u64)>,
}

/// Which pid namespace a child is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pids {
    /// Ours.
    Shared,
    /// One of its own, whose first process it is.
    Own,
}

/// Makes a child that will run the program of an OCI process, with its arguments, environment and
/// working directory and nothing else of it: no isolation.
///
/// # Errors
/// `InvalidArgument` for a process without arguments; else what could not be made.
pub fn spawn(reaper: &Reaper, process: &oci::Process, streams: Streams) -> Result<(Process, Gate)> {
    let (streams, terminal) = descriptors(streams)?;
    let program = program(process, streams.into(), terminal.is_some())?;
    let (pid, exit, gate) = spawn_program(reaper, &program)?;
    Ok((Process { pid, exit, terminal: terminal.map(Into::into) }, gate))
}

/// Makes a child of a laid-out program.
///
/// # Errors
/// What could not be made.
pub fn spawn_program(reaper: &Reaper, program: &Program) -> Result<(Pid, ExitFuture, Gate)> {
    spawn_in(reaper, program, Pids::Shared)
}

/// Makes a child of a laid-out program, as the first process of a pid namespace of its own: what it starts
/// ends with it, and it sees no process of others.
///
/// # Errors
/// What could not be made.
pub fn spawn_program_apart(reaper: &Reaper, program: &Program) -> Result<(Pid, ExitFuture, Gate)> {
    spawn_in(reaper, program, Pids::Own)
}

fn spawn_in(reaper: &Reaper, program: &Program, pids: Pids) -> Result<(Pid, ExitFuture, Gate)> {
    let kind = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (ours, childs) =
        socketpair(AddressFamily::Unix, kind.0, None, kind.1).context("make a gate")?;
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&ours, flags).context("prepare the gate")?;
    let name = program.path.to_string_lossy().into_owned();
    let gate = Gate { socket: reaper::watch(ours)?, program: name };
    let hold = reaper.hold();
    let ours = gate.socket.get_ref().as_fd();
    let pid = sys::spawn_gated(program, pids, childs.as_fd(), ours).context("fork")?;
    let exit = hold.adopt(pid, reaper::open_pid(pid)?);
    Ok((pid, exit, gate))
}

impl Gate {
    /// Lets the child run its program, and returns once it does.
    ///
    /// # Errors
    /// Why the program did not run; the child has ended then.
    pub async fn open(&self) -> Result<()> {
        unistd::write(self.socket.get_ref(), b"!")
            .map_err(|_| Error::other("the process ended before its start"))?;
        let mut errno = [0; 4];
        let read = loop {
            let mut readable = self.socket.readable().await.context("wait for the program")?;
            match unistd::read(self.socket.get_ref(), &mut errno) {
                Err(Errno::EAGAIN) => readable.clear_ready(),
                read => break read.context("wait for the program")?,
            }
        };
        if read == 0 {
            return Ok(());
        }
        let errno = Errno::from_raw(i32::from_ne_bytes(errno));
        Err(Error::from(errno).context(format!("run {}", self.program)))
    }
}

/// The child's streams, and the master when a terminal stands behind them.
fn descriptors(streams: Streams) -> Result<([OwnedFd; 3], Option<OwnedFd>)> {
    match streams {
        Streams::Pipes { stdin, stdout, stderr } => Ok(([stdin, stdout, stderr], None)),
        Streams::Terminal => {
            let pty = openpty(None, None).context("make a terminal")?;
            sys::close_on_exec(&pty.master).context("prepare the terminal")?;
            sys::close_on_exec(&pty.slave).context("prepare the terminal")?;
            let copy = || pty.slave.try_clone().context("share the terminal");
            Ok(([copy()?, copy()?, copy()?], Some(pty.master)))
        }
    }
}

fn program(process: &oci::Process, streams: Vec<OwnedFd>, terminal: bool) -> Result<Program> {
    let arguments = c_strings(process.args().iter().flatten())?;
    let environment = c_strings(process.env().iter().flatten())?;
    let name = process.args().iter().flatten().next();
    let name = name.ok_or_else(|| Error::invalid("the process has no arguments"))?;
    let path = CString::new(find(name, process.env().iter().flatten()))
        .map_err(|_| Error::invalid(format!("the program's name {name:?} has a NUL")))?;
    let directory = CString::new(process.cwd().as_os_str().as_encoded_bytes())
        .map_err(|_| Error::invalid("the working directory has a NUL"))?;
    let files = given_files();
    let dies_with_us = false;
    Ok(Program { path, arguments, environment, directory, streams, terminal, dies_with_us, files })
}

/// The first executable file of a name in the `PATH` of the environment, as execvp(3) finds it.
fn find<'a>(name: &str, environment: impl Iterator<Item = &'a String>) -> String {
    if name.contains('/') {
        return name.to_owned();
    }
    let path = environment.filter_map(|pair| pair.strip_prefix("PATH=")).last();
    find_program(name, path.unwrap_or_default()).unwrap_or_else(|| name.to_owned())
}

/// The first executable file of a name in the directories of a `PATH`, as execvp(3) finds it; an
/// empty one stands for the usual two.
pub fn find_program(name: &str, path: &str) -> Option<String> {
    let path = if path.is_empty() { "/bin:/usr/bin" } else { path };
    let mut found = path.split(':').map(|dir| format!("{dir}/{name}"));
    found.find(|path| unistd::access(path.as_str(), unistd::AccessFlags::X_OK).is_ok())
}

fn c_strings<'a>(strings: impl Iterator<Item = &'a String>) -> Result<Vec<CString>> {
    strings
        .map(|string| {
            CString::new(string.as_str())
                .map_err(|_| Error::invalid(format!("{string:?} has a NUL")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::{error::Kind, model::ExitStatus};

    fn shell(script: &str) -> Program {
        let text = |text: &str| CString::new(text).unwrap();
        let null = || std::fs::File::open("/dev/null").unwrap().into();
        Program {
            path: text("/bin/sh"),
            arguments: vec![text("sh"), text("-c"), text(script)],
            environment: Vec::new(),
            directory: text("/"),
            streams: vec![null(), null(), null()],
            terminal: false,
            dies_with_us: false,
            files: None,
        }
    }

    #[tokio::test]
    async fn a_child_runs_its_program_when_its_gate_is_opened_and_ends_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let reaper = Reaper::default();
        for (name, is_opened) in [("opened", true), ("dropped", false)] {
            let path = dir.path().join(name);
            let (_, exit, gate) =
                spawn_program(&reaper, &shell(&format!("> {}", path.display()))).unwrap();
            if is_opened {
                gate.open().await.unwrap();
            }
            drop(gate);
            let exit = timeout(Duration::from_secs(10), exit).await.expect("it ends");
            let expected = if is_opened { 0 } else { 127 };
            assert_eq!(exit.status, ExitStatus::Code(expected), "{name}");
            assert_eq!(path.exists(), is_opened);
        }
    }

    #[tokio::test]
    async fn an_orphan_that_has_ended_still_tells_its_status() {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let reaper = Reaper::default();
        let hold = reaper.hold();
        let script = format!("(exit 7) & echo $! > {}", path.display());
        let (_, exit, gate) = spawn_program(&reaper, &shell(&script)).unwrap();
        gate.open().await.unwrap();
        exit.await;
        let text = std::fs::read_to_string(path).unwrap();
        let pid = Pid::new(text.trim().parse().unwrap()).unwrap();
        let (_pidfd, exit) = hold.adopt_orphan(pid).unwrap();
        let again = hold.adopt_orphan(pid).map(drop);
        assert_eq!(again.unwrap_err().kind(), Kind::AlreadyExists);
        let exit = timeout(Duration::from_secs(10), exit).await.expect("it has ended");
        assert_eq!(exit.status, ExitStatus::Code(7));
        let stranger = Pid::new(1).unwrap();
        assert!(hold.adopt_orphan(stranger).is_err());
    }
}
