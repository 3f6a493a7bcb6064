//! Runs the tests: one lane an engine, a time limit a test, a leak check after each.
//!
//! libtest knows no skip and no limit, and its tests share one process; hence this. It reads
//! libtest's arguments where they make sense here, and its own closing line is
//! `N passed, N failed, N skipped`.

mod args;
mod inside;

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::cri::config::Runtime;
use crate::cri::stage::Stage;
use crate::debs::{Deb, Patched, Store};
use crate::engine::Engine;
use crate::isolation::{self, Step};
use crate::lane::Lane;
use crate::shim::Shim;
use crate::{cgroups, procs};
use args::Args;
pub(crate) use args::words;
pub(crate) use inside::{indent, last_lines};

/// A test: it runs once for each engine.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Module and function, without the crate.
    pub name: &'static str,
    /// What it does.
    pub run: Run,
}

/// What a test gets.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// The lane.
    Lane(fn(&Lane) -> Result<()>),
    /// A lane that makes pods, of that runtime.
    Pods(fn(&Stage<'_>) -> Result<()>, Runtime),
}

impl Test {
    /// A test of pods made by a runtime.
    #[must_use]
    pub fn of_pods((name, run): PodTest, runtime: Runtime) -> Self {
        Self { name, run: Run::Pods(run, runtime) }
    }

    fn run(self, lane: &Lane) -> Result<()> {
        match self.run {
            Run::Lane(run) => run(lane),
            Run::Pods(run, runtime) => run(&Stage::open(lane, runtime)?),
        }
    }

    /// What its name has behind the engine's, and before its module's.
    fn prefix(self) -> String {
        match self.run {
            Run::Lane(_) => String::new(),
            Run::Pods(_, runtime) => format!("{}::", runtime.handler),
        }
    }
}

/// A test of pods: its module and function, and what it does. It runs once for each engine and
/// runtime.
pub type PodTest = (&'static str, fn(&Stage<'_>) -> Result<()>);

/// The reason of a test that cannot run here: return it as the error.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// Lists the tests of a module in a constant `TESTS`.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this module.
        pub(crate) const TESTS: &[$crate::runner::Test] = &[
            $($crate::runner::Test {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: $crate::runner::Run::Lane($name),
            }),*
        ];
    };
}

/// Lists the tests of a module that are about pods in a constant `TESTS`.
#[macro_export]
macro_rules! pod_tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this module.
        pub(crate) const TESTS: &[$crate::runner::PodTest] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}

/// How a test ended, as the first word of its line says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Verdict {
    const ALL: [(Self, &str); 3] =
        [(Self::Passed, "ok"), (Self::Failed, "FAILED"), (Self::Skipped, "SKIPPED")];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(verdict, _)| *verdict == self).map_or("", |(_, word)| *word)
    }

    /// Reads `test NAME ... WORD…`.
    pub(crate) fn of_line(line: &str) -> Option<(&str, Self)> {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let verdict = Self::ALL.into_iter().find(|(_, word)| rest.starts_with(word))?.0;
        Some((name, verdict))
    }
}

/// The `main` of a test executable.
#[must_use]
pub fn main(groups: &[&[Test]]) -> ExitCode {
    act(&groups.concat(), &[])
}

/// The `main` of a test executable whose tests are all about pods: of each of the runtimes.
#[must_use]
pub fn main_of_pods(groups: &[&[PodTest]], runtimes: &'static [Runtime]) -> ExitCode {
    let of = |runtime: &Runtime| {
        let runtime = *runtime;
        groups.concat().into_iter().map(move |test| Test::of_pods(test, runtime))
    };
    act(&runtimes.iter().flat_map(of).collect::<Vec<_>>(), runtimes)
}

fn act(tests: &[Test], runtimes: &'static [Runtime]) -> ExitCode {
    let args = Args::of_process();
    let result = isolation::step().and_then(|step| match step {
        Step::Done(code) => Ok(code),
        Step::Inside(lane) => {
            inside::run(&lane, tests, runtimes, &args).map(|()| ExitCode::SUCCESS)
        }
        Step::Outside if args.list => list(tests, &args).map(|()| ExitCode::SUCCESS),
        Step::Outside => run(tests, runtimes, &args),
    });
    result.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn list(tests: &[Test], args: &Args) -> Result<()> {
    let mut out = io::stdout().lock();
    for name in Engine::ALL.into_iter().flat_map(|engine| args.select(engine, tests)) {
        writeln!(out, "{}: test", name.0)?;
    }
    Ok(())
}

/// Prepares what the lanes need, runs them, and counts.
fn run(tests: &[Test], runtimes: &[Runtime], args: &Args) -> Result<ExitCode> {
    let lanes: VecDeque<(Engine, Vec<String>)> = Engine::ALL
        .into_iter()
        .map(|engine| (engine, args.select(engine, tests)))
        .filter(|(_, names)| !names.is_empty())
        .map(|(engine, names)| (engine, names.into_iter().map(|(name, _)| name).collect()))
        .collect();
    let total = Total::default();
    if geteuid().is_root() {
        Shim::under_test().build()?;
        if let Err(error) = cgroups::sweep(is_abandoned) {
            say(&format!("note: left by an earlier run: {error:#}"));
        }
        let debs: Vec<_> = lanes.iter().flat_map(|(engine, _)| needed(*engine, runtimes)).collect();
        // Lanes that have all they need run nevertheless.
        let fetched = Store::open().fetch(&debs);
        fetch_programs(&lanes);
        let lanes = Mutex::new(lanes);
        thread::scope(|scope| {
            for _ in 0..args.threads {
                scope.spawn(|| {
                    while let Some((engine, names)) = next(&lanes) {
                        match lacks(engine, runtimes, &fetched) {
                            None => run_lane(engine, runtimes, &names, args, &total),
                            Some(why) => total.add_all(&names, Verdict::Skipped, &why),
                        }
                    }
                });
            }
        });
    } else {
        for (_, names) in lanes {
            total.add_all(&names, Verdict::Skipped, "they need root");
        }
    }
    Ok(total.close())
}

/// Fetches the programs that some tests drive; those skip what did not come.
fn fetch_programs(lanes: &VecDeque<(Engine, Vec<String>)>) {
    let store = Store::open();
    let has = |part| lanes.iter().flat_map(|(_, names)| names).any(|name| name.contains(part));
    let runtimes = || Patched::CRUN.fetch(&store).and(store.fetch(&[Deb::RUNSC]));
    let fetched = [
        if has("external::") { runtimes() } else { Ok(()) },
        if has("checkpoint::") { Patched::CRIU.fetch(&store).map(drop) } else { Ok(()) },
    ];
    for error in fetched.into_iter().filter_map(Result::err) {
        say(&format!("note: {error:#}"));
    }
}

fn next<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    queue.lock().ok()?.pop_front()
}

