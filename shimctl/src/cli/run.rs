//! `shimctl run`: one container, from a root filesystem to its exit status.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use shim_client::{
    BindMount, Bundle, CallError, Container, Creation, Daemon, EventServer, Fifos, Record, Rootfs,
    Shape, ShimBinary, Sinks, Store, Streams, Waiting, clean_up_dead, is_served, now, random_id,
    runtime_options,
};

use super::print::ProgressLine;
use super::{Global, exit_code, log_file, print};
use crate::session::{Session, Signals};
use crate::terminal::RawMode;
use crate::values::{parse_cpus, parse_pair, parse_size};

mod plan;

/// The project's own shim.
pub(super) const DEFAULT_SHIM: &str = "io.containerd.native.v2";

/// Run a container
///
/// In the foreground its exit status becomes shimctl's, and nothing is left behind. Signals go to
/// the container; three interrupts in a row kill it. Where shimctl itself fails, the status is 125.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
ROOTFS is one of
  host           the root of this machine; what the container writes is thrown away
  DIRECTORY      a root filesystem as it is; what the container writes stays
  IMAGE          an OCI layout (directory or tar file), or a tar file by `docker save`

Examples:
  shimctl run host -- sh -c 'echo $HOSTNAME; exit 3'
  shimctl run -t --memory 64m --pids 20 host -- bash
  shimctl run alpine.tar                          the image's own command
  shimctl run --seccomp profile.json host -- make test
  shimctl run --mount /srv:/srv:ro --net host host -- ls /srv
  shimctl run --shim io.containerd.runc.v2 --binary-name crun host -- true
  shimctl run --as 1.6 -v --shim ./my-shim host -- true")]
pub(super) struct Arguments {
    /// The shim: a runtime name or a path
    #[arg(long, value_name = "PATH|NAME", default_value = DEFAULT_SHIM)]
    shim: String,
    /// The container's id; made up if not given
    #[arg(long, value_name = "ID")]
    name: Option<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it running and print its id
    #[arg(short, long)]
    detach: bool,
    /// Remove it when it ends; always so in the foreground
    #[arg(long)]
    rm: bool,
    /// Most memory, such as 64m
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Most CPU time, such as 0.5
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    cpus: Option<i64>,
    /// Most processes
    #[arg(long, value_name = "COUNT")]
    pids: Option<i64>,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// User, or user:group, by name or number
    #[arg(short, long)]
    user: Option<String>,
    /// Name of the host as the container sees it; the id if not given
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Forbid writes to the root filesystem
    #[arg(long)]
    read_only: bool,
    /// Its network: an empty one of its own, or the host's
    #[arg(long, value_enum, default_value = "none")]
    net: Network,
    /// What it may call: the usual calls, all of them, or what a profile in OCI terms says
    #[arg(long, value_name = "default|unconfined|FILE", default_value = "default")]
    seccomp: Seccomp,
    /// Take off what is usual for all: the filter of calls, masked and read-only paths, no_new_privs
    #[arg(long, conflicts_with = "seccomp")]
    unconfined: bool,
    /// Show a path of the host in the container; may be repeated
    #[arg(long, value_name = "SRC:DST[:ro]", value_parser = BindMount::parse)]
    mount: Vec<BindMount>,
    /// Set an annotation; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    annotation: Vec<(String, String)>,
    /// An option of the runtime, such as SystemdCgroup=true; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    runtime_option: Vec<(String, String)>,
    /// The OCI runtime that the shim is to drive; short for --runtime-option BinaryName=
    #[arg(long, value_name = "NAME")]
    binary_name: Option<String>,
    /// Where a detached container's output goes, such as file:///tmp/log
    #[arg(long, value_name = "URI", requires = "detach")]
    log_uri: Option<String>,
    /// What its root filesystem is made from
    rootfs: String,
    /// What to execute, after --; an image has a command of its own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Which system calls are left to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seccomp {
    Default,
    Unconfined,
    File(PathBuf),
}

