//! The commands. Each file has one, with its arguments and what it does.

mod bench;
mod conform;
mod events;
mod exec;
mod info;
mod kill;
mod print;
mod ps;
mod rm;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use shim_client::{Bundle, Container, Daemon, Generation, LogTo, Record, Shim, ShimBinary, Store};

/// What a shell and Docker's command line use for a failure of their own.
const OWN_FAILURE: u8 = 125;

/// Run any containerd shim without containerd.
///
/// shimctl does what containerd does for a container: it makes the bundle, executes the shim,
/// serves the events socket, makes the calls in containerd's order, and cleans up.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  shimctl run host -- sh -c 'id; hostname'        a first container, nothing to download
  shimctl run -t host -- bash                     a shell in it
  shimctl run --memory 64m --cpus 0.5 busybox.tar an image saved by docker or podman
  shimctl run --shim io.containerd.runc.v2 host -- true
                                                  another shim, by containerd's name or a path
  shimctl run -d --name web host -- sleep 1h      left running; then:
  shimctl exec -t web -- sh
  shimctl kill web TERM
  shimctl rm -f web
  shimctl conform --shim ./containerd-shim-mine-v1 whether a shim keeps the contract

Each command has its own --help. shimctl needs root."
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// Where running containers are kept
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/shimctl")]
    root: PathBuf,
    /// containerd's namespace, a part of every container's name
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Where unpacked images are kept
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/cache/shimctl")]
    cache: PathBuf,
    /// containerd's generation to act like: 1.6, 1.7, 2.0, 2.2 or 2.3
    #[arg(long = "as", global = true, value_name = "VERSION", default_value_t)]
    generation: Generation,
    /// Tell each step and show the shim's log; twice: have the shim log in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Arguments>),
    Exec(exec::Arguments),
    Kill(kill::Arguments),
    Ps(ps::Arguments),
    Rm(rm::Arguments),
    Events(events::Arguments),
    Info(info::Arguments),
    Bench(bench::Arguments),
    Conform(conform::Arguments),
}

/// Reads the command line, runs the command and turns its outcome into an exit code.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    print::log_to_stderr(arguments.global.verbose);
    match execute(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print::line_to_stderr(&format!("{error:#}"));
            ExitCode::from(OWN_FAILURE)
        }
    }
}

fn execute(arguments: &Arguments) -> Result<u8> {
    if let Command::Conform(arguments) = &arguments.command {
        // Before there is a runtime, and with it threads.
        conform::prepare(arguments)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let global = &arguments.global;
    let code = runtime.block_on(async {
        match &arguments.command {
            Command::Run(arguments) => Box::pin(run::run(global, arguments)).await,
            Command::Exec(arguments) => exec::exec(global, arguments).await,
            Command::Kill(arguments) => kill::kill(global, arguments).await,
            Command::Ps(arguments) => ps::ps(global, arguments).await,
            Command::Rm(arguments) => rm::rm(global, arguments).await,
            Command::Events(_) => events::events(global).await,
            Command::Info(arguments) => info::info(arguments).await,
            Command::Bench(arguments) => Box::pin(bench::bench(global, arguments)).await,
            Command::Conform(arguments) => Box::pin(conform::conform(global, arguments)).await,
        }
    });
    // A thread may still wait for our own stdin; nothing else is left to wait for.
    runtime.shutdown_background();
    code
}

impl Global {
    fn store(&self) -> Result<Store> {
        if !nix::unistd::geteuid().is_root() {
            anyhow::bail!("shimctl makes mounts, namespaces and cgroups: run it as root");
        }
        Store::open(&self.root, &self.namespace)
    }

    /// The containerd to pose as towards the shim of that container.
    fn daemon(
        &self,
        store: &Store,
        id: &str,
        generation: Generation,
        events: PathBuf,
    ) -> Result<Daemon> {
        let mut daemon = store.daemon(generation, events)?;
        daemon.debug = self.verbose > 1;
        daemon.log = match self.verbose {
            0 => LogTo::File(log_file(store, id)),
            _ => LogTo::Stderr,
        };
        Ok(daemon)
    }
}

fn log_file(store: &Store, id: &str) -> PathBuf {
    store.folder(id).join("shim.log")
}

/// A container of an earlier command, found again.
struct Found {
    record: Record,
    daemon: Daemon,
    binary: ShimBinary,
    bundle: Bundle,
}

impl Found {
    fn find(global: &Global, store: &Store, id: &str) -> Result<Self> {
        let record = store.load(id)?;
        let generation = record.generation.parse().context("the record's generation")?;
        let daemon = global.daemon(store, id, generation, record.events.clone())?;
        let binary = ShimBinary::resolve(&record.shim.display().to_string())?;
        let bundle = Bundle::open(&store.bundle(id))?;
        Ok(Self { record, daemon, binary, bundle })
    }

    async fn connect(&self) -> Result<Container> {
        let answer = match &self.record.answer {
            Some(answer) => answer.clone(),
            None => self.bundle.kept_answer()?,
        };
        let shim = Shim::connect(&self.daemon, &self.binary, &self.bundle, answer).await?;
        Ok(Container::of_running(shim))
    }

    /// Connects, or says what to do about a shim that is gone.
    async fn connect_alive(&self) -> Result<Container> {
        let id = &self.record.id;
        self.connect().await.with_context(|| {
            format!("the shim of {id} is gone; `shimctl rm {id}` cleans up after it")
        })
    }
}

/// An exit status as an exit code; shims send nothing above 255.
fn exit_code(status: u32) -> u8 {
    u8::try_from(status).unwrap_or(u8::MAX)
}
