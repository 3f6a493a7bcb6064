//! What a process holds at a moment, and whether it holds more and more.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Found, Sharing};
use crate::procs;

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sample {
    /// Resident memory in KiB.
    pub rss: u64,
    /// Memory in KiB that is its alone and written to.
    pub dirty: u64,
    /// Open descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

impl Sample {
    /// Looks at a process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let dirty = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).context("list the descriptors")?;
        Ok(Self {
            rss: kib(&procs::status(pid, "VmRSS")?),
            dirty: kib(dirty.unwrap_or_default()),
            fds: fds.count() as u64,
            threads: kib(&procs::status(pid, "Threads")?),
        })
    }
}

/// The number in front of `kB`.
fn kib(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What was seen of some lives one after the other.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many there were.
    pub cycles: u32,
    /// How long each took, the shortest first.
    pub latencies: Vec<Duration>,
    /// The shim: at rest after the batch where it is shared, else with its last container.
    pub shim: Sample,
    /// Its stem at the same time.
    pub stem: Sample,
}

/// A thing that must not grow.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// What it is called.
    pub name: &'static str,
    /// In what it is counted.
    pub unit: &'static str,
    /// How to read it off.
    pub read: fn(&Batch) -> u64,
    /// How much the last quarter may lie above the second, on average. Memory comes in pages, and
    /// an allocator's free lists settle slowly; what leaks in each cycle is far above that.
    tolerance: f64,
}

/// Everything that is watched.
pub const GAUGES: [Gauge; 8] = [
    Gauge { name: "shim, resident", unit: "KiB", read: |b| b.shim.rss, tolerance: 96.0 },
    Gauge { name: "shim, private dirty", unit: "KiB", read: |b| b.shim.dirty, tolerance: 64.0 },
    Gauge { name: "stem, resident", unit: "KiB", read: |b| b.stem.rss, tolerance: 96.0 },
    Gauge { name: "stem, private dirty", unit: "KiB", read: |b| b.stem.dirty, tolerance: 64.0 },
    Gauge { name: "shim, descriptors", unit: "", read: |b| b.shim.fds, tolerance: 0.5 },
    Gauge { name: "stem, descriptors", unit: "", read: |b| b.stem.fds, tolerance: 0.5 },
    Gauge { name: "shim, threads", unit: "", read: |b| b.shim.threads, tolerance: 0.1 },
    Gauge { name: "stem, threads", unit: "", read: |b| b.stem.threads, tolerance: 0.1 },
];

/// The average of a gauge in each quarter of a soak.
#[must_use]
pub fn quarters(batches: &[Batch], gauge: &Gauge) -> [f64; 4] {
    let length = (batches.len() / 4).max(1);
    [0, 1, 2, 3].map(|quarter| {
        let values = batches.iter().skip(quarter * length).take(length).map(gauge.read);
        let (sum, count) = values.fold((0, 0u32), |(sum, count), value| (sum + value, count + 1));
        // A sum of a few thousand KiB is exact in a float of 52 bits.
        f64::from(u32::try_from(sum).unwrap_or(u32::MAX)) / f64::from(count.max(1))
    })
}

impl Found {
    /// Whether anything has grown from the second quarter to the last.
    ///
    /// The first quarter is the time in which allocators and tables reach their size.
    ///
    /// # Errors
    /// What has grown.
    pub fn judge(&self) -> Result<()> {
        let grown = GAUGES.iter().filter_map(|gauge| {
            let [_, second, _, last] = quarters(&self.batches, gauge);
            let by = last - second;
            (by > gauge.tolerance).then(|| format!("{} by {by:.1} {}", gauge.name, gauge.unit))
        });
        let grown: Vec<String> = grown.collect();
        if !grown.is_empty() {
            let who = match self.plan.sharing {
                Sharing::One => "the shim of all",
                Sharing::None => "from shim to shim",
            };
            bail!("{who}: grown from the second quarter to the last: {}", grown.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::Plan;

    fn found(fds: impl Fn(u64) -> u64) -> Found {
        let sample = |number| Sample { rss: 4000, dirty: 900, fds: fds(number), threads: 1 };
        let batch = |number| Batch {
            cycles: 1,
            latencies: Vec::new(),
            shim: sample(number),
            stem: Sample::default(),
        };
        let plan = Plan { cycles: 40, at_once: 1, sharing: Sharing::One };
        Found { plan, took: Duration::ZERO, batches: (0..40).map(batch).collect() }
    }

    #[test]
    fn what_settles_early_has_not_grown_and_what_goes_on_has() {
        found(|number| number.min(9)).judge().unwrap();
        let grown = found(|number| number / 10).judge().unwrap_err().to_string();
        assert!(grown.contains("shim, descriptors by 2.0"), "{grown}");
    }
}
