//! A pod in gVisor, from the first trace of it on the host to the last.
//!
//! Its process is that of the first container, which sleeps. Nothing is locked while that starts, so a
//! stop is heard; and the end is one thing, whoever began it: the others' exits come with it.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use shim_core::{
    Container, Context, Create, Created, Error, Host, Init, Kind, Result, Sandbox, SandboxProcess,
    Streams, Target,
    model::{Bundle, ContainerId, Exit, ExitStatus, Pid, Signal, Stats},
};
use shim_protos::cri::PodSandboxConfig;
use shim_runc::{Cage, OciRuntime};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::bundle::{self, Ground};
use crate::{
    host::files,
    journal::{self, Effect, Journal},
    net,
};

/// How long a sandbox that is killed may take.
const KILLED: Duration = Duration::from_secs(10);

/// What gVisor's kernel writes when it dies of itself, below the sandbox's folder.
const PANIC: &str = "panic.log";

/// How much of that is told.
const TAIL: usize = 1 << 10;

/// What is known of a pod before it is made.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: ContainerId,
    pub(super) binary: String,
    pub(super) flags: Vec<String>,
    pub(super) netns: Option<PathBuf>,
    /// The cgroup below which the sandbox's is made.
    pub(super) cgroup_parent: String,
    pub(super) config: PodSandboxConfig,
}

/// One sandbox. It is shared by all of its containers.
pub(super) struct Pod {
    wanted: Wanted,
    host: Host,
    runtime: OciRuntime,
    journal: Journal,
    first: Bundle,
    cage: Cage,
    container: OnceLock<Box<dyn Container>>,
    stage: watch::Sender<Stage>,
    stopping: watch::Sender<bool>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Made,
    Starting,
    Running,
    Ended(Exit),
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pod").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Pod {
    /// Makes what a sandbox needs on the host, and no process yet. On error nothing is left.
    ///
    /// # Errors
    /// `AlreadyExists` when there is such a pod; else what could not be made.
    pub(super) fn make(wanted: Wanted, host: &Host) -> Result<Self> {
        let (namespace, id) = (host.namespace.clone(), wanted.id.clone());
        let journal = Journal::begin(&namespace, &id)?;
        Self::with_journal(wanted, host.clone(), journal).inspect_err(|_| {
            if let Err(err) = journal::clean_up(&namespace, &id) {
                log::warn!("after a pod that was not made: {err:#}");
            }
        })
    }

    fn with_journal(wanted: Wanted, host: Host, journal: Journal) -> Result<Self> {
        let folder = journal.folder();
        let cage = Cage::at(&format!("{}/shim-sandbox-{}", wanted.cgroup_parent, wanted.id))?;
        let interfaces = wanted.netns.as_deref().map(net::look).transpose()?.unwrap_or_default();
        bundle::write_files(folder, &files::of_pod(&wanted.config, &interfaces)?)?;
        let first = bundle::write_first(&Ground {
            folder,
            id: &wanted.id,
            hostname: &files::hostname(&wanted.config)?,
            netns: wanted.netns.as_deref(),
            cgroup: cage.path(),
            sysctls: &wanted.config.linux.get_or_default().sysctls,
        })?;
        let panic_log = format!("--panic-log={}", folder.join(PANIC).display());
        let flags = wanted.flags.iter().cloned().chain([panic_log]).collect();
        let runtime = OciRuntime::find(&wanted.binary, folder.join("runsc"), flags)
            .context("runsc.path of the configuration")?;
        journal.note(&Effect::Cgroup(cage.path().to_owned()))?;
        journal.note(&made(&wanted.id, &first))?;
        let (stage, stopping) = (watch::Sender::new(Stage::Made), watch::Sender::new(false));
        let container = OnceLock::new();
        Ok(Self { wanted, host, runtime, journal, first, cage, container, stage, stopping })
    }

    pub(super) fn id(&self) -> &ContainerId {
        &self.wanted.id
    }

    /// Makes a container in it, or nothing.
    ///
    /// # Errors
    /// `FailedPrecondition` when the sandbox does not run; else why there is no container.
    pub(super) async fn create(&self, mut request: Create) -> Result<Created<Box<dyn Container>>> {
        if *self.stage.borrow() != Stage::Running {
            return Err(Error::new(Kind::FailedPrecondition, "the sandbox does not run"));
        }
        let folder = self.journal.folder();
        let bundle = bundle::member(folder, &request.id);
        self.journal.note(&made(&request.id, &Bundle::new(&bundle)?))?;
        let id = request.id.clone();
        request.bundle = bundle::write_member(folder, self.id(), &id, &request.bundle)?;
        let created = self.runtime.create(request).await;
        if created.is_err() {
            // It goes with the sandbox's folder at the latest.
            let _ = fs::remove_dir_all(bundle);
        }
        created
    }

