//! The init process as a bundle records it, for a `delete` that comes after the shim's death.
//!
//! A pid may have been given to another process meanwhile: the time of its start (proc_pid_stat(5),
//! field 22) tells.

use std::{
    fs,
    io::Read,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::reaper::{open_pid, signal_pidfd};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{Bundle, Pid, Signal},
};

const FILE: &str = "init.pid";
/// containerd gives `delete` five seconds.
const LIMIT: Duration = Duration::from_secs(4);

/// Records the init process in its bundle.
///
/// # Errors
/// What could not be read or written.
pub(crate) fn record(bundle: &Bundle, pid: Pid) -> Result<()> {
    let start = start_time(pid)?;
    // Half of it says nothing, so there is no need to write it aside and rename it.
    let path = bundle.path().join(FILE);
    fs::write(&path, format!("{pid} {start}\n"))
        .with_context(|| format!("write {}", path.display()))
}

/// The init process that a bundle records, alive or not.
pub(crate) fn recorded(bundle: &Bundle) -> Option<(Pid, u64)> {
    let text = fs::read_to_string(bundle.path().join(FILE)).ok()?;
    let (pid, start) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((Pid::new(pid.parse().ok()?).ok()?, start.parse().ok()?))
}

/// Kills the init process that a bundle records, and waits until it is gone. That there is none, or
/// that its pid is another's now, is fine.
///
/// # Errors
/// `TimedOut` when it would not go.
pub fn kill_recorded(bundle: &Bundle) -> Result<()> {
    let Some((pid, start)) = recorded(bundle) else { return Ok(()) };
    let Ok(pidfd) = open_pid(pid) else { return Ok(()) };
    // The pidfd holds the process: what is compared is what is killed.
    if start_time(pid).ok() != Some(start) {
        return Ok(());
    }
    match signal_pidfd(&pidfd, Signal::KILL) {
        Err(err) if err.kind() == Kind::NotFound => return Ok(()),
        sent => sent?,
    }
    wait_gone(pidfd, Instant::now() + LIMIT).with_context(|| format!("end process {pid}"))
}

/// Waits until the process behind a pidfd has ended, child or not.
///
/// # Errors
/// `TimedOut` when it has not by the deadline.
pub fn wait_gone(pidfd: impl AsFd, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left) {
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err).context("wait for a process to end"),
            Ok(0) => return Err(Error::new(Kind::TimedOut, "the process would not end")),
            Ok(_) => return Ok(()),
        }
    }
}

/// When a process started, in clock ticks since boot: with its pid it names one process for ever.
///
/// # Errors
/// When there is no such process.
pub fn start_time(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    // One read, where the library would ask for a size that the kernel does not know.
    let mut stat = [0; 1024];
    let read = fs::File::open(&path).and_then(|mut file| file.read(&mut stat));
    let length = read.with_context(|| format!("read {path}"))?;
    let stat = String::from_utf8_lossy(&stat[..length]);
    // The name, in parentheses, may hold anything: fields are counted behind it.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let start = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
    start.ok_or_else(|| Error::other(format!("{path} has no start time")))
}
