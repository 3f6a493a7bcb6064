//! What an idle shim holds, and what a busy one used, by /proc (proc(5)).
//!
//! A shim is its process and the helpers that it keeps beside it, but never a container's.

use std::collections::HashSet;
use std::fs;
use std::ops::{Add, Sub};
use std::time::Duration;

use anyhow::{Context, Result};

/// What a shim holds: memory in KiB, and numbers of things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Pages that only one process has mapped: `Private_Clean` and `Private_Dirty`.
    ///
    /// Pages that a shim and a helper forked from it share are in no process's sum.
    pub(super) private: u64,
    /// Those of them that were written to.
    pub(super) private_dirty: u64,
    /// Pages written to, each divided by how many processes have it: `Pss_Dirty`.
    ///
    /// What a shim and its own helper share is counted once in their sum, as it has to be.
    pub(super) pss_dirty: u64,
    /// All pages, each divided by how many processes have it.
    pub(super) pss: u64,
    /// Threads.
    pub(super) threads: u64,
    /// Open descriptors.
    pub(super) fds: u64,
}

impl Add for Held {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            private: self.private + more.private,
            private_dirty: self.private_dirty + more.private_dirty,
            pss_dirty: self.pss_dirty + more.pss_dirty,
            pss: self.pss + more.pss,
            threads: self.threads + more.threads,
            fds: self.fds + more.fds,
        }
    }
}

impl Held {
    /// Sums over shims and their helpers; `tasks` are the first processes of what is not theirs.
    ///
    /// # Errors
    /// When a shim is gone, or its memory can't be read.
    pub(super) fn by(shims: &HashSet<u32>, tasks: &HashSet<u32>) -> Result<Self> {
        let held = each_of(shims, tasks, Self::by_process)?;
        Ok(held.into_iter().fold(Self::default(), Add::add))
    }

    fn by_process(pid: u32) -> Result<Self> {
        let rollup = read(&format!("/proc/{pid}/smaps_rollup"))?;
        let entries = |what: &str| -> Result<u64> {
            let path = format!("/proc/{pid}/{what}");
            let entries = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
            Ok(entries.count() as u64)
        };
        Ok(Self {
            private: field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:"),
            private_dirty: field(&rollup, "Private_Dirty:"),
            pss_dirty: field(&rollup, "Pss_Dirty:"),
            pss: field(&rollup, "Pss:"),
            threads: entries("task")?,
            fds: entries("fd")?,
        })
    }
}

/// CPU time that a shim and its helpers have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CpuTime(Duration);

impl CpuTime {
    /// Sums over a shim and its helpers; `tasks` are the first processes of what is not the shim's.
    ///
    /// # Errors
    /// When a shim is gone.
    pub(super) fn by(shims: &HashSet<u32>, tasks: &HashSet<u32>) -> Result<Self> {
        let times = each_of(shims, tasks, Self::of_process)?;
        Ok(Self(times.into_iter().sum()))
    }

    /// The threads' sum is exact, but without the threads that have ended; the process's has them,
    /// in ticks that are rounded down. So each is too small at worst.
    fn of_process(pid: u32) -> Result<Duration> {
        let mut exact = Duration::ZERO;
        for thread in entries_of(pid, "task")? {
            // A thread may end meanwhile.
            let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"));
            exact += on_cpu(&text.unwrap_or_default());
        }
        Ok(exact.max(in_ticks(&read(&format!("/proc/{pid}/stat"))?)))
    }
}

impl Sub for CpuTime {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Looks at the shims and at what descends from them, but at no container's process.
fn each_of<T>(
    shims: &HashSet<u32>,
    tasks: &HashSet<u32>,
    look: impl Fn(u32) -> Result<T>,
) -> Result<Vec<T>> {
    let mut pids: Vec<u32> = shims.iter().copied().collect();
    let (mut seen, mut at) = (Vec::new(), 0);
    while let Some(pid) = pids.get(at).copied() {
        at += 1;
        match children(pid).and_then(|children| Ok((children, look(pid)?))) {
            Ok((children, value)) => {
                pids.extend(children.into_iter().filter(|child| !tasks.contains(child)));
                seen.push(value);
            }
            Err(error) if shims.contains(&pid) => return Err(error),
            // A helper that has done its work meanwhile.
            Err(_) => {}
        }
    }
    Ok(seen)
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for thread in entries_of(pid, "task")? {
        // A thread may end meanwhile, and its children are another's then.
        let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"));
        let text = text.unwrap_or_default();
        children.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(children)
}

fn entries_of(pid: u32, what: &str) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/{what}");
    let entries = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// The first number of a `schedstat`: nanoseconds on a CPU.
fn on_cpu(schedstat: &str) -> Duration {
    let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// User and system time of a `stat`, its fields 14 and 15. A tick is 10 ms to user space, whatever
/// the kernel's own is.
fn in_ticks(stat: &str) -> Duration {
    // The name in brackets may hold anything, brackets and blanks too.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_kib() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  8692 kB\nPss:   7297 kB\n\
                    Pss_Dirty: 1 kB\nPrivate_Dirty:       852 kB\n";
        assert_eq!(field(text, "Pss:"), 7297);
        assert_eq!(field(text, "Private_Dirty:"), 852);
        assert_eq!(field(text, "Swap:"), 0);
    }

    #[test]
    fn times_are_read_from_both_files() {
        assert_eq!(on_cpu("1500000 20 3\n"), Duration::from_micros(1500));
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 12 30 5 6 20 0 1 0 99";
        assert_eq!(in_ticks(stat), Duration::from_millis(420));
    }

    #[test]
    fn a_process_of_our_own_can_be_looked_at() {
        let own = HashSet::from([std::process::id()]);
        let held = Held::by(&own, &HashSet::new()).unwrap();
        assert!(held.pss >= held.pss_dirty && held.private >= held.private_dirty, "{held:?}");
        assert!(held.threads > 0 && held.fds > 0, "{held:?}");
    }
}
