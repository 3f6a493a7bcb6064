//! A lane's own process: runs the tests of one engine one after the other.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::args::Args;
use super::{Skip, Test, Verdict, say};
use crate::cgroups;
use crate::cri::config::Runtime;
use crate::engine::Engine;
use crate::lane::Lane;
use crate::leaks::{self, Snapshot};
use crate::wait;

/// How long a test may take. None needs a tenth of it on a quiet machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs what was selected; the report goes to standard output.
pub(super) fn run(
    argument: &str,
    tests: &[Test],
    runtimes: &'static [Runtime],
    args: &Args,
) -> Result<()> {
    let (name, mark) = argument.split_once(' ').context("no lane is named")?;
    let engine = Engine::ALL.into_iter().find(|engine| engine.name() == name);
    let engine = engine.with_context(|| format!("no engine is called {name}"))?;
    remember_panics();
    let result = run_all(engine, mark, runtimes, &args.select(engine, tests));
    // Also after a failure: what is frozen would keep this lane from ending.
    result.and(cgroups::sweep(|name| name == mark))
}

fn run_all(
    engine: Engine,
    mark: &str,
    runtimes: &'static [Runtime],
    tests: &[(String, Test)],
) -> Result<()> {
    let lane = Arc::new(Lane::open(engine, mark, runtimes)?);
    tests.iter().try_for_each(|(name, test)| {
        let passed = run_one(&lane, name, *test)?;
        let alive = lane.daemon().is_alive();
        if !alive {
            say(&format!("note: {engine}: containerd has died"));
        }
        // Whatever went wrong, the next test is not to suffer from it.
        if passed && alive { Ok(()) } else { lane.renew() }
    })?;
    if lane.lost_outputs() > 0 {
        say(&format!("note: {engine}: {} runs lost their output", lane.lost_outputs()));
    }
    Ok(())
}

/// Runs a test, looks for leaks, and reports; false when it failed.
fn run_one(lane: &Arc<Lane>, name: &str, test: Test) -> Result<bool> {
    let before = Snapshot::take(lane.mark())?;
    let logged = lane.log().len();
    let start = Instant::now();
    let outcome = with_limit(lane, test, &before).and_then(|()| {
        let leaks = before.leaks(|| lane.shim().forgive())?;
        let list: String = leaks.iter().map(|leak| format!("\n    {leak}")).collect();
        if leaks.is_empty() { Ok(()) } else { bail!("left behind:{list}") }
    });
    let resisting = leaks::clean(&before)?;
    let time = start.elapsed().as_secs_f32();
    let (verdict, text) = match &outcome {
        Ok(()) => (Verdict::Passed, format!(" ({time:.1}s)")),
        Err(error) if error.is::<Skip>() => (Verdict::Skipped, format!(": {error}")),
        Err(error) => {
            (Verdict::Failed, format!(" ({time:.1}s)\n{}", indent(&format!("{error:#}"))))
        }
    };
    say(&format!("test {name} ... {}{text}", verdict.word()));
    if verdict == Verdict::Failed {
        let log = lane.log();
        say(&indent(&last_lines(log.get(logged..).unwrap_or_default(), 40)));
    }
    for leak in resisting {
        say(&format!("note: cannot be removed: {leak}"));
    }
    Ok(verdict != Verdict::Failed)
}

/// Runs a test in a thread. After the limit all it has started is killed, which ends the thread.
fn with_limit(lane: &Arc<Lane>, test: Test, before: &Snapshot) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    let shared = Arc::clone(lane);
    thread::spawn(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(|| test.run(&shared)));
        let result = result.unwrap_or_else(|_| Err(anyhow!("{}", PANIC.take())));
        // Nobody listens when the limit is long over.
        let _ = sender.send(result);
    });
    let limit = wait::patient(LIMIT);
    match receiver.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Disconnected) => bail!("the test's thread vanished"),
        Err(RecvTimeoutError::Timeout) => {
            leaks::clean(before)?;
            let last = receiver.recv_timeout(limit);
            let last = last.ok().and_then(Result::err).map(|error| format!(": {error:#}"));
            bail!("it did not end within {limit:?}{}", last.unwrap_or_default())
        }
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps where and why a test panicked, for its report.
fn remember_panics() {
    panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Sets lines off from the report's own.
pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    | {line}\n")).collect::<String>().trim_end().to_owned()
}
