//! Counts the system calls of a shim and its stem, by strace of Debian.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::subject::Pair;
use crate::debs::{Deb, Store};
use crate::procs;
use crate::runner::Skip;
use crate::session::Session;
use crate::wait::{self, SOON};

/// The packages that it takes.
pub(super) const DEBS: [Deb; 2] = [Deb::STRACE, Deb::UNWIND];

/// A program that counts.
#[derive(Debug)]
pub(super) struct Tracer {
    program: PathBuf,
    libraries: PathBuf,
}

impl Tracer {
    /// Finds it where it was fetched to.
    ///
    /// # Errors
    /// [`Skip`] when it was not.
    pub(super) fn find() -> Result<Self> {
        let store = Store::open();
        let unpacked = |deb| store.unpacked(deb).map_err(|error| Skip(format!("{error:#}")));
        let program = unpacked(Deb::STRACE)?.join("usr/bin/strace");
        let folder = unpacked(Deb::UNWIND)?.join("usr/lib");
        // Its only folder has the processor's name.
        let mut entries = fs::read_dir(&folder).context("look for strace's library")?;
        let libraries = entries.next().context("the library's package is empty")??.path();
        Ok(Self { program, libraries })
    }

    /// Begins to count what both do, and the processes that the stem makes from now on.
    ///
    /// # Errors
    /// [`Skip`] where this machine does not let it.
    pub(super) fn attach(&self, pair: Pair) -> Result<Trace> {
        let Pair { shim, stem } = pair;
        let mut command = Command::new(&self.program);
        command.args(["-c", "-U", "calls,name", "-f"]);
        command.args(["-p", &shim.to_string(), "-p", &stem.to_string()]);
        command.env("LD_LIBRARY_PATH", &self.libraries).env("LC_ALL", "C");
        let session = Session::start(command)?;
        let pid = session.pid().cast_signed();
        let attached = wait::until("strace at the shim", SOON, || {
            let is_traced = |pid| procs::status(pid, "TracerPid").map(|tracer| tracer != "0");
            let all = is_traced(shim)? && is_traced(stem)?;
            ensure!(all || !procs::runs(pid), "it has not attached");
            Ok(all)
        });
        if attached? {
            return Ok(Trace { session });
        }
        let output = session.finish(SOON)?;
        bail!(Skip(format!("strace: {}", output.stderr.trim())))
    }
}

/// Counting under way.
#[derive(Debug)]
pub(super) struct Trace {
    session: Session,
}

impl Trace {
    /// Lets go, and returns what was counted.
    pub(super) fn detach(self) -> Result<Calls> {
        let text = self.give_up()?;
        Calls::parse(&text).with_context(|| format!("strace says {text:?}"))
    }

    /// Lets go, and returns what strace has said: no summary at all when there was no call.
    pub(super) fn give_up(self) -> Result<String> {
        procs::signal(self.session.pid().cast_signed(), Signal::SIGINT)?;
        Ok(self.session.finish(SOON)?.stderr)
    }
}

/// How often each system call was made.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// Reads lines of `NUMBER NAME`, the last of which is the total.
    fn parse(text: &str) -> Result<Self> {
        let line = |line: &str| {
            let (number, name) = line.trim().split_once(char::is_whitespace)?;
            Some((name.trim().to_owned(), number.parse().ok()?))
        };
        let mut calls: BTreeMap<String, u64> = text.lines().filter_map(line).collect();
        let total = calls.remove("total").context("there is no total")?;
        let calls = Self(calls);
        ensure!(calls.total() == total, "{total} is not the sum");
        Ok(calls)
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each with its share of one of `operations`, the most frequent first.
    pub(super) fn table(&self, operations: u64) -> String {
        let mut all: Vec<(&String, &u64)> = self.0.iter().collect();
        all.sort_by_key(|&(name, count)| (std::cmp::Reverse(*count), name));
        let tenths = |count: &u64| count * 10 / operations;
        let word = |(name, count): (&String, &u64)| {
            format!("{name} {}.{}", tenths(count) / 10, tenths(count) % 10)
        };
        all.into_iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_without_its_head_and_other_lines() {
        let text = "strace: Process 7 attached\nstrace: Process 7 detached\n    calls syscall\n\
                    --------- ----------------\n       30 epoll_wait\n        5 read\n\
                    --------- ----------------\n       35 total\n";
        let calls = Calls::parse(text).unwrap();
        assert_eq!(calls.total(), 35);
        assert_eq!(calls.table(20), "epoll_wait 1.5, read 0.2");
    }

    #[test]
    fn a_summary_that_is_cut_off_is_none() {
        assert!(Calls::parse("       30 epoll_wait\n").is_err());
        assert!(Calls::parse("       30 epoll_wait\n       35 total\n").is_err());
    }
}
