//! Lives through containerd 2.x, timed as its clients see them: `cargo xtask bench`.
//!
//! ```text
//! through --shim NAME=PATH[,OPTION=VALUE]... [--alone NAME]... [--rounds N] [--gap MS] --json FILE
//! ```
//! As root. `SHIM_DIR` has to name the folder of our own shim.

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command line tool")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use integration::debs::{Deb, Store};
use integration::engine::Engine;
use integration::isolation::{self, Step};
use integration::through::{self, Plan, Stage, Subject};
use integration::{cgroups, procs};

/// What the cgroups of a run are called; the number of its process follows.
const MARK: &str = "throughp";

struct Arguments {
    subjects: Vec<Subject>,
    alone: Vec<String>,
    plan: Plan,
    json: PathBuf,
}

fn main() -> ExitCode {
    act().unwrap_or_else(|error| {
        eprintln!("through: {error:#}");
        ExitCode::FAILURE
    })
}

fn act() -> Result<ExitCode> {
    match isolation::step()? {
        Step::Done(code) => Ok(code),
        Step::Inside(mark) => measure(&mark, &arguments()?).map(|()| ExitCode::SUCCESS),
        Step::Outside => {
            arguments()?;
            Store::open().fetch(&[Engine::V2.deb(), Deb::BUSYBOX, Deb::RUNC])?;
            cgroups::sweep(is_abandoned)?;
            let mark = format!("{MARK}{}", std::process::id());
            let arguments = std::env::args_os().skip(1);
            let status = isolation::command(&mark)?.args(arguments).status()?;
            // Those of a life that failed would stay.
            cgroups::sweep(|name| name.starts_with(&mark))?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Whether a cgroup is the mark of a run that was killed before its end.
fn is_abandoned(name: &str) -> bool {
    let pid = name.strip_prefix(MARK).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| procs::find(pid).is_none())
}

fn measure(mark: &str, arguments: &Arguments) -> Result<()> {
    let Arguments { subjects, alone, plan, json } = arguments;
    let stage = Stage::open(mark)?;
    let report = through::measure(&stage, *plan, subjects, alone)?;
    std::fs::write(json, format!("{report:#}\n"))
        .with_context(|| format!("write {}", json.display()))
}

fn arguments() -> Result<Arguments> {
    let (mut subjects, mut alone, mut json) = (Vec::new(), Vec::new(), None);
    let mut plan = Plan { rounds: 50, gap: Duration::ZERO };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--shim" => subjects.push(value.parse()?),
            "--alone" => alone.push(value),
            "--rounds" => plan.rounds = value.parse().context("--rounds")?,
            "--gap" => plan.gap = Duration::from_millis(value.parse().context("--gap")?),
            "--json" => json = Some(value.into()),
            _ => bail!("{word} is no option: --shim, --alone, --rounds, --gap and --json are"),
        }
    }
    ensure!(!subjects.is_empty() && plan.rounds > 0, "there is nothing to measure");
    Ok(Arguments { subjects, alone, plan, json: json.context("--json FILE is missing")? })
}
