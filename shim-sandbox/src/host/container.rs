//! A container of a guest, as the framework sees it on the host.
//!
//! The guest's half is a task service, so nearly every verb is one call there. When the guest is dead, so are
//! its containers: their ends are told at once, and their deletion has nothing to do.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use async_trait::async_trait;
use shim_core::{
    Container, Context, Created, Error, Exec, Kind, Process, Result, Streams, Target, Update,
    decode_stats,
    model::{ContainerId, Pid, Signal, Stats},
};
use shim_protos::{
    Any,
    guest::{self, MakeBundleRequest, RemoveBundleRequest},
    protobuf::MessageField,
    task::{
        CreateTaskRequest, ExecProcessRequest, KillRequest, PauseRequest, ResumeRequest,
        StartRequest, StatsRequest, UpdateTaskRequest,
    },
    types,
};
use tokio::sync::watch;

use super::{
    agent::{Agent, LONG, SHORT},
    answer,
    kills::{self, Kills},
    process::{Name, begin, delete, exit},
    pump::Opened,
};

/// What a container is to be made of.
#[derive(Debug)]
pub struct Wanted {
    /// Its id.
    pub id: ContainerId,
    /// `config.json`, with paths of the guest.
    pub spec: Vec<u8>,
    /// What its root filesystem is mounted from; without one it is in the spec.
    pub rootfs: Option<Rootfs>,
    /// What its init process gets as its streams.
    pub streams: Streams,
    /// The process of this host that stands for those of the guest.
    pub machine: Pid,
}

/// What a root filesystem is mounted from, in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// A folder of the share, by its path in it.
    Shared(String),
    /// A disk.
    Disk {
        /// The serial number by which it is found.
        serial: String,
        /// The filesystem on it.
        filesystem: String,
        /// What it is mounted with.
        options: Vec<String>,
    },
}

/// A container of a guest.
#[derive(Debug)]
pub struct GuestContainer {
    agent: Agent,
    id: ContainerId,
    machine: Pid,
    kills: watch::Receiver<Kills>,
    /// How many were told.
    told: AtomicU64,
}

/// Makes a container in a guest, whose init process waits for its start.
///
/// # Errors
/// What the guest says; nothing is left there.
pub async fn create(agent: &Agent, wanted: Wanted) -> Result<Created<GuestContainer>> {
    let name = Name { container: wanted.id.to_string(), exec: String::new() };
    let began = SystemTime::now();
    let bundle = make_bundle(agent, &wanted.id, wanted.spec, wanted.rootfs);
    let (bundle, opened) = tokio::join!(bundle, Opened::open(agent, wanted.streams));
    let made = async {
        let (path, rootfs) = bundle?;
        let opened = opened?;
        let request = CreateTaskRequest {
            id: name.container.clone(),
            bundle: path,
            rootfs,
            terminal: opened.places.terminal,
            stdin: opened.places.stdin.clone(),
            stdout: opened.places.stdout.clone(),
            stderr: opened.places.stderr.clone(),
            ..Default::default()
        };
        let created = agent.call("create", Some(LONG), |it, context| async move {
            it.task.create(context, &request).await
        });
        created.await.map(|_| opened)
    };
    let opened = match made.await {
        Ok(opened) => opened,
        Err(err) => {
            // One that is there already is not ours to remove.
            if err.kind() != Kind::AlreadyExists {
                remove_bundle(agent, &name.container).await.unwrap_or_else(|err| {
                    log::warn!("{err:#}");
                });
            }
            return Err(err);
        }
    };
    let kills = kills::watch(agent.clone(), name.container.clone());
    let (pumps, terminal) = begin(agent, opened, &name).await;
    let exit = exit(agent.clone(), name, pumps, began, Some(kills.clone()));
    let told = AtomicU64::new(0);
    let container = GuestContainer {
        agent: agent.clone(),
        id: wanted.id,
        machine: wanted.machine,
        kills,
        told,
    };
    Ok(Created { container, init: Process { pid: wanted.machine, exit, terminal }.into() })
}

/// Returns where the bundle is in the guest, and what is to be mounted on its root filesystem.
async fn make_bundle(
    agent: &Agent,
    id: &ContainerId,
    spec: Vec<u8>,
    rootfs: Option<Rootfs>,
) -> Result<(String, Vec<types::Mount>)> {
    let mut request = MakeBundleRequest { id: id.to_string(), spec, ..Default::default() };
    let mount = match rootfs {
        None => None,
        Some(Rootfs::Shared(path)) => {
            request.set_shared(path);
            Some(("bind".to_owned(), vec!["rbind".to_owned()]))
        }
        Some(Rootfs::Disk { serial, filesystem, options }) => {
            request.set_disk(guest::Disk { serial, ..Default::default() });
            Some((filesystem, options))
        }
    };
    let made = agent.call("make a bundle", Some(SHORT), |it, context| async move {
        it.guest.make_bundle(context, &request).await
    });
    let made = made.await?;
    let mount = mount.map(|(kind, options)| types::Mount {
        type_: kind,
        source: made.source,
        options,
        ..Default::default()
    });
    Ok((made.path, mount.into_iter().collect()))
}

async fn remove_bundle(agent: &Agent, id: &str) -> Result<()> {
    let request = RemoveBundleRequest { id: id.to_owned(), ..Default::default() };
    let removed = agent.call("remove a bundle", Some(LONG), |it, context| async move {
        it.guest.remove_bundle(context, &request).await
    });
    removed.await.map(drop)
}

