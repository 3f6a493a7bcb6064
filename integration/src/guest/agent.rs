//! The guest's side: a service that runs one program after the other for the host.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::BED;
use super::wire::Frame;
use crate::wait::{self, SOON};

/// The serial line's name.
pub(super) const PORT: &str = "bed";

/// Set by the unit: it tells that this process is the agent.
pub(super) const ROLE: &str = "SHIM_GUEST";

/// The file on the disk that names the host's target folder.
pub(super) const TARGET: &str = "target-folder";

/// Serves the host if this process is the agent. Call it first in every `main` that boots a guest.
#[must_use]
pub fn serve() -> Option<ExitCode> {
    if env::var(ROLE).ok()? != "agent" {
        return None;
    }
    let served = place_target().and_then(|()| answer());
    let Err(error) = served else { return Some(ExitCode::SUCCESS) };
    // The journal has it, and the console, whose end the host shows.
    crate::runner::say(&format!("agent: {error:#}"));
    Some(ExitCode::FAILURE)
}

/// Test programs know where cargo has put the programs under test.
fn place_target() -> Result<()> {
    let target =
        fs::read_to_string(Path::new(BED).join(TARGET)).context("read the target folder")?;
    let target = Path::new(target.trim_end());
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    symlink(Path::new(BED).join("target"), target).context("place the target folder")
}

fn answer() -> Result<()> {
    let port = Path::new("/dev/virtio-ports").join(PORT);
    let open = || Ok(File::options().read(true).write(true).open(&port)?);
    let mut line = wait::until(format_args!("{}", port.display()), SOON * 3, open)?;
    Frame::Hello.send(&mut line)?;
    loop {
        if let Frame::Run(arguments) = Frame::receive(&mut line).context("hear from the host")? {
            run(&arguments, &mut line)?;
        }
    }
}

/// Runs a program and tells what it writes until it has ended; what it leaves running is not waited
/// for.
fn run(arguments: &[String], line: &mut File) -> Result<()> {
    let (program, rest) = arguments.split_first().context("no program is named")?;
    let mut command = Command::new(program);
    command.args(rest).current_dir("/root").env_remove(ROLE);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // What a shell would say.
            Frame::Err(format!("{program}: {error}\n").into_bytes()).send(line)?;
            return Ok(Frame::Exit(127).send(line)?);
        }
    };
    pass_on(&mut child, line)?;
    let status = child.wait()?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(Frame::Exit(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)).send(line)?)
}

/// Where a program's output comes from, and the frame that it becomes.
type Output = (OwnedFd, fn(Vec<u8>) -> Frame);

fn pass_on(child: &mut Child, line: &mut File) -> Result<()> {
    let pid = Pid::from_raw(child.id().cast_signed()).context("no pid")?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let out: Output = (child.stdout.take().context("no pipe")?.into(), Frame::Out);
    let err: Output = (child.stderr.take().context("no pipe")?.into(), Frame::Err);
    let mut open = vec![out, err];
    loop {
        let fds = open.iter().map(|(fd, _)| fd.as_fd()).chain([ended.as_fd()]);
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let (over, ready) = ready.split_last().context("the end is polled for, too")?;
        if *over && ready.iter().all(|ready| !ready) {
            return Ok(());
        }
        let mut ready = ready.iter();
        let mut told = Ok(());
        open.retain_mut(|(fd, frame)| {
            let is_ready = ready.next().is_some_and(|ready| *ready);
            let bytes = if is_ready { read(fd) } else { return true };
            let more = !bytes.is_empty();
            if more && told.is_ok() {
                told = frame(bytes).send(line);
            }
            more
        });
        told.context("tell the host")?;
    }
}

/// What is there; nothing at the end.
fn read(fd: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let read = fd.try_clone().map(File::from).and_then(|mut file| file.read(&mut bytes));
    bytes.truncate(read.unwrap_or(0));
    bytes
}
