//! Runs the matrix: a lane a cell, some at once, and a line each as other tests have it.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `FAULTS_ROUNDS` | rounds a cell | 2 |
//! | `FAULTS_AT_ONCE` | lanes at once | 4: most of the time they wait |
//! | `FAULTS_REPORT` | the file for the page | none is written |

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::process::{self, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::events;
use super::matrix::Cell;
use super::report::{self, Verdict};
use super::round::{self, Turn};
use super::stage::Stage;
use crate::debs::{Deb, Store};
use crate::isolation::{self, Step};
use crate::runner::Skip;
use crate::shim::Shim;
use crate::{cgroups, procs, wait};

/// How long a round may take at the very most.
const ROUND: Duration = Duration::from_secs(60);

/// A test beside the matrix, in a lane of its own too.
#[derive(Clone, Copy, Debug)]
pub struct Extra {
    /// Its name.
    pub name: &'static str,
    /// What it does with the lane's mark.
    pub run: fn(&str) -> Result<()>,
}

/// What a lane is for.
#[derive(Clone, Copy, Debug)]
enum Job {
    Cell(Cell),
    Extra(Extra),
}

impl Job {
    fn name(self) -> String {
        match self {
            Self::Cell(cell) => cell.to_string(),
            Self::Extra(extra) => extra.name.to_owned(),
        }
    }
}

/// The `main` of the test executable.
#[must_use]
pub fn main(extras: &[Extra]) -> ExitCode {
    if let Some(served) = events::serve() {
        return if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cells = Cell::all().into_iter().map(Job::Cell);
    let jobs: Vec<Job> = cells.chain(extras.iter().copied().map(Job::Extra)).collect();
    let done = isolation::step().and_then(|step| match step {
        Step::Done(code) => Ok(code),
        Step::Inside(argument) => inside(&argument, &jobs),
        Step::Outside => outside(&jobs),
    });
    done.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// A lane's own process: prints a line of JSON for the process outside.
fn inside(argument: &str, jobs: &[Job]) -> Result<ExitCode> {
    let words: Vec<&str> = argument.split(' ').collect();
    let [name, mark] = words[..] else { bail!("{argument:?} is no lane") };
    let job = jobs.iter().find(|job| job.name() == name).context("no such cell")?;
    let line = match *job {
        Job::Cell(cell) => play(cell, mark),
        Job::Extra(extra) => {
            let wrong = (extra.run)(mark).err().map(|error| format!("{error:#}"));
            json!({ "rounds": 1, "inside": 0, "wrong": Vec::from_iter(wrong) })
        }
    };
    say(&line.to_string());
    Ok(ExitCode::SUCCESS)
}

fn play(cell: Cell, mark: &str) -> Value {
    let (mut rounds, mut inside, mut wrong) = (0, 0, Vec::new());
    let mut skipped = None;
    let result = (|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut stage = Stage::open(mark)?;
            // It tells how long the step takes; the very first one takes longer.
            round::unharmed(&mut stage, cell.step).await.context("unharmed")?;
            let usual = round::unharmed(&mut stage, cell.step).await.context("unharmed")?;
            let of = number("FAULTS_ROUNDS", 2);
            for number in 0..of {
                match round::play(&mut stage, cell, Turn { number, of, usual }).await {
                    Ok(landed) => inside += u32::from(landed),
                    Err(error) if error.is::<Skip>() => return Err(error),
                    Err(error) => wrong.push(format!("{error:#}")),
                }
                rounds += 1;
            }
            Ok(())
        })
    })();
    match result {
        Err(error) if error.is::<Skip>() => skipped = Some(error.to_string()),
        Err(error) => wrong.push(format!("{error:#}")),
        Ok(()) => {}
    }
    json!({ "rounds": rounds, "inside": inside, "wrong": wrong, "skipped": skipped })
}