impl GuestContainer {
    fn name(&self) -> Name {
        Name { container: self.id.to_string(), exec: String::new() }
    }

    async fn start_process(&self, name: &Name) -> Result<()> {
        let request = StartRequest {
            id: name.container.clone(),
            exec_id: name.exec.clone(),
            ..Default::default()
        };
        let started = self.agent.call("start", Some(LONG), |it, context| async move {
            it.task.start(context, &request).await
        });
        started.await.map(drop)
    }

    /// Adds a process to the guest's container, and starts it.
    async fn add(&self, name: &Name, spec: Vec<u8>, opened: &Opened) -> Result<()> {
        let spec = any("types.containerd.io/opencontainers/runtime-spec/1/Process", spec);
        let request = ExecProcessRequest {
            id: name.container.clone(),
            exec_id: name.exec.clone(),
            terminal: opened.places.terminal,
            stdin: opened.places.stdin.clone(),
            stdout: opened.places.stdout.clone(),
            stderr: opened.places.stderr.clone(),
            spec,
            ..Default::default()
        };
        let added = self.agent.call("exec", Some(LONG), |it, context| async move {
            it.task.exec(context, &request).await
        });
        added.await?;
        let started = self.start_process(name).await;
        if started.is_err()
            && let Err(err) = delete(&self.agent, name).await
        {
            log::warn!("{err:#}");
        }
        started
    }
}

fn any(name: &str, value: Vec<u8>) -> MessageField<Any> {
    MessageField::some(Any { type_url: name.to_owned(), value, ..Default::default() })
}

#[async_trait]
impl Container for GuestContainer {
    async fn start(&self) -> Result<()> {
        self.start_process(&self.name()).await
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        let exec = match target {
            Target::Exec { id, .. } => id.to_string(),
            Target::Init | Target::All => String::new(),
        };
        let request = KillRequest {
            id: self.id.to_string(),
            exec_id: exec,
            signal: signal.number().into(),
            all: matches!(target, Target::All),
            ..Default::default()
        };
        let killed = self.agent.call("kill", Some(SHORT), |it, context| async move {
            it.task.kill(context, &request).await
        });
        match killed.await {
            Err(_) if self.agent.is_dead() => Err(Error::not_found("process already finished")),
            killed => killed.map(drop),
        }
    }

    async fn delete(&self) -> Result<()> {
        delete(&self.agent, &self.name()).await?;
        match remove_bundle(&self.agent, self.id.as_str()).await {
            Err(_) if self.agent.is_dead() => Ok(()),
            removed => removed,
        }
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        let name = Name { container: self.id.to_string(), exec: request.id.to_string() };
        let spec = serde_json::to_vec(&request.process).context("encode the process")?;
        let opened = Opened::open(&self.agent, request.streams).await?;
        let began = SystemTime::now();
        self.add(&name, spec, &opened).await?;
        let (pumps, terminal) = begin(&self.agent, opened, &name).await;
        let exit = exit(self.agent.clone(), name, pumps, began, None);
        Ok(Process { pid: self.machine, exit, terminal })
    }

    async fn pause(&self) -> Result<()> {
        let request = PauseRequest { id: self.id.to_string(), ..Default::default() };
        let paused = self.agent.call("pause", Some(LONG), |it, context| async move {
            it.task.pause(context, &request).await
        });
        paused.await.map(drop)
    }

    async fn resume(&self) -> Result<()> {
        let request = ResumeRequest { id: self.id.to_string(), ..Default::default() };
        let resumed = self.agent.call("resume", Some(LONG), |it, context| async move {
            it.task.resume(context, &request).await
        });
        resumed.await.map(drop)
    }

    async fn update(&self, request: &Update) -> Result<()> {
        let resources = request.resources.as_ref().map(serde_json::to_vec).transpose();
        let resources = resources.context("encode the resources")?;
        let name = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
        let request = UpdateTaskRequest {
            id: self.id.to_string(),
            resources: resources.map(|json| any(name, json)).unwrap_or_default(),
            annotations: request.annotations.clone(),
            ..Default::default()
        };
        let updated = self.agent.call("update", Some(LONG), |it, context| async move {
            it.task.update(context, &request).await
        });
        updated.await.map(drop)
    }

    async fn stats(&self) -> Result<Stats> {
        let request = StatsRequest { id: self.id.to_string(), ..Default::default() };
        let read = self.agent.call("stats", Some(SHORT), |it, context| async move {
            it.task.stats(context, &request).await
        });
        let counters = read.await?.stats.unwrap_or_default();
        let decoded = decode_stats(&counters.type_url, &counters.value);
        decoded.map_err(|err| Error::new(err.kind(), answer::text(&format!("{err:#}"))))
    }

    async fn out_of_memory(&self) -> Result<()> {
        let mut kills = self.kills.clone();
        let told = self.told.load(Ordering::Relaxed);
        let news = kills.wait_for(|kills| kills.count > told).await.map(|kills| kills.count);
        match news {
            Ok(count) => {
                self.told.store(count, Ordering::Relaxed);
                Ok(())
            }
            // No more will come.
            Err(_) => std::future::pending().await,
        }
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        Ok(vec![self.machine])
    }
}
