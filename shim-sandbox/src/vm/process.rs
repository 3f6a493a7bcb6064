//! A confined program of a machine: its start, what it says, its end.

use std::{
    ffi::{CString, OsString},
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    time::Duration,
};

use nix::{fcntl::OFlag, unistd::pipe2};
use shim_core::{
    Context, Error, Result,
    linux::{Program, Reaper, open_pid, signal_pidfd, spawn_program_apart},
    model::{Exit, Pid, Signal},
};
use tokio::{sync::watch, time::timeout};

use super::{Launch, console::Console};
use crate::confine::Confinement;

/// How many descriptors such a program may have: soft and hard.
const FILES: (u64, u64) = (65536, 65536);

/// How long the console's end may come behind the program's: another process may have its other end.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// A program that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pidfd: OwnedFd,
    pub(super) console: Console,
    pub(super) exited: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Starts a program with these descriptors, from number 3 on.
    ///
    /// # Errors
    /// When it does not run.
    pub(super) async fn start(
        reaper: &Reaper,
        launch: &Launch,
        confinement: &Confinement,
        arguments: impl IntoIterator<Item = OsString>,
        files: Vec<OwnedFd>,
    ) -> Result<Self> {
        let words = [launch.path.clone().into_os_string()].into_iter();
        let words = words.chain(launch.arguments.iter().map(OsString::from)).chain(arguments);
        let words: Vec<_> = words.collect();
        let (says, said) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let program = program(launch, confinement, &words, said, files)?;
        let (pid, exit, gate) = spawn_program_apart(reaper, &program)?;
        let pidfd = open_pid(pid)?;
        // Its end is the end of what it says.
        drop(program);
        let console = Console::default();
        let drained = console.drain(nonblocking(says)?)?;
        let (tell, exited) = watch::channel(None);
        tokio::spawn(async move {
            let exit = exit.await;
            let _late = timeout(LAST_WORDS, drained).await;
            tell.send_replace(Some(exit));
        });
        let process = Self { pid, pidfd, console, exited };
        gate.open().await.with_context(|| format!("start {}", launch.path.display()))?;
        Ok(process)
    }

    /// Kills it; it may have ended.
    pub(super) fn kill(&self) {
        if let Ok(signal) = Signal::parse(9) {
            let _ended = signal_pidfd(self.pidfd.as_fd(), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program(
    launch: &Launch,
    confinement: &Confinement,
    words: &[OsString],
    said: OwnedFd,
    files: Vec<OwnedFd>,
) -> Result<Program> {
    let null: OwnedFd = File::open("/dev/null").context("open /dev/null")?.into();
    let both = said.try_clone().context("share a pipe")?;
    let mut streams = vec![null, said, both];
    streams.extend(files);
    let ourselves = launch.ourselves.as_os_str();
    let arguments = [ourselves.to_owned()].into_iter().chain(confinement.arguments(words));
    let c_string = |word: &OsString| {
        CString::new(word.as_bytes()).map_err(|_| Error::invalid(format!("{word:?} has a NUL")))
    };
    Ok(Program {
        path: c_string(&ourselves.to_owned())?,
        arguments: arguments.map(|word| c_string(&word)).collect::<Result<_>>()?,
        environment: Vec::new(),
        directory: c"/".into(),
        streams,
        terminal: false,
        dies_with_us: true,
        files: Some(FILES),
    })
}

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&fd, flags).context("prepare a pipe")?;
    Ok(fd)
}
