//! Virtual machines: what runs one is a [`Hypervisor`], what runs is a [`Vm`].
//!
//! A machine is started and nothing more ([`Hypervisor::boot`]); that its guest is there is heard on the
//! line ([`greeted`]), in a race with its end and a time limit. A machine never outlives the process that
//! started it, nor the last reference to its [`Vm`].

mod config;
mod console;
mod process;
pub mod qemu;
pub mod virtiofsd;

use std::{fmt, os::fd::OwnedFd, sync::Arc, time::Duration};

use async_trait::async_trait;
use shim_core::{
    Context, Error, Kind, Result,
    linux::Reaper,
    model::{Exit, ExitStatus, Pid},
};
use tokio::{net::UnixStream, sync::watch, time::timeout};

pub use config::{Accelerator, Disk, Launch, Nic, VmConfig};

use crate::channel::{Word, greet_guest};

/// How much of the console an error shows.
const LAST_LINES: usize = 20;

/// How much later than the line's the machine's end may be.
const END_OF_BOTH: Duration = Duration::from_millis(500);

/// Makes machines.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// Starts a machine; returns once its program runs, before the guest does. Called in a thread that
    /// lives as long as the machine is to.
    ///
    /// # Errors
    /// What is wrong with the configuration, or why the program does not run.
    async fn boot(&self, reaper: &Reaper, config: &VmConfig, files: Files) -> Result<Booted>;
}

/// What a machine is given open.
#[derive(Debug, Default)]
pub struct Files {
    /// The connection to a share's server, where the configuration has a share.
    pub share: Option<OwnedFd>,
    /// A tap device for each network card of the configuration.
    pub taps: Vec<OwnedFd>,
    /// A file or block device for each disk.
    pub disks: Vec<OwnedFd>,
}

/// A machine that has been started.
#[derive(Debug)]
pub struct Booted {
    /// The machine.
    pub vm: Arc<dyn Vm>,
    /// The host's end of the line, on which nothing has been said.
    pub line: UnixStream,
}

/// A machine. It ends when the last reference is dropped.
#[async_trait]
pub trait Vm: fmt::Debug + Send + Sync {
    /// Its process.
    fn pid(&self) -> Pid;

    /// Its end, once that has come; any number may wait for it, and afterwards, too. What it said before
    /// its end is in the console's tail then.
    fn exited(&self) -> watch::Receiver<Option<Exit>>;

    /// Waits for the machine to end by itself, then ends it. It always does.
    async fn power_off(&self, grace: Duration) -> Exit;

    /// The last 64 KiB of what the machine's program and the guest's console have said, fit to be shown.
    fn console_tail(&self) -> String;
}

/// Waits for the end of a machine.
pub async fn end(vm: &dyn Vm) -> Exit {
    let mut exited = vm.exited();
    let ended = exited.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
    // Whoever tells the end does not go before it.
    ended.unwrap_or_else(|| Exit::now(ExitStatus::Unknown))
}

/// Waits until the guest has greeted on the line.
///
/// # Errors
/// `TimedOut` after the limit; else why the guest will not greet any more. The console's last lines are
/// in it.
pub async fn greeted(
    vm: &dyn Vm,
    line: &mut UnixStream,
    word: &Word,
    limit: Duration,
) -> Result<()> {
    let heard = tokio::select! {
        // The line breaks when the machine ends: its end says more.
        biased;
        exit = end(vm) => Err(ended_early(exit)),
        heard = timeout(limit, greet_guest(line, word)) => match heard {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(err)) => match timeout(END_OF_BOTH, end(vm)).await {
                Ok(exit) => Err(ended_early(exit)),
                Err(_) => Err(err),
            },
            Err(_) => {
                let why = format!("the guest has said nothing in {} seconds", limit.as_secs());
                Err(Error::new(Kind::TimedOut, why))
            }
        },
    };
    heard.with_context(|| last_words(vm))
}

fn ended_early(exit: Exit) -> Error {
    Error::new(Kind::Unavailable, format!("the machine has ended: {:?}", exit.status))
}

/// The end of the console as the context of an error.
pub fn last_words(vm: &dyn Vm) -> String {
    let tail = vm.console_tail();
    let lines: Vec<_> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
    format!("boot the guest (its console: {:?})", last.join(" | "))
}