/// Prepares, runs what was asked for, and reports.
fn outside(jobs: &[Job]) -> Result<ExitCode> {
    let jobs = asked_for(jobs);
    if env::args().any(|arg| arg == "--list") {
        jobs.iter().for_each(|job| say(&format!("{}: test", job.name())));
        return Ok(ExitCode::SUCCESS);
    }
    let store = Store::open();
    if let Some(why) = lacks(&store) {
        jobs.iter().for_each(|job| say(&format!("test {} ... SKIPPED: {why}", job.name())));
        say(&format!("\n0 passed, 0 failed, {} skipped", jobs.len()));
        return Ok(ExitCode::SUCCESS);
    }
    Shim::under_test().build()?;
    if let Err(error) = cgroups::sweep(is_abandoned) {
        say(&format!("note: left by an earlier run: {error:#}"));
    }
    let queue: Mutex<VecDeque<(usize, Job)>> = Mutex::new(jobs.into_iter().enumerate().collect());
    let verdicts = Mutex::new(Vec::new());
    let counts = Mutex::new([0, 0, 0]);
    thread::scope(|scope| {
        for _ in 0..number("FAULTS_AT_ONCE", 4) {
            scope.spawn(|| {
                while let Some((place, job)) = lock(&queue).pop_front() {
                    let (verdict, kind) = run_lane(place, job);
                    lock(&counts)[kind] += 1;
                    lock(&verdicts).extend(verdict);
                }
            });
        }
    });
    let [passed, failed, skipped] = *lock(&counts);
    say(&format!("\n{passed} passed, {failed} failed, {skipped} skipped"));
    if let Some(path) = env::var_os("FAULTS_REPORT") {
        let page = report::page(&lock(&verdicts), &machine());
        fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Those whose names contain one of the words on the command line; all without words.
fn asked_for(jobs: &[Job]) -> Vec<Job> {
    let words: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |job: &&Job| {
        words.is_empty() || words.iter().any(|word| job.name().contains(word.as_str()))
    };
    jobs.iter().filter(wants).copied().collect()
}

/// Why nothing can run here, if nothing can.
fn lacks(store: &Store) -> Option<String> {
    if !geteuid().is_root() {
        return Some("they need root".to_owned());
    }
    let fetched = store.fetch(&[Deb::BUSYBOX]);
    fetched.err().map(|error| format!("{error:#}").replace('\n', "; "))
}

/// Runs a job in a lane; the second value is 0 when it passed, 1 when it failed, 2 when it was
/// skipped.
fn run_lane(place: usize, job: Job) -> (Option<Verdict>, usize) {
    let begun = Instant::now();
    let mark = format!("faultp{}c{place}", process::id());
    let told = in_lane(&format!("{} {mark}", job.name()), job);
    // Also after a failure: what is frozen would stay.
    let swept = cgroups::sweep(|name| name == mark);
    let told = told.and_then(|told| swept.map(|()| told)).unwrap_or_else(
        |error| json!({ "rounds": 0, "inside": 0, "wrong": [format!("{error:#}")] }),
    );
    let wrong: Vec<String> = serde_json::from_value(told["wrong"].clone()).unwrap_or_default();
    let skipped = told["skipped"].as_str().map(str::to_owned);
    let (rounds, inside) = (&told["rounds"], &told["inside"]);
    let took = begun.elapsed().as_secs_f32();
    let (kind, text) = match (&skipped, wrong.as_slice()) {
        (Some(why), _) => (2, format!("SKIPPED: {why}")),
        (None, []) => (0, format!("ok ({rounds} rounds, {inside} inside, {took:.1}s)")),
        (None, wrong) => {
            let text = wrong.join("\n").replace('\n', "\n    | ");
            (1, format!("FAILED ({rounds} rounds, {took:.1}s)\n    | {text}"))
        }
    };
    say(&format!("test {} ... {text}", job.name()));
    let Job::Cell(cell) = job else { return (None, kind) };
    let (rounds, inside) = (rounds.as_u64().unwrap_or(0), inside.as_u64().unwrap_or(0));
    (Some(Verdict { cell, rounds, inside, wrong, skipped }), kind)
}

/// Runs a lane's process, and returns what it printed.
fn in_lane(argument: &str, job: Job) -> Result<Value> {
    let mut lane = isolation::command(argument)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start a lane")?;
    let mut out = lane.stdout.take().context("no pipe")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let rounds = if matches!(job, Job::Cell(_)) { number("FAULTS_ROUNDS", 2) } else { 2 };
    let ended = wait::until("the end of the lane", ROUND * (rounds + 2), || {
        lane.try_wait()?.context("it runs")
    });
    if ended.is_err() {
        // Everything in it ends with it.
        lane.kill()?;
        lane.wait()?;
    }
    let text = reader.join().ok().context("the lane's reader panicked")??;
    let status = ended?;
    let line = text.lines().last().with_context(|| format!("it says nothing: {status}"))?;
    serde_json::from_str(line).with_context(|| format!("it says {text:?}: {status}"))
}

/// Whether a cgroup is the mark of a run that was killed before its end.
fn is_abandoned(name: &str) -> bool {
    let rest = name.strip_prefix("faultp").and_then(|rest| rest.split_once('c'));
    let pid = rest.and_then(|(pid, _)| pid.parse().ok());
    pid.is_some_and(|pid| procs::find(pid).is_none())
}

/// On what a page's figures were taken.
#[must_use]
pub fn machine() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = release.trim().split('-').next().unwrap_or_default().to_owned();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {version}, {cpus} processors.")
}

fn number(name: &str, default: u32) -> u32 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints whole lines: lanes run side by side.
fn say(text: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{text}");
}