impl From<&str> for Seccomp {
    fn from(text: &str) -> Self {
        match text {
            "default" => Self::Default,
            "unconfined" => Self::Unconfined,
            file => Self::File(file.into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Network {
    None,
    Host,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> Result<u8> {
    if arguments.detach && arguments.tty && arguments.log_uri.is_none() {
        bail!("-d -t: a terminal that nobody reads would block the container; add --log-uri");
    }
    let store = global.store()?;
    let binary = ShimBinary::resolve(&arguments.shim)?;
    log::debug!("shim {}", binary.path().display());
    let progress = ProgressLine::new();
    let rootfs = Rootfs::open(&arguments.rootfs, &global.cache, &|layer, layers, bytes| {
        progress.show(layer, layers, bytes);
    })?;
    drop(progress);

    let id = match &arguments.name {
        Some(name) => name.clone(),
        None => random_id()?,
    };
    let folder = store.claim(&id)?;
    let job = Job { global, arguments, store: &store, binary, folder, id: &id };
    let outcome =
        if arguments.detach { job.detached(&rootfs).await } else { job.foreground(&rootfs).await };
    if store.bundle(&id).exists() {
        // What could not be taken away needs its record, and the overlay's folders.
        if !arguments.detach {
            log::warn!("{id} is not wholly removed: `shimctl rm -f {id}` tries again");
        }
    } else {
        store.forget(&id)?;
    }
    outcome
}

/// One container to run, named and claimed.
struct Job<'a> {
    global: &'a Global,
    arguments: &'a Arguments,
    store: &'a Store,
    binary: ShimBinary,
    /// Ours alone, outside the bundle.
    folder: PathBuf,
    id: &'a str,
}

impl Job<'_> {
    async fn foreground(&self, rootfs: &Rootfs) -> Result<u8> {
        let mut signals = Signals::catch()?;
        let (daemon, events) = self.private_daemon().await?;
        self.store.save(&self.record(&daemon))?;
        let shape = if self.arguments.tty { Shape::Terminal } else { Shape::Pipes };
        let fifos = Fifos::create(&self.folder.join("fifos/init"), shape)?;
        let mut streams = Streams::open(&fifos, own_stdio()?)?;
        let input = own_stdin()?;

        let mut creation = self.creation(rootfs)?;
        creation.stdin = fifos.stdin();
        creation.stdout = fifos.stdout();
        creation.stderr = fifos.stderr();
        let bundle = self.bundle(rootfs)?;
        let (container, waiting) = self.start(&daemon, bundle.clone(), creation).await?;

        let raw = own_terminal(shape);
        let session = Session { container: &container, exec_id: "", shape };
        let ended = session.attend(&mut signals, &mut streams, Some(input), waiting).await;
        let status = match ended {
            Ok(ended) => container.remove().await.map(|()| ended.exit_status),
            Err(error) => {
                log::warn!("{error}: cleaning up");
                drop(container);
                clean_up_dead(&daemon, &self.binary, &bundle).await.map(|ended| ended.exit_status)
            }
        };
        streams.finish(daemon.limits.drain).await;
        drop(raw);
        if let Some(events) = events {
            events.close().await;
        }
        Ok(exit_code(status?))
    }

    async fn detached(&self, rootfs: &Rootfs) -> Result<u8> {
        let daemon = self.daemon(self.store.events_socket())?;
        self.store.save(&self.record(&daemon))?;
        let mut creation = self.creation(rootfs)?;
        creation.stdout = self.arguments.log_uri.clone().unwrap_or_default();
        if !self.arguments.tty {
            creation.stderr = creation.stdout.clone();
        }
        let bundle = self.bundle(rootfs)?;
        let (container, waiting) = self.start(&daemon, bundle, creation).await?;
        waiting.abort();
        container.leave().await;
        if self.arguments.rm {
            self.remove_later()?;
        }
        print::line(self.id)?;
        Ok(0)
    }

    fn daemon(&self, events: PathBuf) -> Result<Daemon> {
        self.global.daemon(self.store, self.id, self.global.generation, events)
    }

    /// A daemon with an events service of its own, unless `shimctl events` is there to see them.
    async fn private_daemon(&self) -> Result<(Daemon, Option<EventServer>)> {
        let shared = self.store.events_socket();
        if is_served(&shared) {
            return Ok((self.daemon(shared)?, None));
        }
        let path = self.folder.join("events.sock");
        let server = EventServer::bind(&path).await?;
        Ok((self.daemon(path)?, Some(server)))
    }

    fn creation(&self, rootfs: &Rootfs) -> Result<Creation> {
        let mut options = self.arguments.runtime_option.clone();
        if let Some(name) = &self.arguments.binary_name {
            options.push(("BinaryName".to_owned(), name.clone()));
        }
        Ok(Creation {
            rootfs: rootfs.mounts(&self.folder.join("rootfs"))?,
            terminal: self.arguments.tty,
            options: runtime_options(&self.binary, &options)?,
            ..Creation::default()
        })
    }

    fn bundle(&self, rootfs: &Rootfs) -> Result<Bundle> {
        let spec = plan::spec(self.arguments, rootfs, &self.global.namespace, self.id)?;
        let work = self.folder.join("work");
        Bundle::create(&self.store.bundles(), self.id, &work, Some(&spec))
    }

    /// Creates and starts the container, and completes its record.
    async fn start(
        &self,
        daemon: &Daemon,
        bundle: Bundle,
        creation: Creation,
    ) -> Result<(Container, Waiting)> {
        let command = plan::command(&bundle)?;
        let container = match Container::create(daemon, &self.binary, bundle, creation).await {
            Ok(container) => container,
            Err(error) => return Err(self.with_shim_log(error)),
        };
        let answer = Some(container.shim().answer.clone());
        let started = container.start("").await.and_then(|(pid, waiting)| {
            self.store.save(&Record { answer, pid, command, ..self.record(daemon) })?;
            Ok(waiting)
        });
        match started {
            Ok(waiting) => Ok((container, waiting)),
            Err(error) => {
                if let Err(left) = container.remove_by_force().await {
                    log::warn!("clean up after {}: {left:#}", self.id);
                }
                Err(self.with_shim_log(error))
            }
        }
    }

    /// The record by which later commands find the container, as far as it is known at first.
    fn record(&self, daemon: &Daemon) -> Record {
        Record {
            id: self.id.to_owned(),
            shim: self.binary.path().to_owned(),
            generation: daemon.generation.to_string(),
            answer: None,
            events: daemon.ttrpc_address.clone(),
            pid: 0,
            command: self.arguments.args.clone(),
            rootfs: self.arguments.rootfs.clone(),
            created_at: now(),
        }
    }

    /// Adds what the shim logged to an error that it caused.
    fn with_shim_log(&self, error: anyhow::Error) -> anyhow::Error {
        // A refusal says itself what is wrong.
        if error.downcast_ref::<CallError>().is_some_and(|error| error.code().is_some()) {
            return error;
        }
        let mut text = format!(
            "{error:#}\nshimctl posed as containerd {}; for a shim of another age add --as 1.6, 1.7, \
             2.0 or 2.3",
            self.global.generation
        );
        let logged = std::fs::read_to_string(log_file(self.store, self.id)).unwrap_or_default();
        let lines: Vec<&str> = logged.lines().collect();
        if !lines.is_empty() {
            text.push_str("\nthe shim's log ends with:");
        }
        for line in &lines[lines.len().saturating_sub(10)..] {
            text.push_str("\n  ");
            text.push_str(line);
        }
        anyhow::Error::msg(text)
    }

    /// Leaves a process behind that removes the container when it ends.
    fn remove_later(&self) -> Result<()> {
        let path = |path: &Path| path.as_os_str().to_owned();
        std::process::Command::new(std::env::current_exe().context("find our own executable")?)
            .args([std::ffi::OsStr::new("--root"), &path(&self.global.root)])
            .args(["--namespace", &self.global.namespace, "rm", "--wait", "--background", self.id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start `shimctl rm --wait`")?;
        Ok(())
    }
}

/// Our own stdout and stderr, without Rust's buffers in between.
pub(super) fn own_stdio() -> Result<Sinks> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().context("duplicate stdout")?;
    let stderr = io::stderr().as_fd().try_clone_to_owned().context("duplicate stderr")?;
    Ok(Sinks { stdout: Box::new(File::from(stdout)), stderr: Box::new(File::from(stderr)) })
}

/// The terminal that we are in, made raw, when the process has one too.
///
/// A terminal that refuses is no reason to end a process that runs already.
pub(super) fn own_terminal(shape: Shape) -> Option<RawMode> {
    if shape == Shape::Pipes {
        return None;
    }
    let terminal = io::stdin().as_fd().try_clone_to_owned().context("duplicate stdin");
    terminal.and_then(RawMode::enter).unwrap_or_else(|error| {
        log::warn!("{error:#}");
        None
    })
}

/// Our own stdin, likewise.
pub(super) fn own_stdin() -> Result<File> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().context("duplicate stdin")?;
    Ok(File::from(stdin))
}