    async fn bring_up(self: &Arc<Self>) -> Result<Pid> {
        let null = || {
            Ok::<_, Error>(OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?))
        };
        let created = self
            .runtime
            .create(Create {
                id: self.id().clone(),
                bundle: self.first.clone(),
                rootfs: Vec::new(),
                streams: Streams::Pipes { stdin: null()?, stdout: null()?, stderr: null()? },
                options: None,
                checkpoint: None,
                host: self.host.clone(),
            })
            .await?;
        let Init::Made(process) = created.init else {
            return Err(Error::other("runsc has made no process"));
        };
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            let exit = process.exit.await;
            pod.stage.send_replace(Stage::Ended(exit));
        });
        let container = self.container.get_or_init(|| created.container);
        container.start().await?;
        self.stage.send_if_modified(|stage| {
            let lives = *stage == Stage::Starting;
            if lives {
                *stage = Stage::Running;
            }
            lives
        });
        Ok(process.pid)
    }

    /// Waits until it is no more as it is told not to be.
    async fn past(&self, is_before: impl Fn(Stage) -> bool) -> Stage {
        let mut stage = self.stage.subscribe();
        let found = stage.wait_for(|stage| !is_before(*stage)).await.map(|stage| *stage);
        // The sender lives as long as this.
        found.unwrap_or(Stage::Ended(killed()))
    }

    async fn exit(&self) -> Exit {
        match self.past(|stage| !matches!(stage, Stage::Ended(_))).await {
            Stage::Ended(exit) => exit,
            _ => killed(),
        }
    }

    /// Kills what there is, and waits until it is gone.
    async fn end(&self) -> Result<()> {
        if let Some(container) = self.container.get() {
            match container.kill(Target::Init, Signal::KILL).await {
                Err(err) if err.kind() == Kind::NotFound => {}
                killed => killed.context("kill the sandbox")?,
            }
            let late = |_| Error::new(Kind::TimedOut, "the sandbox was killed, and does not end");
            timeout(KILLED, self.exit()).await.map_err(late)?;
        }
        Ok(())
    }

    /// Removes all that runsc knows, and what is left of it.
    async fn remove(&self) -> Result<()> {
        self.end().await?;
        match self.container.get() {
            Some(container) => container.delete().await?,
            None => self.runtime.remove(self.id(), &self.first, &self.host).await?,
        }
        let cage = self.cage.clone();
        spawn_blocking(move || cage.end(KILLED)).await.map_err(died)?
    }

    /// What gVisor's kernel has said as it died.
    fn last_words(&self) -> String {
        let text = fs::read(self.journal.folder().join(PANIC)).unwrap_or_default();
        let tail = text.get(text.len().saturating_sub(TAIL)..).unwrap_or_default();
        String::from_utf8_lossy(tail).trim().to_owned()
    }
}

/// A pod as the Sandbox API drives it.
pub(super) struct GvisorSandbox(pub(super) Arc<Pod>);

#[async_trait]
impl Sandbox for GvisorSandbox {
    async fn start(&self) -> Result<SandboxProcess> {
        let pod = &self.0;
        if pod.stage.send_replace(Stage::Starting) != Stage::Made {
            return Err(Error::new(Kind::FailedPrecondition, "the sandbox was started before"));
        }
        let mut stopping = pod.stopping.subscribe();
        let started = tokio::select! {
            started = pod.bring_up() => started,
            _ = stopping.wait_for(|is| *is) => {
                Err(Error::new(Kind::FailedPrecondition, "the sandbox was stopped as it started"))
            }
        };
        match started {
            Ok(pid) => {
                let pod = Arc::clone(pod);
                let exit = Box::pin(async move { pod.exit().await });
                Ok(SandboxProcess { pid, exit, created_at: SystemTime::now(), spec: None })
            }
            Err(err) => {
                if let Err(left) = pod.remove().await {
                    log::warn!("after a sandbox that did not start: {left:#}");
                }
                pod.stage.send_replace(Stage::Ended(killed()));
                let words = pod.last_words();
                Err(if words.is_empty() { err } else { err.context(words) })
            }
        }
    }

    /// CRI has stopped the containers before, and gVisor has nothing of its own that could end by itself:
    /// what still runs is killed.
    async fn stop(&self, _grace: Duration) -> Result<()> {
        let pod = &self.0;
        pod.stopping.send_replace(true);
        let started = timeout(KILLED, pod.past(|stage| stage == Stage::Starting)).await;
        let late = |_| Error::new(Kind::TimedOut, "the sandbox goes on starting");
        match started.map_err(late)? {
            Stage::Running => pod.end().await,
            _ => Ok(()),
        }
    }

    async fn delete(&self) -> Result<()> {
        let pod = &self.0;
        let _stopped = self.stop(Duration::ZERO).await;
        pod.remove().await.context("remove the sandbox")?;
        let (namespace, id) = (pod.host.namespace.clone(), pod.id().clone());
        spawn_blocking(move || journal::clean_up(&namespace, &id)).await.map_err(died)?
    }

    async fn ping(&self) -> Result<()> {
        let stage = *self.0.stage.borrow();
        let why = || Error::new(Kind::FailedPrecondition, "the sandbox does not run");
        (stage == Stage::Running).then_some(()).ok_or_else(why)
    }

    async fn stats(&self) -> Result<Stats> {
        self.0.cage.stats()
    }

    fn info(&self) -> HashMap<String, String> {
        let wanted = &self.0.wanted;
        let flags = wanted.flags.join(" ");
        HashMap::from([
            ("runtime".to_owned(), wanted.binary.clone()),
            ("flags".to_owned(), flags),
            ("cgroup".to_owned(), self.0.cage.path().to_owned()),
        ])
    }
}

fn made(id: &ContainerId, bundle: &Bundle) -> Effect {
    Effect::Container { id: id.as_str().to_owned(), bundle: Path::to_owned(bundle.path()) }
}

fn killed() -> Exit {
    Exit::now(ExitStatus::Signal(Signal::KILL))
}

fn died(err: tokio::task::JoinError) -> Error {
    Error::other(format!("a thread that cleans up has died: {err}"))
}
