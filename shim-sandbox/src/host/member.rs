//! A container of a pod: its files are shared with the guest, and it is made there.

use std::sync::Arc;

use async_trait::async_trait;
use shim_core::{
    Checkpoint, Container, Context, Create, Created, Exec, Process, Result, Target, Update,
    model::{ContainerId, Pid, Signal, Stats},
};

use super::{
    container::{self, GuestContainer},
    pod::Pod,
    spec::Prepared,
};

/// A container in a guest, and what it has on the host.
pub(super) struct Member {
    pod: Arc<Pod>,
    id: ContainerId,
    guest: GuestContainer,
    /// The pod is there for it.
    is_owner: bool,
}

impl Member {
    /// Makes a container, or leaves nothing of it.
    pub(super) async fn make(
        pod: &Arc<Pod>,
        prepared: Prepared,
        request: Create,
        is_owner: bool,
    ) -> Result<Created<Box<dyn Container>>> {
        let id = request.id.clone();
        let made = Self::share_and_make(pod, prepared, request).await;
        match made {
            Ok(Created { container: guest, init }) => {
                let member = Self { pod: Arc::clone(pod), id, guest, is_owner };
                Ok(Created { container: Box::new(member), init })
            }
            Err(err) => {
                if let Err(left) = pod.share().remove(&id) {
                    log::warn!("after a failed create: {left:#}");
                }
                Err(err)
            }
        }
    }

    async fn share_and_make(
        pod: &Pod,
        prepared: Prepared,
        request: Create,
    ) -> Result<Created<GuestContainer>> {
        let machine = pod.machine()?;
        let (id, share) = (&request.id, pod.share());
        let rootfs = share.add_rootfs(id, &request.bundle.rootfs())?;
        for (number, volume) in prepared.volumes.iter().enumerate() {
            share.add_volume(id, number, &volume.source, volume.read_only)?;
        }
        let spec = serde_json::to_vec(&prepared.spec).context("write the guest's spec")?;
        let wanted = container::Wanted {
            id: request.id,
            spec,
            rootfs: Some(container::Rootfs::Shared(rootfs)),
            streams: request.streams,
            machine: machine.pid(),
        };
        container::create(&machine.agent, wanted).await
    }
}

#[async_trait]
impl Container for Member {
    async fn start(&self) -> Result<()> {
        self.guest.start().await
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        self.guest.kill(target, signal).await
    }

    async fn delete(&self) -> Result<()> {
        self.guest.delete().await?;
        self.pod.share().remove(&self.id)?;
        if self.is_owner {
            self.pod.delete().await?;
        }
        Ok(())
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        self.guest.exec(request).await
    }

    async fn pause(&self) -> Result<()> {
        self.guest.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.guest.resume().await
    }

    async fn update(&self, request: &Update) -> Result<()> {
        self.guest.update(request).await
    }

    async fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        self.guest.checkpoint(request).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.guest.stats().await
    }

    async fn out_of_memory(&self) -> Result<()> {
        self.guest.out_of_memory().await
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        self.guest.pids().await
    }
}
