//! The shim: its tasks by id, and the rule for its own end.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use super::task::{Deleted, Parts, Start, Task};
use crate::{
    backend::{Backend, Container, Create, Created, ExitFuture, Host, Init, Process, Target},
    error::{Context, Error, Kind, Result},
    event::{self, Event, Herald},
    linux::{
        self, mount,
        stdio::{Exchange, Loggers, Peers, Relay},
    },
    model::{Bundle, ContainerId, Mount, Pid, RuntimeOptions, Signal, StdioUris},
};

/// Everything one shim process serves.
#[derive(Debug)]
pub(crate) struct Shim<B: Backend> {
    backend: B,
    host: Host,
    herald: Herald,
    peers: Peers,
    /// Never locked across an `await`: a hung container must not stop the others.
    tasks: Mutex<HashMap<ContainerId, Slot<B::Container>>>,
    shutdown: Notify,
}

/// A place in the table, taken before the work starts, so that an id is made once.
#[derive(Debug)]
enum Slot<C> {
    /// containerd was told of this shim for it, and has not created it yet.
    Announced,
    Coming,
    There(Arc<Task<C>>),
}

/// A parsed create request.
#[derive(Debug)]
pub(crate) struct CreateTask {
    pub(crate) id: ContainerId,
    pub(crate) bundle: Bundle,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) stdio: StdioUris,
    pub(crate) options: Option<RuntimeOptions>,
    pub(crate) checkpoint: Option<PathBuf>,
}

/// A new task, and the end of its init process where there is one already.
type Made<C> = (Arc<Task<C>>, Option<(Pid, ExitFuture)>);

impl<B: Backend> Shim<B> {
    pub(crate) fn new(backend: B, host: Host, herald: Herald, exchange: Exchange) -> Self {
        let loggers = Loggers::new(host.reaper.clone(), host.namespace.clone());
        let peers = Peers { loggers, exchange };
        Self { backend, host, herald, peers, tasks: Mutex::default(), shutdown: Notify::new() }
    }

    /// Makes a task, or leaves nothing behind. One that is to be restored has no process yet.
    pub(crate) async fn create(&self, request: CreateTask) -> Result<Option<Pid>> {
        let id = request.id.clone();
        self.reserve(&id)?;
        match self.make(request).await {
            Ok((task, init)) => {
                let pid = task.state().pid;
                self.tasks().insert(id, Slot::There(Arc::clone(&task)));
                if let Some((pid, exit)) = init {
                    tokio::spawn(task.watch(pid, exit));
                }
                Ok(pid)
            }
            Err(err) => {
                self.tasks().remove(&id);
                Err(err)
            }
        }
    }

    async fn make(&self, request: CreateTask) -> Result<Made<B::Container>> {
        let CreateTask { id, bundle, rootfs, stdio, options, checkpoint } = request;
        let (relay, streams) = Relay::open(&stdio, &id, &self.peers).await?;
        mount::mount_all(&rootfs, &bundle)?;
        let create = Create {
            id: id.clone(),
            bundle: bundle.clone(),
            rootfs: rootfs.clone(),
            streams,
            options,
            checkpoint: checkpoint.clone(),
            host: self.host.clone(),
        };
        let made = self.backend.create(create).await;
        let made = match made {
            Ok(made) => begin(made, relay, checkpoint.is_some()).await,
            Err(err) => Err(err),
        };
        let (container, start, exit) = made.map_err(|err| {
            unmount(&rootfs, &bundle);
            err.context(format!("create {id}"))
        })?;
        let pid = exit.as_ref().map(|(pid, _)| *pid);
        // Read by `delete` alone, should this shim die.
        if let Some(Err(err)) = pid.map(|pid| linux::record(&bundle, pid)) {
            log::warn!("{err:#}");
        }
        self.herald.tell(&Event::Created(Box::new(event::Created {
            container: id.clone(),
            pid,
            bundle: bundle.clone(),
            rootfs,
            stdio: stdio.clone(),
            checkpoint,
        })));
        let (peers, herald) = (self.peers.clone(), self.herald.clone());
        let parts = Parts { id, bundle, stdio, container, init: start, peers, herald };
        Ok((Arc::new(Task::new(parts)), exit))
    }

