//! `shimctl bench`: times shims against each other.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shim_client::{
    Daemon, EventServer, Limits, Rootfs, ShimBinary, runtime_options, unmount_below,
};
use tokio::sync::watch;

use super::Global;
use super::print;
use crate::bench::{Plan, Report, Scenario, Stop, Subject, to_json, to_table, write_plots};
use crate::session::Signals;
use crate::values::parse_size;

/// Time shims against each other, in one run and in turn
///
/// Each round takes every shim through the same, and each begins with another one. The tables have
/// medians, 95th percentiles, and the medians' ratio to the first shim's. Everything is taken away
/// again, also after a failure or an interrupt.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Scenarios and their rows:
  life     one container, phase after phase: shim start, connect, create, start, exec (to its
           Start's reply), exec end (wait and delete), kill (until Wait answers), delete, clean up;
           contract is shim start + connect + create + start; memory while it runs
  idle     the same with a pause of --gap before each phase
  many     --count containers at once, each with its shim: until all run, until all are gone;
           running and gone are the same until so many were
  density  1, 10, 25, 50, 100 and so on up to --containers idle ones: sums over their shims, and
           what one more container takes
  stdio    --bytes from stdout and into stdin of a process, an eighth of it from a terminal, and
           --lines there and back through cat, one by one

Memory is that of the shims and their helpers, never the containers'. \"private memory\" leaves out
what a shim and its own helper share; \"pss dirty\" counts it, once.

Examples:
  shimctl bench --shim native=io.containerd.native.v2
  shimctl bench --shim ours=./a --shim go=./containerd-shim-runc-v2,BinaryName=/usr/bin/crun
  shimctl bench --shim a=./a --shim b=./b --scenario life,idle,many --json out.json --svg plots")]
pub(super) struct Arguments {
    /// A shim: a name for the report, its path or runtime name, and its runtime options
    #[arg(long = "shim", required = true, value_name = "NAME=SHIM[,OPTION=VALUE]")]
    shims: Vec<Named>,
    /// What to measure; several with commas between them
    #[arg(long = "scenario", value_enum, value_delimiter = ',', default_value = "life")]
    scenarios: Vec<Scenario>,
    /// The root filesystem: host, a directory or an image; it needs sleep and true, for stdio also
    /// cat and dd
    #[arg(long, default_value = "host")]
    rootfs: String,
    /// Rounds that count, for each shim, of life and idle
    #[arg(long, default_value = "50")]
    rounds: NonZeroUsize,
    /// The same of many, density and stdio, whose rounds take seconds; else 5, 1 and 3
    #[arg(long, value_name = "ROUNDS")]
    slow_rounds: Option<NonZeroUsize>,
    /// Rounds before these; of many and stdio at most one, of density none
    #[arg(long, default_value_t = 3)]
    warm_up: usize,
    /// How long to pause before each phase of idle, and before density looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100)]
    gap: u64,
    /// How many containers many starts at once
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = at_least_one)]
    count: usize,
    /// Up to how many containers density goes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    containers: usize,
    /// Have the containers of density share one shim
    #[arg(long)]
    grouped: bool,
    /// `density`: the containers have streams by fifos, with a client at each
    #[arg(long)]
    streams: bool,
    /// How much stdio moves each way
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = parse_size)]
    bytes: u64,
    /// How many lines stdio sends there and back
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
    lines: usize,
    /// Write everything to a file, too, with every sample
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw it, too: SVG files in a directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

fn at_least_one(text: &str) -> Result<usize> {
    Ok(text.parse::<NonZeroUsize>()?.get())
}

#[derive(Clone, Debug)]
struct Named {
    name: String,
    shim: String,
    options: Vec<(String, String)>,
}

impl FromStr for Named {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let first = parts.next().and_then(|first| first.split_once('='));
        let Some((name, shim)) = first else { bail!("{text:?}: expected NAME=SHIM") };
        let options = parts.map(|part| {
            let (key, value) = part.split_once('=').context("expected OPTION=VALUE")?;
            Ok((key.to_owned(), value.to_owned()))
        });
        let options = options.collect::<Result<_>>().with_context(|| text.to_owned())?;
        Ok(Self { name: name.to_owned(), shim: shim.to_owned(), options })
    }
}

impl Named {
    fn subject(&self) -> Result<Arc<Subject>> {
        let binary = ShimBinary::resolve(&self.shim)?;
        // Pages of a file just written count as dirty in whoever maps them, until they are on disk.
        File::open(binary.path())
            .and_then(|file| file.sync_all())
            .with_context(|| format!("write {} to disk", binary.path().display()))?;
        let options = runtime_options(&binary, &self.options)?;
        Ok(Arc::new(Subject { name: self.name.clone(), binary, options }))
    }
}

pub(super) async fn bench(global: &Global, arguments: &Arguments) -> Result<u8> {
    let store = global.store()?;
    let subjects: Vec<Arc<Subject>> =
        arguments.shims.iter().map(Named::subject).collect::<Result<_>>()?;
    allow_many_files()?;
    let id = format!("bench-{}", std::process::id());
    let folder = store.claim(&id)?;
    let events = EventServer::bind(&folder.join("events")).await?;
    let mut daemon = global.daemon(&store, &id, global.generation, folder.join("events"))?;
    daemon.limits = patience(&daemon);
    let measured = measure(global, arguments, &subjects, daemon, folder.clone()).await;
    drop(events);
    // Through a mount that is left, the removal would go on into somebody's root filesystem.
    unmount_below(&folder).context("unmount what is left")?;
    store.forget(&id)?;
    let report = measured?;
    if let Some(path) = &arguments.json {
        fs::write(path, format!("{:#}\n", to_json(&report)))
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(folder) = &arguments.svg {
        write_plots(&report, folder)?;
    }
    print::line(to_table(&report).trim_end())?;
    Ok(0)
}

async fn measure(
    global: &Global,
    arguments: &Arguments,
    subjects: &[Arc<Subject>],
    daemon: Daemon,
    folder: PathBuf,
) -> Result<Report> {
    let mut signals = Signals::catch()?;
    let (request, requested) = watch::channel(false);
    tokio::spawn(async move {
        signals.end().await;
        print::line_to_stderr("interrupted: the containers are taken away");
        // Without a receiver everything has ended by itself.
        let _ = request.send(true);
    });
    let plan = Plan {
        daemon,
        rootfs: Rootfs::open(&arguments.rootfs, &global.cache, &|_, _, _| {})?,
        folder,
        rounds: arguments.rounds,
        slow_rounds: arguments.slow_rounds,
        warm_up: arguments.warm_up,
        gap: Duration::from_millis(arguments.gap),
        count: arguments.count,
        containers: arguments.containers,
        grouped: arguments.grouped,
        streams: arguments.streams,
        bytes: arguments.bytes,
        lines: arguments.lines,
        stop: Stop::new(requested),
        tell: print::line_to_stderr,
    };
    Box::pin(Arc::new(plan).measure(subjects, &arguments.scenarios)).await
}

/// A shim that shares two CPUs with a hundred others is slow, not broken.
fn patience(daemon: &Daemon) -> Limits {
    let minutes = Duration::from_secs(120);
    Limits { start: minutes, clean_up: minutes, shutdown: minutes, ..daemon.limits }
}

/// Each container is a connection, a log and a child's pipes to us.
fn allow_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")
}
