//! A pod: one guest, from the first trace of it on the host to the last.
//!
//! ```text
//! Made ── boot ──▶ Booting ──▶ Running ──▶ Ended
//! ```
//! Nothing is locked while a guest boots: whoever asks sees how far it is, and whoever stops it is heard
//! at once. The end is one thing, whoever began it: the machine, its file server, an agent that does not
//! answer, or a client.

use std::{path::PathBuf, sync::Arc, time::Duration};

use oci_spec::runtime::{
    LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use shim_core::{
    Context, Error, Host, Kind, Result,
    model::{ContainerId, Exit, ExitStatus, Namespace, Pid, Signal, Stats},
};
use shim_runc::Cage;
use tokio::{sync::watch, time};

use super::{
    boot::{self, Machine},
    share::Share,
    size::Size,
};
use crate::{
    config::Config,
    journal::{self, Effect, Journal},
};

/// How long a guest that is asked to end may take before its machine is ended.
const POWER_OFF: Duration = Duration::from_secs(3);

/// How long a machine that is killed may take; one that hangs in the kernel takes longer.
const KILLED: Duration = Duration::from_secs(10);

/// What a machine takes beside its guest's memory, in bytes: QEMU, its translated code, the file server.
const BESIDE: i64 = 768 << 20;

/// More threads than a machine and its file server ever have.
const THREADS: i64 = 1024;

/// What is known of a pod before it is made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The id of its sandbox, or of the container that it is there for.
    pub id: ContainerId,
    /// The administrator's choices.
    pub config: Config,
    /// The guest's size.
    pub size: Size,
    /// The network namespace that CNI has made.
    pub netns: Option<PathBuf>,
    /// The cgroup below which the machine's is made.
    pub cgroup_parent: String,
    /// What the guest is told to be.
    pub setup: boot::Setup,
    /// Nobody on the host has made the pod's files.
    pub has_own_files: bool,
}

/// One guest. It is shared by all of its containers.
#[derive(Debug)]
pub struct Pod {
    wanted: Wanted,
    host: Host,
    journal: Arc<Journal>,
    share: Share,
    cage: Cage,
    stage: watch::Sender<Stage>,
    stopping: watch::Sender<bool>,
    gone: watch::Sender<bool>,
}

/// How far it is.
#[derive(Clone, Debug)]
enum Stage {
    Made,
    Booting,
    Running(Arc<Machine>),
    Ended(Exit),
}

impl Pod {
    /// Makes what a guest needs on the host, and no guest yet. On error nothing is left.
    ///
    /// # Errors
    /// `AlreadyExists` when there is such a pod; else what could not be made.
    pub fn make(wanted: Wanted, host: &Host) -> Result<Arc<Self>> {
        let (namespace, id) = (host.namespace.clone(), wanted.id.clone());
        let journal = Arc::new(Journal::begin(&namespace, &id)?);
        Self::with_journal(wanted, host, journal).inspect_err(|_| {
            if let Err(err) = journal::clean_up(&namespace, &id) {
                log::warn!("after a pod that was not made: {err:#}");
            }
        })
    }

    fn with_journal(wanted: Wanted, host: &Host, journal: Arc<Journal>) -> Result<Arc<Self>> {
        let cage = Cage::at(&format!("{}/shim-sandbox-{}", wanted.cgroup_parent, wanted.id))?;
        if !cage.pids()?.is_empty() {
            let why = format!("cgroup {} has processes already", cage.path());
            return Err(Error::new(Kind::FailedPrecondition, why));
        }
        journal.note(&Effect::Cgroup(cage.path().to_owned()))?;
        cage.make(Some(&limits(wanted.size)?)).context("make the machine's cgroup")?;
        let share = Share::make(Arc::clone(&journal))?;
        let (stage, host) = (watch::Sender::new(Stage::Made), host.clone());
        let (stopping, gone) = (watch::Sender::new(false), watch::Sender::new(false));
        Ok(Arc::new(Self { wanted, host, journal, share, cage, stage, stopping, gone }))
    }

    /// What it is.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Where its containers' files are shared.
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Boots the guest, and returns once containers can be made in it: the machine's pid.
    ///
    /// # Errors
    /// Why there is no guest, with the end of what it printed. Its processes are gone then.
    pub async fn boot(self: &Arc<Self>) -> Result<Pid> {
        let may = self.stage.send_if_modified(|stage| {
            let may = matches!(stage, Stage::Made);
            if may {
                *stage = Stage::Booting;
            }
            may
        });
        if !may {
            return Err(Error::new(Kind::FailedPrecondition, "the sandbox was started before"));
        }
        match self.bring_up().await {
            Ok(machine) => {
                let (pid, machine) = (machine.pid(), Arc::new(machine));
                self.stage.send_replace(Stage::Running(Arc::clone(&machine)));
                tokio::spawn(Arc::clone(self).watch(machine));
                Ok(pid)
            }
            Err(err) => {
                if let Err(left) = self.end_processes().await {
                    log::warn!("after a guest that did not boot: {left:#}");
                }
                self.stage.send_replace(Stage::Ended(Exit::now(ExitStatus::Signal(Signal::KILL))));
                Err(err.context(format!("boot the guest of {}", self.wanted.id)))
            }
        }
    }

