//! Runs the budgets: one lane, a line each, and a failure if one is over.
//!
//! ```text
//! cargo test -p integration --test budgets [-- [NAME…] [--list] [--nocapture]]
//! ```
//! As root. A name runs the whole group in which a budget's name contains it; `--nocapture` prints
//! how often each system call was made.

use std::env;
use std::process::{self, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use super::binary::Judged;
use super::limits::{self, Budget};
use super::tally::{Tally, say};
use super::{calls, memory, processes, strace};
use crate::debs::{Deb, Store};
use crate::faults::stage::Stage;
use crate::faults::{after, events};
use crate::isolation::{self, Step};
use crate::leaks::Snapshot;
use crate::runner::words;
use crate::shim::Shim;
use crate::{cgroups, procs, wait};

/// How long all may take at the very most.
const LIMIT: Duration = Duration::from_secs(120);

/// Why what depends on the optimizer is not judged.
pub(super) const DEBUG: &str = "a debug build";

/// What is measured in one go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Group {
    Memory,
    Processes,
    Calls,
}

impl Group {
    const ALL: [Self; 3] = [Self::Memory, Self::Processes, Self::Calls];

    fn budgets(self) -> &'static [Budget] {
        match self {
            Self::Memory => &limits::MEMORY,
            Self::Processes => &limits::PROCESSES,
            Self::Calls => &limits::CALLS,
        }
    }
}

/// The `main` of the test executable.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(served) = events::serve() {
        return if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let done = isolation::step().and_then(|step| match step {
        Step::Done(code) => Ok(code),
        Step::Inside(argument) => inside(&argument),
        Step::Outside => outside(),
    });
    done.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Prepares, and runs the lane.
fn outside() -> Result<ExitCode> {
    let groups = asked_for();
    let budgets = || groups.iter().flat_map(|group| group.budgets());
    if env::args().any(|arg| arg == "--list") {
        budgets().for_each(|budget| say(&format!("{}: test", budget.name)));
        return Ok(ExitCode::SUCCESS);
    }
    let mut tally = Tally::default();
    let lacks = lacks();
    if groups.is_empty() || lacks.is_some() {
        let why = lacks.unwrap_or_default();
        groups.iter().for_each(|group| skip(&mut tally, *group, &why));
        return Ok(tally.close());
    }
    if let Err(error) = Store::open().fetch(&strace::DEBS) {
        say(&format!("NOTE: there is no strace: {error:#}"));
    }
    if let Err(error) = cgroups::sweep(is_abandoned) {
        say(&format!("note: left by an earlier run: {error:#}"));
    }
    let judged = Judged::choose()?;
    let mark = format!("budgetp{}", process::id());
    let code = lane(&mark, &judged);
    // Also after a failure: what is frozen would stay.
    cgroups::sweep(|name| name == mark)?;
    code
}

fn skip(tally: &mut Tally, group: Group, why: &str) {
    group.budgets().iter().for_each(|budget| tally.skip(budget, why));
}

/// Why nothing can run here, if nothing can.
fn lacks() -> Option<String> {
    if !geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    if Shim::under_test().is_go() {
        return Some("they are our own shim's".to_owned());
    }
    let fetched = Store::open().fetch(&[Deb::BUSYBOX]);
    fetched.err().map(|error| format!("{error:#}"))
}

fn lane(mark: &str, judged: &Judged) -> Result<ExitCode> {
    let build = if judged.is_release { "release" } else { "debug" };
    let mut lane = isolation::command(&format!("{mark} {build}"))?
        .args(env::args_os().skip(1))
        .env("SHIM_DIR", &judged.dir)
        .spawn()
        .context("start a lane")?;
    let ended = wait::until("the end of the lane", LIMIT, || lane.try_wait()?.context("it runs"));
    if ended.is_err() {
        // Everything in it ends with it.
        lane.kill()?;
        lane.wait()?;
    }
    Ok(if ended?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The lane's own process.
fn inside(argument: &str) -> Result<ExitCode> {
    let words: Vec<&str> = argument.split(' ').collect();
    let [mark, build] = words[..] else { bail!("{argument:?} is no lane") };
    let is_release = build == "release";
    let shows = env::args().any(|arg| arg == "--nocapture");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stage = Stage::open(mark)?;
        let mut tally = Tally::default();
        for group in asked_for() {
            let before = Snapshot::take(mark)?;
            match group {
                Group::Memory => {
                    Box::pin(memory::measure(&stage, is_release, &mut tally)).await?;
                    stage.options = processes::many(&stage)?;
                    Box::pin(memory::measure_many(&stage, is_release, &mut tally)).await?;
                    stage.options = None;
                }
                Group::Processes => Box::pin(processes::measure(&mut stage, &mut tally)).await?,
                Group::Calls if is_release => {
                    Box::pin(calls::measure(&stage, &mut tally, shows)).await?;
                }
                // Such a build asks the kernel about each descriptor before it closes it.
                Group::Calls => skip(&mut tally, group, DEBUG),
            }
            after::nothing_left(&mut stage, &before).await?;
        }
        Ok(tally.close())
    })
}

/// The groups that have a budget with one of the words of the command line in its name; all without
/// words.
fn asked_for() -> Vec<Group> {
    let words = words(env::args().skip(1));
    let wants = |budget: &Budget| words.iter().any(|word| budget.name.contains(word.as_str()));
    let mut groups = Group::ALL.to_vec();
    groups.retain(|group| words.is_empty() || group.budgets().iter().any(wants));
    groups
}

/// Whether a cgroup is the mark of a run that was killed before its end.
fn is_abandoned(name: &str) -> bool {
    let pid = name.strip_prefix("budgetp").and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| procs::find(pid).is_none())
}
