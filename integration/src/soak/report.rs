//! The soak as a page with plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use plot::{Labels, Line};

use super::sample::{Batch, GAUGES, quarters};
use super::{Found, Sharing};

/// Writes `soak.md` and its plots into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, soaks: &[Found], machine: &str) -> Result<()> {
    let mut page = INTRODUCTION.to_owned();
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{machine}\n");
    for found in soaks {
        let (name, title, text) = match found.plan.sharing {
            Sharing::One => ("one", "One shim for all", ONE),
            Sharing::None => ("own", "A shim for each", OWN),
        };
        let _ = writeln!(page, "## {title}\n\n{text}\n");
        summary(&mut page, found);
        for (kind, plot) in plots(found) {
            let file = format!("soak-{name}-{kind}.svg");
            fs::write(dir.join(&file), plot).with_context(|| format!("write {file}"))?;
            let _ = writeln!(page, "![{kind}]({file})\n");
        }
    }
    fs::write(dir.join("soak.md"), page.trim_end().to_owned() + "\n").context("write soak.md")
}

/// The figures of one soak, for a page or a terminal.
fn summary(page: &mut String, found: &Found) {
    let plan = found.plan;
    let seconds = found.took.as_secs_f64();
    let rate = f64::from(plan.cycles) / seconds;
    let mut all: Vec<Duration> =
        found.batches.iter().flat_map(|batch| batch.latencies.iter().copied()).collect();
    all.sort_unstable();
    let _ = writeln!(
        page,
        "{} cycles, {} at once: {seconds:.0} s, {rate:.0} cycles a second. A cycle takes {:.1} ms \
         (median), {:.1} ms (99 of 100), {:.1} ms (the longest). Nothing was left: no process, \
         mount, cgroup or file.\n",
        plan.cycles,
        plan.at_once,
        percentile(&all, 50),
        percentile(&all, 99),
        percentile(&all, 100),
    );
    page.push_str("| average of a quarter | 1st | 2nd | 3rd | 4th | 2nd to 4th |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for gauge in &GAUGES {
        let [first, second, third, last] = quarters(&found.batches, gauge);
        let unit = if gauge.unit.is_empty() { "" } else { " (KiB)" };
        let _ = writeln!(
            page,
            "| {}{unit} | {first:.1} | {second:.1} | {third:.1} | {last:.1} | {:+.1} |",
            gauge.name,
            last - second
        );
    }
    page.push('\n');
}

/// Prints what the page says of a soak.
#[must_use]
pub fn text(found: &Found) -> String {
    let mut text = String::new();
    summary(&mut text, found);
    text
}

fn plots(found: &Found) -> [(&'static str, String); 3] {
    let line = |name: &str, read: &dyn Fn(&Batch) -> f64| {
        let mut cycles = 0;
        let points = found.batches.iter().map(|batch| {
            cycles += batch.cycles;
            (f64::from(cycles), read(batch))
        });
        Line { name: name.to_owned(), points: points.collect() }
    };
    let gauge = |index: usize| {
        let gauge = &GAUGES[index];
        line(gauge.name, &|batch| f64::from(u32::try_from((gauge.read)(batch)).unwrap_or(u32::MAX)))
    };
    let memory = [0, 1, 2, 3].map(gauge);
    let tables = [4, 5, 6, 7].map(gauge);
    let times = [("median", 50), ("99 of 100", 99)]
        .map(|(name, percent)| line(name, &|batch| percentile(&batch.latencies, percent)));
    let draw =
        |title, unit, lines: &[Line]| plot::lines(Labels { title, below: "cycles", unit }, lines);
    [
        ("memory", draw("Memory", "KiB", &memory)),
        ("descriptors", draw("Descriptors and threads", "", &tables)),
        ("latency", draw("A cycle", "ms", &times)),
    ]
}

/// In milliseconds; the slice is sorted.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

const INTRODUCTION: &str = "\
# Soak

The same life again and again: Create, Start, an exec from Exec to Delete, Kill, Wait, Delete, some
at once, while the shim's memory, descriptors and threads are watched. Written by
`cargo xtask soak`, which fails when one of them grows from the second quarter to the last, when a
life fails, or when a process, a mount, a cgroup or a file is left at the end. The time of a cycle is
the client's, whose own work (the bundle, the fifos) shares the processors with the shim's.

";

const ONE: &str = "\
All containers carry the same `io.containerd.runc.v2.group`, so one shim makes them all. Each has a
connection of its own, as containerd's. The shim is looked at a hundred times, when it has no
container: what it holds then, it does not give back.";

const OWN: &str = "\
Each container has a shim, so a cycle begins with `start` and ends with Shutdown and `delete`. Once
in a batch a shim is looked at while its container runs; that it does not change from the first to
the last says that no shim leaves the next one anything.";
