//! The shim: its tasks by id, and the rule for its own end.

mod resident;

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time};

use super::{
    ahead::Ahead,
    task::{Deleted, Parts, Start, Task},
};
use crate::{
    backend::{
        Backend, Coming, Container, Create, Created, ExitFuture, Host, Init, Process, Target,
    },
    error::{Context, Error, Kind, Result},
    event::{self, Event, Herald},
    linux::{
        self, mount,
        stdio::{Exchange, Loggers, Peers, Relay},
        sys,
    },
    log as logs,
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
    tasks: Mutex<Table<B::Container>>,
    ahead: Ahead,
    shutdown: Notify,
}

/// The tasks by id, and whether there may be more.
#[derive(Debug)]
struct Table<C> {
    slots: HashMap<ContainerId, Slot<C>>,
    /// The most that there were since memory was last given back.
    most: usize,
    /// The shim is on its way out: who comes now has to look for another.
    is_closed: bool,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self { slots: HashMap::new(), most: 0, is_closed: false }
    }
}

impl<C> Table<C> {
    fn check_open(&self) -> Result<()> {
        if self.is_closed {
            return Err(Error::new(Kind::Unavailable, "the shim is about to end"));
        }
        Ok(())
    }

    /// Whether so many have gone that their memory is worth giving back.
    fn has_shrunk(&mut self) -> bool {
        let has_shrunk = self.most >= CROWD && self.slots.len() <= self.most / 2;
        if has_shrunk {
            self.most = self.slots.len();
            self.slots.shrink_to_fit();
        }
        has_shrunk
    }
}

/// So many containers leave memory behind that is worth a look.
const CROWD: usize = 8;

/// How long after a container's deletion its connection is gone, and its memory with it.
const SETTLING: Duration = Duration::from_secs(1);

/// A place in the table, taken before the work starts, so that an id is made once.
#[derive(Debug)]
enum Slot<C> {
    /// containerd was told of this shim for it, and has not created it yet.
    Announced,
    Coming,
    There(Arc<Task<C>>),
    /// Of the sandbox, with its process: it keeps the shim until it is deleted.
    Sandbox(Option<Pid>),
}

impl<C> Slot<C> {
    fn task(&self) -> Option<Arc<Task<C>>> {
        match self {
            Self::There(task) => Some(Arc::clone(task)),
            Self::Announced | Self::Coming | Self::Sandbox(_) => None,
        }
    }
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
        let (tasks, ahead) = (Mutex::default(), Ahead::default());
        Self { backend, host, herald, peers, tasks, ahead, shutdown: Notify::new() }
    }

    /// Has the backend prepare a container that is announced.
    pub(crate) async fn prepare(&self, coming: Coming) {
        self.ahead.prepare(&self.backend, coming, |id| self.is_announced(id)).await;
    }

    /// Makes a task, or leaves nothing behind. One that is to be restored has no process yet.
    pub(crate) async fn create(&self, request: CreateTask) -> Result<Option<Pid>> {
        let id = request.id.clone();
        self.reserve(&id, Slot::Coming)?;
        match self.make(request).await {
            Ok((task, init)) => {
                let pid = task.state().pid;
                self.tasks().slots.insert(id, Slot::There(Arc::clone(&task)));
                logs::settle(&task.id, &task.bundle);
                if let Some((pid, exit)) = init {
                    tokio::spawn(task.watch(pid, exit));
                }
                Ok(pid)
            }
            Err(err) => {
                self.ahead.abandon(&self.backend, &id).await;
                self.forget(&id);
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
        self.ahead.take(&id).await;
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
        if let Some(pid) = pid {
            tokio::spawn(record(bundle.clone(), pid));
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
        self.forget(id);
        Ok(deleted)
    }

    /// Finds a task.
    pub(crate) fn task(&self, id: &ContainerId) -> Result<Arc<Task<B::Container>>> {
        let task = self.tasks().slots.get(id).and_then(Slot::task);
        task.ok_or_else(|| Error::not_found(format!("container {id} does not exist")))
    }

    /// Keeps the shim for a container to come: a Shutdown that is about another must not end it in
    /// between.
    ///
    /// # Errors
    /// `Unavailable` when it is too late for that.
    pub(crate) fn announce(&self, id: ContainerId) -> Result<()> {
        let mut tasks = self.tasks();
        tasks.check_open()?;
        tasks.slots.entry(id).or_insert(Slot::Announced);
        tasks.most = tasks.most.max(tasks.slots.len());
        Ok(())
    }

    /// Ends the shim, unless it has a container or expects one; that one does not come any more.
    pub(crate) async fn request_shutdown(&self, id: Option<&ContainerId>) {
        if let Some(id) = id.filter(|id| self.is_announced(id)) {
            self.forget(id);
            self.ahead.abandon(&self.backend, id).await;
        }
        let mut tasks = self.tasks();
        if tasks.slots.is_empty() {
            tasks.is_closed = true;
            self.shutdown.notify_one();
        }
    }

    /// Gives up what is prepared, for want of descriptors.
    pub(crate) async fn give_way(&self) {
        self.ahead.abandon_all(&self.backend).await;
    }

    fn is_announced(&self, id: &ContainerId) -> bool {
        matches!(self.tasks().slots.get(id), Some(Slot::Announced))
    }

    /// Takes no more containers: the shim ends, whoever asked for that.
    pub(crate) fn refuse_more(&self) {
        self.tasks().is_closed = true;
    }

    /// Takes a container out of the table. containerd removes its bundle next: a shim that logs there
    /// goes on in another.
    fn forget(&self, id: &ContainerId) {
        self.tasks().slots.remove(id);
        if self.tasks().has_shrunk() {
            tokio::spawn(async {
                time::sleep(SETTLING).await;
                sys::trim_memory();
            });
        }
        if logs::are_in(id) {
            let tasks = self.tasks();
            let others: Vec<_> = tasks.slots.values().filter_map(Slot::task).collect();
            drop(tasks);
            logs::leave(others.iter().map(|task| (&task.id, &task.bundle)));
        }
    }

    /// Ends what must not outlive the shim.
    pub(crate) async fn close(&self) {
        tokio::join!(self.peers.loggers.end_all(), self.ahead.abandon_all(&self.backend));
    }

    /// Waits until the shim may end.
    pub(crate) async fn shut_down(&self) {
        self.shutdown.notified().await;
    }

    fn reserve(&self, id: &ContainerId, slot: Slot<B::Container>) -> Result<()> {
        let mut tasks = self.tasks();
        tasks.check_open()?;
        match tasks.slots.entry(id.clone()) {
            Entry::Occupied(mut place) if matches!(place.get(), Slot::Announced) => {
                place.insert(slot);
                Ok(())
            }
            Entry::Occupied(_) => {
                Err(Error::new(Kind::AlreadyExists, format!("container {id} exists already")))
            }
            Entry::Vacant(place) => {
                place.insert(slot);
                tasks.most = tasks.most.max(tasks.slots.len());
                Ok(())
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Table<B::Container>> {
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

/// Records the init process for a `delete` that comes after this shim's death. Clients that wait for
/// an answer come first.
async fn record(bundle: Bundle, pid: Pid) {
    tokio::task::yield_now().await;
    if let Err(err) = linux::record(&bundle, pid) {
        log::warn!("{err:#}");
    }
}
