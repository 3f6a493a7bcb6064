//! The command line: what there is to say, and what becomes of it.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgAction, Parser, Subcommand};
use serde::Serialize;
use shim_core::{Context, Error, Kind, Result};
use shim_runc::runtime::{Driver, Files, Runtime, Supervisor};

use crate::{checkpoint, events, exec, life, log, look, spec, update};

/// Make and run OCI containers
#[derive(Debug, Parser)]
#[command(
    name = "shim-runc",
    version = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0"),
    disable_version_flag = true,
    after_help = "\
Example:
  mkdir -p demo/rootfs && cd demo     a bundle, and its root filesystem
  shim-runc spec                      its config.json, to be edited
  shim-runc run demo

The flags are runc's. docs/command-line.md says what differs."
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags of every verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Where the state of containers is kept, on a tmpfs
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where to log; errors go to standard error as well
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How to log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
    /// Log in detail
    #[arg(long)]
    debug: bool,
    /// Have systemd make cgroups; a cgroupsPath is SLICE:PREFIX:NAME then
    #[arg(long)]
    systemd_cgroup: bool,
    /// Do without what only the host's root may: cgroups that the spec does not name, files in /run
    #[arg(long, value_name = "true|false|auto", default_value = "auto")]
    rootless: String,
    /// The criu that saves and restores processes: an absolute path, or a name to look up in PATH
    #[arg(long, value_name = "FILE", default_value = "")]
    criu: String,
    /// Print the version
    #[arg(short, long, action = ArgAction::Version)]
    version: (),
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(life::Create),
    Start(life::Start),
    Run(life::Run),
    Exec(Box<exec::Arguments>),
    Kill(life::Kill),
    Delete(life::Delete),
    State(look::State),
    List(look::List),
    Ps(look::Ps),
    Pause(life::Pause),
    Resume(life::Resume),
    Update(Box<update::Arguments>),
    Events(events::Arguments),
    Spec(spec::Arguments),
    Features(look::Features),
    Checkpoint(Box<checkpoint::Checkpoint>),
    Restore(Box<checkpoint::Restore>),
}

/// Reads the command line, runs the verb and turns its outcome into an exit code.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            let is_error = told.use_stderr();
            // Nobody is left to be told of a stream that is closed.
            let _ = told.print();
            return ExitCode::from(u8::from(is_error));
        }
    };
    let global = &arguments.global;
    let done = log::install(global.log.as_deref(), global.log_format, global.debug)
        .and_then(|()| execute(&arguments));
    match done {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            log::tell(&err);
            // As runc: 1 could be the process's own.
            ExitCode::from(if matches!(arguments.verb, Verb::Exec(_)) { u8::MAX } else { 1 })
        }
    }
}

fn execute(arguments: &Arguments) -> Result<u8> {
    let Arguments { global, verb } = arguments;
    global.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let code = runtime.block_on(async {
        match verb {
            Verb::Create(create) => create.run(global).await.context("create"),
            Verb::Start(start) => start.run(global).await.context("start"),
            Verb::Run(run) => Box::pin(run.run(global)).await.context("run"),
            Verb::Exec(exec) => Box::pin(exec.run(global)).await.context("exec"),
            Verb::Kill(kill) => kill.run(global),
            Verb::Delete(delete) => delete.run(global).await,
            Verb::State(state) => state.run(global),
            Verb::List(list) => list.run(global),
            Verb::Ps(ps) => ps.run(global),
            Verb::Pause(pause) => pause.run(global).await,
            Verb::Resume(resume) => resume.run(global),
            Verb::Update(update) => update.run(global).await,
            Verb::Events(events) => events.run(global).await,
            Verb::Spec(spec) => spec.run(),
            Verb::Features(features) => features.run(),
            Verb::Checkpoint(checkpoint) => checkpoint.run(global).await.context("checkpoint"),
            Verb::Restore(restore) => Box::pin(restore.run(global)).await.context("restore"),
        }
    });
    // A thread may still wait for our own stdin; nothing else is left to wait for.
    runtime.shutdown_background();
    code
}

/// Says that a flag is not offered.
pub(crate) fn unsupported(what: &'static str) -> Error {
    Error::new(Kind::Unsupported, format!("{what} is not supported"))
}

impl Global {
    fn check(&self) -> Result<()> {
        if !matches!(self.rootless.as_str(), "true" | "false" | "auto") {
            return Err(Error::invalid(format!("--rootless {:?} is unknown", self.rootless)));
        }
        Ok(())
    }

    /// Who makes the cgroups of new containers.
    pub(crate) fn cgroups(&self) -> Driver {
        match (self.systemd_cgroup, self.is_rootless()) {
            (true, _) => Driver::Systemd,
            (false, true) => Driver::Nobody,
            (false, false) => Driver::Files,
        }
    }

    /// Who wants to hear from a program that it is ready, sd_notify(3).
    pub(crate) fn supervisor() -> Result<Option<Supervisor>> {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        socket.map(|socket| Supervisor::parse(&socket)).transpose()
    }

    /// Whether a user without the host's root calls, or is to be taken for one.
    fn is_rootless(&self) -> bool {
        match self.rootless.as_str() {
            "true" => true,
            "false" => false,
            _ => shim_runc::is_rootless(),
        }
    }

    /// The runtime, whose programs get no more files than the standard streams.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        self.runtime_with(Files::default())
    }

    /// The runtime, whose programs get what we were given to listen on, and more files behind.
    pub(crate) fn runtime_passing(&self, others: u32) -> Result<Runtime> {
        let listening = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok());
        self.runtime_with(Files { listening: listening.unwrap_or(0), others })
    }

    fn runtime_with(&self, files: Files) -> Result<Runtime> {
        let root = match &self.root {
            Some(root) => std::path::absolute(root)?,
            None => self.default_root(),
        };
        Ok(Runtime::new(root, files)?.with_criu(&self.criu))
    }

    /// As runc: where a user may write.
    fn default_root(&self) -> PathBuf {
        let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| self.is_rootless());
        own.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("shim-runc")
    }
}

/// Prints a text for whoever called.
pub(crate) fn print(text: &str) -> Result<u8> {
    writeln!(io::stdout().lock(), "{text}").context("print")?;
    Ok(0)
}

/// Prints a value as JSON for people and programs.
pub(crate) fn print_json(value: &impl Serialize) -> Result<u8> {
    print(&serde_json::to_string_pretty(value)?)
}
