//! Processes, as `/proc` shows them.

use std::time::Duration;
use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process. Its start time tells it from a later one with the same number.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Process {
    /// Its number in this PID namespace.
    pub pid: i32,
    started: u64,
    command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.command)
    }
}

/// Every process of this PID namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn all() -> Result<Vec<Process>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One that ended meanwhile is no process any more.
    Ok(pids.filter_map(find).collect())
}

/// The process of that number, if there is one. Zombies count: somebody has to reap them.
#[must_use]
pub fn find(pid: i32) -> Option<Process> {
    let started = stat(pid)?.get(19)?.parse().ok()?;
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut command = String::from_utf8_lossy(&cmdline).replace('\0', " ").trim().to_owned();
    if command.is_empty() {
        command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    }
    Some(Process { pid, started, command })
}

/// A process that was started with that argument, if there is one.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn with_argument(argument: &str) -> Result<Option<i32>> {
    let has = |process: &Process| process.command.split(' ').any(|word| word == argument);
    Ok(all()?.into_iter().find(has).map(|process| process.pid))
}

/// Whether a process runs; a zombie does not.
#[must_use]
pub fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// The process that started `pid`, or adopted it.
///
/// # Errors
/// When `pid` is gone.
pub fn parent(pid: i32) -> Result<i32> {
    let fields = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(fields.get(1).context("no parent in stat")?.parse()?)
}

/// The CPU time that a process itself has used.
///
/// # Errors
/// When it is gone.
pub fn cpu_time(pid: i32) -> Result<Duration> {
    let fields = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    let ticks = fields.get(11..13).context("no times in stat")?.iter();
    let ticks = ticks.map(|field| field.parse::<u64>()).sum::<Result<u64, _>>()?;
    // A tick of /proc is a hundredth of a second, whatever the kernel's own rate.
    Ok(Duration::from_millis(10 * ticks))
}

/// Sends a signal.
///
/// # Errors
/// When the process is gone.
pub fn signal(pid: i32, signal: Signal) -> Result<()> {
    ensure!(pid > 1, "{pid} is not to be signalled");
    kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {pid}"))
}

/// A line of `/proc/PID/status`, such as `Seccomp`.
///
/// # Errors
/// When the process or the line is missing.
pub fn status(pid: i32, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("no {key} in the status of {pid}"))?.trim().to_owned())
}

/// The fields of `/proc/PID/stat` behind the name, which may hold blanks: state, parent, …
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