    /// Deletes a task and forgets it.
    pub(crate) async fn delete(&self, id: &ContainerId) -> Result<Deleted> {
        let task = self.task(id)?;
        let deleted = task.delete().await?;
        self.tasks().remove(id);
        Ok(deleted)
    }

    /// Finds a task.
    pub(crate) fn task(&self, id: &ContainerId) -> Result<Arc<Task<B::Container>>> {
        match self.tasks().get(id) {
            Some(Slot::There(task)) => Ok(Arc::clone(task)),
            Some(Slot::Announced | Slot::Coming) | None => {
                Err(Error::not_found(format!("container {id} does not exist")))
            }
        }
    }

    /// Keeps the shim for a container to come: a Shutdown that is about another must not end it in
    /// between.
    pub(crate) fn announce(&self, id: ContainerId) {
        self.tasks().entry(id).or_insert(Slot::Announced);
    }

    /// Ends the shim, unless it has a container or expects one; that one does not come any more.
    pub(crate) fn request_shutdown(&self, id: Option<&ContainerId>) {
        let mut tasks = self.tasks();
        if let Some(id) = id
            && let Some(Slot::Announced) = tasks.get(id)
        {
            tasks.remove(id);
        }
        if tasks.is_empty() {
            self.shutdown.notify_one();
        }
    }

    /// Ends what must not outlive the shim.
    pub(crate) async fn close(&self) {
        self.peers.loggers.end_all().await;
    }

    /// Waits until the shim may end.
    pub(crate) async fn shut_down(&self) {
        self.shutdown.notified().await;
    }

    fn reserve(&self, id: &ContainerId) -> Result<()> {
        match self.tasks().entry(id.clone()) {
            Entry::Occupied(mut place) if matches!(place.get(), Slot::Announced) => {
                place.insert(Slot::Coming);
                Ok(())
            }
            Entry::Occupied(_) => {
                Err(Error::new(Kind::AlreadyExists, format!("container {id} exists already")))
            }
            Entry::Vacant(place) => {
                place.insert(Slot::Coming);
                Ok(())
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<ContainerId, Slot<B::Container>>> {
        self.tasks.lock().expect("nobody panics with the tasks locked")
    }
}

/// Undoes the mounts of a create that failed.
fn unmount(rootfs: &[Mount], bundle: &Bundle) {
    if rootfs.is_empty() {
        return;
    }
    if let Err(err) = mount::unmount_all(&bundle.rootfs()) {
        log::warn!("after a failed create: {err:#}");
    }
}

/// Joins a fresh container with its streams.
async fn begin<C: Container>(
    made: Created<C>,
    relay: Relay,
    is_saved: bool,
) -> Result<(C, Start, Option<(Pid, ExitFuture)>)> {
    let container = made.container;
    let Process { pid, exit, terminal } = match made.init {
        Init::AtStart => return Ok((container, Start::Checkpoint(relay), None)),
        Init::Made(process) => process,
    };
    let console = if is_saved {
        // It has overlooked the checkpoint: what it made is another container.
        Err(Error::unsupported("restore"))
    } else {
        relay.run(terminal)
    };
    match console {
        Ok(console) => Ok((container, Start::Process(pid, console), Some((pid, exit)))),
        Err(err) => {
            abandon(&container, exit).await;
            Err(err)
        }
    }
}

/// Ends a container that was made and can't be used.
async fn abandon<C: Container>(container: &C, exit: ExitFuture) {
    let ended: Result<()> = async {
        container.kill(Target::Init, Signal::KILL).await.context("kill")?;
        exit.await;
        container.delete().await.context("delete")
    }
    .await;
    if let Err(err) = ended {
        log::warn!("after a failed create: {err:#}");
    }
}
