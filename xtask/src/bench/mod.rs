//! `cargo xtask bench`: our shim beside its peers and beside the floor, judged by what we want.
//!
//! `shimctl bench` measures shims, `integration`'s `through` lives under containerd, and
//! `benches/floor.c` what the kernel alone takes. This builds and runs them, prints a line a target,
//! and writes `docs/performance.md`. A target that is missed fails nothing; a measurement that
//! fails does.

mod floor;
mod found;
mod judge;
mod machine;
mod page;
mod run;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};

use self::{found::Scenario, judge::Verdict, run::Tools};
use crate::{peers::Peers, sh};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Lives back to back.
    life: usize,
    /// Lives with pauses.
    idle: usize,
    /// Lives through containerd, and as many with pauses.
    through: usize,
    /// Rounds of many at once, and how many.
    many: [usize; 2],
    /// Idle containers of each shim.
    containers: usize,
    /// Idle containers of ours alone.
    alone: usize,
    /// Rounds of streams, and how much goes through them.
    stdio: (usize, &'static str),
}

const FULL: Sizes = Sizes {
    life: 100,
    idle: 50,
    through: 50,
    many: [5, 50],
    containers: 500,
    alone: 1000,
    stdio: (3, "1g"),
};

/// For a look: less than five minutes on two processors, once everything is built.
const QUICK: Sizes = Sizes {
    life: 20,
    idle: 6,
    through: 8,
    many: [1, 20],
    containers: 50,
    alone: 50,
    stdio: (1, "64m"),
};

impl Sizes {
    fn describe(self) -> String {
        let Self { life, idle, through, many: [rounds, many], containers, alone, stdio } = self;
        let (_, bytes) = stdio;
        format!(
            "{life} lives back to back, {idle} with pauses, {through} through containerd, {many} at \
             once in {rounds} round, {containers} idle containers, {alone} of ours, {bytes} through streams"
        )
    }
}

/// Makes the root filesystem that containers are measured with.
pub(crate) fn rootfs(peers: &Peers) -> Result<PathBuf> {
    run::rootfs(peers)
}

/// Builds and fetches everything, measures, and judges; `--quick` measures less and writes no page.
pub(crate) fn bench(arguments: &[&str]) -> Result<ExitCode> {
    let (sizes, is_quick) = match arguments {
        [] => (FULL, false),
        ["--quick"] => (QUICK, true),
        _ => bail!("bench takes no argument but --quick"),
    };
    let peers = Peers::fetch()?;
    let tools = Tools::build(&peers)?;
    let mut scenarios = Vec::new();
    let mut failed = Vec::new();
    for measurement in tools.measurements(sizes) {
        println!("== {}", measurement.title());
        match tools.measure(&measurement) {
            Ok(measured) => scenarios.extend(measured),
            Err(error) => {
                println!("{} failed: {error:#}", measurement.title());
                failed.push(measurement.title());
            }
        }
    }
    let verdicts = judge::judge(&scenarios);
    println!();
    for verdict in &verdicts {
        println!("{}", verdict.cells().join(" | "));
    }
    if is_quick {
        println!("\n--quick: {}. No page was written.", sizes.describe());
    } else if failed.is_empty() {
        write_page(&machine::describe(&peers)?, &scenarios, &verdicts)?;
    }
    let is_whole = failed.is_empty() && verdicts.iter().all(Verdict::is_measured);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_page(machine: &str, scenarios: &[Scenario], verdicts: &[Verdict]) -> Result<()> {
    let docs = sh::root().join("docs");
    for plot in scenarios.iter().flat_map(|scenario| &scenario.plots) {
        let (from, to) = (run::plots().join(plot), docs.join(page::file_of(plot)));
        std::fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    let path = docs.join("performance.md");
    std::fs::write(&path, page::write(machine, scenarios, verdicts))
        .with_context(|| format!("write {}", path.display()))?;
    println!("\nwrote {}", path.display());
    Ok(())
}