    async fn bring_up(&self) -> Result<Machine> {
        let mut stopping = self.stopping.subscribe();
        let up = boot::boot(boot::Ground {
            wanted: &self.wanted,
            reaper: &self.host.reaper,
            journal: &self.journal,
            share: &self.share,
            cage: &self.cage,
        });
        tokio::select! {
            up = up => up,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => {
                Err(Error::new(Kind::Unavailable, "it is stopped"))
            }
        }
    }

    /// Follows a guest to its end.
    async fn watch(self: Arc<Self>, machine: Arc<Machine>) {
        let why = machine.ended().await;
        log::info!("the guest of {} ends: {why}", self.wanted.id);
        machine.agent.end(why);
        if let Err(err) = self.end_processes().await {
            log::error!("the machine of {}: {err:#}", self.wanted.id);
        }
        let exit = Exit::now(machine.status());
        self.stage.send_replace(Stage::Ended(exit));
    }

    /// Ends the machine and all that belongs to it; that there is nothing is fine.
    async fn end_processes(&self) -> Result<()> {
        let cage = self.cage.clone();
        let ended = tokio::task::spawn_blocking(move || cage.end(KILLED)).await;
        ended.unwrap_or_else(|err| Err(Error::other(format!("end the machine: {err}"))))
    }

    /// The guest, if it runs.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not, or not yet.
    pub fn machine(&self) -> Result<Arc<Machine>> {
        let why = match &*self.stage.borrow() {
            Stage::Running(machine) => return Ok(Arc::clone(machine)),
            Stage::Made => "was not started",
            Stage::Booting => "has not booted yet",
            Stage::Ended(_) => "has ended",
        };
        Err(Error::new(Kind::FailedPrecondition, format!("sandbox {} {why}", self.wanted.id)))
    }

    /// Whether nothing is left of it.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Waits for the end of the guest.
    pub async fn exit(&self) -> Exit {
        let mut stage = self.stage.subscribe();
        let ended = stage.wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
        match ended.as_deref() {
            Ok(Stage::Ended(exit)) => *exit,
            _ => Exit::now(ExitStatus::Signal(Signal::KILL)),
        }
    }

    /// Ends the guest: in good order, if it is so within a time. One that has ended, or never began, is
    /// stopped already.
    ///
    /// # Errors
    /// `TimedOut` with the machine that would not end.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        self.stopping.send_replace(true);
        if matches!(&*self.stage.borrow(), Stage::Made) {
            return Ok(());
        }
        let machine = self.machine().ok();
        if let Some(machine) = machine {
            machine.power_off(grace.max(POWER_OFF)).await;
        }
        let late =
            || Error::new(Kind::TimedOut, format!("the machine of {} lives on", self.wanted.id));
        time::timeout(KILLED, self.exit()).await.map(drop).map_err(|_| late())
    }

    /// Ends the guest and removes all traces of it.
    ///
    /// # Errors
    /// What could not be removed; it can be tried again.
    pub async fn delete(&self) -> Result<()> {
        if let Err(err) = self.stop(Duration::ZERO).await {
            log::warn!("{err:#}");
        }
        let (namespace, id) = (self.host.namespace.clone(), self.wanted.id.clone());
        clean_up(namespace, id).await?;
        self.gone.send_replace(true);
        Ok(())
    }

    /// Asks the guest whether it is well.
    ///
    /// # Errors
    /// `FailedPrecondition` when there is none; else what is wrong with it.
    pub async fn ping(&self) -> Result<()> {
        self.machine()?.agent.usage().await.map(drop)
    }

    /// What the machine and its file server use on the host.
    ///
    /// # Errors
    /// Which file could not be read.
    pub fn stats(&self) -> Result<Stats> {
        self.cage.stats()
    }
}

async fn clean_up(namespace: Namespace, id: ContainerId) -> Result<()> {
    let cleaned = tokio::task::spawn_blocking(move || journal::clean_up(&namespace, &id)).await;
    cleaned.unwrap_or_else(|err| Err(Error::other(format!("clean up: {err}"))))
}

/// A machine that is broken from within still has no more of the host than this.
fn limits(size: Size) -> Result<LinuxResources> {
    let built = || {
        let memory = LinuxMemoryBuilder::default()
            .limit(i64::from(size.memory) * (1 << 20) + BESIDE)
            .build()?;
        let pids = LinuxPidsBuilder::default().limit(THREADS).build()?;
        LinuxResourcesBuilder::default().memory(memory).pids(pids).build()
    };
    built().map_err(|err| Error::other(format!("the machine's limits: {err}")))
}
