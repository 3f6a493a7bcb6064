//! The engine as a guest has it: what it hears of wants of memory, the host is to hear too.

use async_trait::async_trait;
use shim_core::{
    Backend, Checkpoint, Coming, Container, Create, Created, Exec, Host, Init, Process, Result,
    Target, Update,
    backend::ExitFuture,
    model::{About, Bundle, ContainerId, Namespace, Pid, Signal, Stats},
};
use shim_runc::NativeBackend;

use super::memory::{Kills, Note};

/// The engine, and the notes of its containers.
pub(super) struct GuestBackend {
    engine: NativeBackend,
    kills: Kills,
}

/// A container whose wants of memory are noted.
pub(super) struct GuestContainer {
    id: ContainerId,
    inner: Box<dyn Container>,
    kills: Kills,
    note: Note,
}

impl GuestBackend {
    pub(super) fn new(engine: NativeBackend, kills: Kills) -> Self {
        Self { engine, kills }
    }
}

#[async_trait]
impl Backend for GuestBackend {
    type Container = GuestContainer;

    fn about(&self) -> About {
        self.engine.about()
    }

    fn open(&mut self, host: Host) -> Result<()> {
        self.engine.open(host)
    }

    async fn prepare(&self, coming: &Coming) {
        self.engine.prepare(coming).await;
    }

    async fn abandon(&self, id: &ContainerId) {
        self.engine.abandon(id).await;
    }

    async fn create(&self, request: Create) -> Result<Created<GuestContainer>> {
        let id = request.id.clone();
        let made = self.engine.create(request).await?;
        let note = self.kills.begin(&id);
        let init = match made.init {
            Init::Made(process) => {
                Init::Made(Process { exit: noted(process.exit, note.clone()), ..process })
            }
            Init::AtStart => Init::AtStart,
        };
        let container =
            GuestContainer { id, inner: made.container, kills: self.kills.clone(), note };
        Ok(Created { container, init })
    }

    fn clean_up(&self, namespace: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()> {
        self.engine.clean_up(namespace, id, bundle)
    }
}

/// An end, before which whatever wants of memory there were has been noted: the framework looks for those
/// first.
fn noted(exit: ExitFuture, note: Note) -> ExitFuture {
    Box::pin(async move {
        let exit = exit.await;
        note.end();
        exit
    })
}

#[async_trait]
impl Container for GuestContainer {
    async fn start(&self) -> Result<()> {
        self.inner.start().await
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        self.inner.kill(target, signal).await
    }

    async fn delete(&self) -> Result<()> {
        self.inner.delete().await?;
        self.kills.forget(&self.id);
        Ok(())
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        self.inner.exec(request).await
    }

    async fn pause(&self) -> Result<()> {
        self.inner.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.inner.resume().await
    }

    async fn update(&self, request: &Update) -> Result<()> {
        self.inner.update(request).await
    }

    async fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        self.inner.checkpoint(request).await
    }

    async fn restore(&self) -> Result<Process> {
        let process = self.inner.restore().await?;
        Ok(Process { exit: noted(process.exit, self.note.clone()), ..process })
    }

    async fn stats(&self) -> Result<Stats> {
        self.inner.stats().await
    }

    async fn out_of_memory(&self) -> Result<()> {
        self.inner.out_of_memory().await?;
        self.note.one_more();
        Ok(())
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        self.inner.pids().await
    }
}
