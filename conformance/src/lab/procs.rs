//! Processes, as `/proc` shows them.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A process and its parent.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) state: char,
    pub(crate) name: String,
}

/// The process of that number.
pub(crate) fn find(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(") ")?;
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let name = head.split_once('(')?.1.to_owned();
    Some(Process { pid, parent, state, name })
}

/// Whether it runs; a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(find).is_some_and(|process| !"ZX".contains(process.state))
}

/// Everything below this very process: shims, what they started, and orphans of theirs.
pub(crate) fn descendants() -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let all: HashMap<i32, Process> = all().map(|process| (process.pid, process)).collect();
    let below = |process: &&Process| {
        let mut at = process.parent;
        while let Some(parent) = all.get(&at) {
            if at == own {
                return true;
            }
            at = parent.parent;
        }
        false
    };
    all.values().filter(below).cloned().collect()
}

fn all() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| find(entry.file_name().to_str()?.parse().ok()?))
}

/// Sends a signal to a process that the suite has caused to exist.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).context("a pid")?;
    anyhow::ensure!(pid > 1, "{pid} is not to be signalled");
    kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {pid}"))
}

/// Collects orphans that have ended. Only while no command of ours runs: its status would be lost.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status.pid().is_none() {
            return;
        }
    }
}

/// Runs commands, and collects orphans that end meanwhile, as the host's first process does: a
/// container's own first process cannot end before the ones that entered it are collected.
pub(crate) async fn while_reaping<T>(commands: impl Future<Output = T>) -> T {
    // None of these is a command of ours, whose status would be lost.
    let known: Vec<Pid> =
        descendants().into_iter().map(|process| Pid::from_raw(process.pid)).collect();
    let mut commands = std::pin::pin!(commands);
    loop {
        tokio::select! {
            done = &mut commands => return done,
            () = tokio::time::sleep(Duration::from_millis(2)) => {}
        }
        for pid in &known {
            // Most are children of others.
            let _ = waitpid(*pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Kills everything below this very process.
pub(crate) async fn kill_descendants() {
    let gone = || {
        for process in descendants() {
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => log::warn!("kill {}: {errno}", process.pid),
            }
        }
        reap();
        descendants().is_empty()
    };
    if !super::eventually(Duration::from_secs(5), gone).await {
        log::warn!("processes survive SIGKILL: {:?}", descendants());
    }
}

/// How many descriptors a process has open.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    let folder = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&folder).with_context(|| format!("read {folder}"))?.count())
}

/// How many threads a process has.
pub(crate) fn threads(pid: u32) -> Result<usize> {
    let folder = format!("/proc/{pid}/task");
    Ok(fs::read_dir(&folder).with_context(|| format!("read {folder}"))?.count())
}

/// A line of `/proc/PID/status`, such as `VmRSS`, in its first number: KiB for sizes.
pub(crate) fn status(pid: u32, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {key} in {path}"))
}

/// Bytes that a process has written so far.
pub(crate) fn written(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}
