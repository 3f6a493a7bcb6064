//! Mount and PID namespaces of our own: what a test leaves behind cannot leave with it. Where it is
//! asked for, a network namespace as well.
//!
//! Namespaces are entered by running this executable again, step by step:
//!
//! ```text
//! outside ── enter: unshares ── init: PID 1, fresh /proc and /run, reaps ── inside: the tests
//! ```
//! Each step dies with the one before it, and everything inside dies with `init`: also when the
//! run is killed, nothing of it stays on the machine but cgroups.

use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};

/// The private `/run`, and in it the place for whatever a test makes.
pub const DIR: &str = "/run/it";

const STEP: &str = "INTEGRATION_STEP";
const ARGUMENT: &str = "INTEGRATION_INSIDE";
const NETWORK: &str = "INTEGRATION_NETWORK";

/// The command that runs this executable inside new namespaces, where [`step`] returns `argument`.
///
/// # Errors
/// When the executable's own path cannot be found.
pub fn command(argument: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe().context("find this executable")?);
    command.env(STEP, "enter").env(ARGUMENT, argument);
    Ok(command)
}

/// The same command, whose namespaces have a network of their own among them: an empty one.
#[must_use]
pub fn with_own_network(mut command: Command) -> Command {
    command.env(NETWORK, "own");
    command
}

/// Whether every network interface here is the tests'.
#[must_use]
pub fn has_own_network() -> bool {
    env::var_os(NETWORK).is_some()
}

/// What this process is to do.
#[derive(Debug)]
pub enum Step {
    /// Everything: it was started by a person.
    Outside,
    /// The part that `command`'s argument names.
    Inside(String),
    /// Nothing more: it was a step in between.
    Done(ExitCode),
}

/// Does this process's part in entering the namespaces. Call it first, before there are threads.
///
/// # Errors
/// When a namespace or a mount is refused.
pub fn step() -> Result<Step> {
    match env::var(STEP).ok().as_deref() {
        None => Ok(Step::Outside),
        Some("enter") => enter().map(Step::Done),
        Some("init") => init().map(Step::Done),
        Some("inside") => Ok(Step::Inside(env::var(ARGUMENT)?)),
        Some(other) => bail!("{STEP}={other} is no step"),
    }
}

fn enter() -> Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL)?;
    let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    namespaces.set(CloneFlags::CLONE_NEWNET, has_own_network());
    unshare(namespaces).context("make mount and PID namespaces (needs root)")?;
    let status = next("init")?.wait()?;
    Ok(exit_code(status))
}

fn init() -> Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make every mount private")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("proc"), "/proc", Some("proc"), flags | MsFlags::MS_NOEXEC, none)
        .context("mount /proc")?;
    mount(Some("run"), "/run", Some("tmpfs"), flags, Some("mode=755")).context("mount /run")?;
    fs::create_dir(Path::new(DIR))?;

    let inside = next("inside")?.id();
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw().cast_unsigned() == inside => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
            }
            Ok(WaitStatus::Signaled(pid, ..)) if pid.as_raw().cast_unsigned() == inside => {
                return Ok(ExitCode::FAILURE);
            }
            // Orphans of the tests: shims, and what lost its shim.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("wait for a child"),
        }
    }
}

fn next(step: &str) -> Result<Child> {
    Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(STEP, step)
        .spawn()
        .with_context(|| format!("run this executable as {step}"))
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
