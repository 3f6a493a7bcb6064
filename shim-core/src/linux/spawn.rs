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

use super::{Reaper, reaper, sys};
use crate::{
    backend::{Process, Streams},
    error::{Context, Error, Result},
    oci,
};

/// Holds a fresh child back from running its program. Dropped unopened, the child ends.
#[derive(Debug)]
pub struct Gate {
    socket: AsyncFd<OwnedFd>,
    program: String,
}

/// What a child is made of, laid out before the fork: the child allocates nothing.
pub(crate) struct Program {
    pub(crate) path: CString,
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) directory: CString,
    /// Standard input, output and error.
    pub(crate) streams: [OwnedFd; 3],
    /// Whether standard input is to be the controlling terminal.
    pub(crate) terminal: bool,
}

/// Makes a child that will run the program of an OCI process, with its arguments, environment and
/// working directory and nothing else of it: no isolation.
///
/// # Errors
/// `InvalidArgument` for a process without arguments; else what could not be made.
pub fn spawn(reaper: &Reaper, process: &oci::Process, streams: Streams) -> Result<(Process, Gate)> {
    let (streams, terminal) = descriptors(streams)?;
    let program = program(process, streams, terminal.is_some())?;
    let kind = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (ours, childs) =
        socketpair(AddressFamily::Unix, kind.0, None, kind.1).context("make a gate")?;
    let hold = reaper.hold();
    let pid = sys::spawn_gated(&program, childs.as_fd()).context("fork")?;
    let exit = hold.adopt(pid, reaper::open_pid(pid)?);
    drop(childs);
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&ours, flags).context("prepare the gate")?;
    let gate =
        Gate { socket: reaper::watch(ours)?, program: program.path.to_string_lossy().into_owned() };
    Ok((Process { pid, exit, terminal }, gate))
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

fn program(process: &oci::Process, streams: [OwnedFd; 3], terminal: bool) -> Result<Program> {
    let arguments = c_strings(process.args().iter().flatten())?;
    let environment = c_strings(process.env().iter().flatten())?;
    let name = process.args().iter().flatten().next();
    let name = name.ok_or_else(|| Error::invalid("the process has no arguments"))?;
    let path = CString::new(find(name, process.env().iter().flatten()))
        .map_err(|_| Error::invalid(format!("the program's name {name:?} has a NUL")))?;
    let directory = CString::new(process.cwd().as_os_str().as_encoded_bytes())
        .map_err(|_| Error::invalid("the working directory has a NUL"))?;
    Ok(Program { path, arguments, environment, directory, streams, terminal })
}

/// The first executable file of a name in the `PATH` of the environment, as execvp(3) finds it.
fn find<'a>(name: &str, environment: impl Iterator<Item = &'a String>) -> String {
    if name.contains('/') {
        return name.to_owned();
    }
    let path = environment.filter_map(|pair| pair.strip_prefix("PATH=")).last();
    let found = path.unwrap_or("/bin:/usr/bin").split(':').map(|dir| format!("{dir}/{name}"));
    let access = unistd::AccessFlags::X_OK;
    found
        .into_iter()
        .find(|path| unistd::access(path.as_str(), access).is_ok())
        .unwrap_or_else(|| name.to_owned())
}

fn c_strings<'a>(strings: impl Iterator<Item = &'a String>) -> Result<Vec<CString>> {
    strings
        .map(|string| {
            CString::new(string.as_str())
                .map_err(|_| Error::invalid(format!("{string:?} has a NUL")))
        })
        .collect()
}
