//! The shim: its tasks by id, and the rule for its own end.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use super::task::{Deleted, Parts, Task};
use crate::{
    backend::{Backend, Create, Host},
    error::{Context, Error, Kind, Result},
    event::{Event, Herald},
    linux::{self, mount, stdio::Relay},
    model::{Bundle, ContainerId, Mount, Pid, RuntimeOptions, StdioUris},
};

/// Everything one shim process serves.
#[derive(Debug)]
pub(crate) struct Shim<B: Backend> {
    backend: B,
    host: Host,
    herald: Herald,
    /// Never locked across an `await`: a hung container must not stop the others.
    tasks: Mutex<HashMap<ContainerId, Slot<B::Container>>>,
    shutdown: Notify,
}

/// A place in the table, taken before the work starts, so that an id is made once.
#[derive(Debug)]
enum Slot<C> {
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
}

impl<B: Backend> Shim<B> {
    pub(crate) fn new(backend: B, host: Host, herald: Herald) -> Self {
        Self { backend, host, herald, tasks: Mutex::default(), shutdown: Notify::new() }
    }

    /// Makes a task, or leaves nothing behind.
    pub(crate) async fn create(&self, request: CreateTask) -> Result<Pid> {
        let id = request.id.clone();
        self.reserve(&id)?;
        match self.make(request).await {
            Ok((task, exit)) => {
                let pid = task.state().pid.expect("a created task has a process");
                self.tasks().insert(id, Slot::There(Arc::clone(&task)));
                tokio::spawn(task.watch(exit));
                Ok(pid)
            }
            Err(err) => {
                self.tasks().remove(&id);
                Err(err)
            }
        }
    }

    async fn make(
        &self,
        request: CreateTask,
    ) -> Result<(Arc<Task<B::Container>>, crate::backend::ExitFuture)> {
        let CreateTask { id, bundle, rootfs, stdio, options } = request;
        let (relay, streams) = Relay::open(&stdio)?;
        mount::mount_all(&rootfs, &bundle.rootfs())?;
        let create = Create {
            id: id.clone(),
            bundle: bundle.clone(),
            rootfs: rootfs.clone(),
            streams,
            options,
            host: self.host.clone(),
        };
        let made = match self.backend.create(create).await {
            Ok(made) => made,
            Err(err) => {
                unmount(&rootfs, &bundle);
                return Err(err.context(format!("create {id}")));
            }
        };
        let (container, init) = (made.container, made.init);
        let console = match relay.run(init.terminal) {
            Ok(console) => console,
            Err(err) => {
                abandon(&container, init.exit).await;
                unmount(&rootfs, &bundle);
                return Err(err.context(format!("create {id}")));
            }
        };
        let pid = init.pid;
        // Read by `delete` alone, should this shim die.
        if let Err(err) = linux::record(&bundle, pid) {
            log::warn!("{err:#}");
        }
        self.herald.tell(&Event::Created {
            container: id.clone(),
            pid,
            bundle: bundle.clone(),
            rootfs,
            stdio: stdio.clone(),
        });
        let herald = self.herald.clone();
        let parts = Parts { id, bundle, stdio, container, pid, console, herald };
        Ok((Arc::new(Task::new(parts)), init.exit))
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
            Some(Slot::Coming) | None => {
                Err(Error::not_found(format!("container {id} does not exist")))
            }
        }
    }

    /// Ends the shim, unless it has a container.
    pub(crate) fn request_shutdown(&self) {
        if self.tasks().is_empty() {
            self.shutdown.notify_one();
        }
    }

    /// Waits until the shim may end.
    pub(crate) async fn shut_down(&self) {
        self.shutdown.notified().await;
    }

    fn reserve(&self, id: &ContainerId) -> Result<()> {
        match self.tasks().entry(id.clone()) {
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

/// Ends a container that was made and can't be used.
async fn abandon<C: crate::backend::Container>(container: &C, exit: crate::backend::ExitFuture) {
    use crate::{backend::Target, model::Signal};
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
