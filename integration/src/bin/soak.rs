//! Lives by the thousand, and whether the shim stays as small as it was: `cargo xtask soak`.
//!
//! ```text
//! soak [--cycles N] [--at-once N] [--out DIR]
//! ```
//! With a shim of their own there are a tenth as many: each costs several times as much.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is its job")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use integration::cgroups;
use integration::debs::{Deb, Store};
use integration::faults::stage::Stage;
use integration::faults::{events, run};
use integration::isolation::{self, Step};
use integration::soak::{self, Plan, Sharing, report};

struct Arguments {
    cycles: u32,
    at_once: u32,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    act().unwrap_or_else(|error| {
        println!("soak: {error:#}");
        ExitCode::FAILURE
    })
}

fn act() -> Result<ExitCode> {
    if let Some(served) = events::serve() {
        return served.map(|()| ExitCode::SUCCESS);
    }
    match isolation::step()? {
        Step::Done(code) => Ok(code),
        Step::Inside(mark) => soak(&mark, &arguments()?).map(|()| ExitCode::SUCCESS),
        Step::Outside => {
            arguments()?;
            // Pages of a program just built count as dirty in whoever maps them, until they are on
            // disk.
            nix::unistd::sync();
            Store::open().fetch(&[Deb::BUSYBOX])?;
            let mark = format!("soakp{}", std::process::id());
            let arguments = std::env::args_os().skip(1);
            let status = isolation::command(&mark)?.args(arguments).status()?;
            // Those of a soak that failed would stay.
            cgroups::sweep(|name| name.starts_with(&mark))?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn soak(mark: &str, arguments: &Arguments) -> Result<()> {
    let Arguments { cycles, at_once, .. } = *arguments;
    let plans = [
        Plan { cycles, at_once, sharing: Sharing::One },
        Plan { cycles: (cycles / 10).max(1), at_once, sharing: Sharing::None },
    ];
    let mut soaks = Vec::new();
    let mut stage = Stage::open(mark)?;
    for plan in plans {
        let found;
        (stage, found) = soak::run(stage, plan)?;
        println!("{:?}: {}", plan.sharing, report::text(&found));
        soaks.push(found);
    }
    if let Some(out) = &arguments.out {
        report::write(out, &soaks, &run::machine())?;
    }
    soaks.iter().try_for_each(soak::Found::judge)
}

fn arguments() -> Result<Arguments> {
    let mut found = Arguments { cycles: 10_000, at_once: 8, out: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--cycles" => found.cycles = value.parse().context("--cycles")?,
            "--at-once" => found.at_once = value.parse().context("--at-once")?,
            "--out" => found.out = Some(value.into()),
            _ => bail!("{word} is no option: there are --cycles, --at-once and --out"),
        }
    }
    if found.cycles == 0 || found.at_once == 0 {
        bail!("there is nothing to do");
    }
    Ok(found)
}