/// Runs one engine's tests in a process of their own, and sees that none goes missing.
fn run_lane(engine: Engine, runtimes: &[Runtime], names: &[String], args: &Args, total: &Total) {
    let mut seen = Vec::new();
    let result = stream(engine, runtimes, args, |line| {
        if let Some((name, verdict)) = Verdict::of_line(line) {
            seen.push(name.to_owned());
            total.count(name, verdict);
        }
        say(line);
    });
    let why = result.err().map_or("the lane ended early".to_owned(), |error| format!("{error:#}"));
    total.add_all(names.iter().filter(|name| !seen.contains(name)), Verdict::Failed, &why);
}

/// The packages of a lane.
fn needed(engine: Engine, runtimes: &[Runtime]) -> Vec<Deb> {
    let mut debs = vec![engine.deb(), Deb::BUSYBOX, Deb::RUNC];
    debs.extend((!runtimes.is_empty()).then_some(Deb::CNI));
    debs
}

/// Why a lane cannot run, if it cannot.
fn lacks(engine: Engine, runtimes: &[Runtime], fetched: &Result<()>) -> Option<String> {
    let store = Store::open();
    let missing = needed(engine, runtimes).into_iter().find_map(|deb| store.unpacked(deb).err())?;
    let why = fetched.as_ref().err().map(|error| format!(": {error:#}")).unwrap_or_default();
    Some(format!("{missing}{why}"))
}

/// A lane's mark: unique on this machine at this time, and one word to containerd.
fn mark(engine: Engine) -> String {
    format!("{engine}p{}", process::id())
}

/// Whether a cgroup is the mark of a run that was killed before its end.
fn is_abandoned(name: &str) -> bool {
    let pid = Engine::ALL.iter().find_map(|engine| name.strip_prefix(engine.name()));
    let pid = pid.and_then(|rest| rest.strip_prefix('p')?.parse().ok());
    pid.is_some_and(|pid| procs::find(pid).is_none())
}

/// Runs a lane's process and hands over its lines.
fn stream(
    engine: Engine,
    runtimes: &[Runtime],
    args: &Args,
    mut each: impl FnMut(&str),
) -> Result<()> {
    let mut command = isolation::command(&format!("{engine} {}", mark(engine)))?;
    if !runtimes.is_empty() {
        command = isolation::with_own_network(command);
    }
    let mut child = command
        .args(&args.passed_on)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start a lane")?;
    for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
        each(&line?);
    }
    let status = child.wait()?;
    anyhow::ensure!(status.success(), "the lane: {status}");
    Ok(())
}

/// The count of each verdict, and who did not pass.
#[derive(Debug, Default)]
pub(crate) struct Total(Mutex<Vec<(String, Verdict)>>);

impl Total {
    pub(crate) fn count(&self, name: &str, verdict: Verdict) {
        self.0.lock().expect("no holder panics").push((name.to_owned(), verdict));
    }

    pub(crate) fn add_all<'a>(
        &self,
        names: impl IntoIterator<Item = &'a String>,
        verdict: Verdict,
        why: &str,
    ) {
        // One line a test, whatever apt or a shim had to say.
        let why = why.replace('\n', "; ");
        for name in names {
            self.count(name, verdict);
            say(&format!("test {name} ... {}: {why}", verdict.word()));
        }
    }

    pub(crate) fn close(self) -> ExitCode {
        let all = self.0.into_inner().expect("no holder panics");
        let of = |verdict| all.iter().filter(move |(_, v)| *v == verdict);
        let count = |verdict| of(verdict).count();
        for (name, verdict) in of(Verdict::Skipped).chain(of(Verdict::Failed)) {
            say(&format!("{} {name}", verdict.word()));
        }
        let failed = count(Verdict::Failed);
        let (passed, skipped) = (count(Verdict::Passed), count(Verdict::Skipped));
        say(&format!("\n{passed} passed, {failed} failed, {skipped} skipped"));
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Prints whole lines: lanes run side by side.
pub fn say(text: &str) {
    // A closed pipe is no reason to fail.
    let _ = writeln!(io::stdout().lock(), "{text}");
}
