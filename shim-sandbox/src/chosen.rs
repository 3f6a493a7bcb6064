//! Which of the backends runs this shim's pod: the administrator's choice, which is known once containerd
//! asks for something, and stays.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use shim_core::{
    Backend, Coming, Container, Create, CreateSandbox, Created, Host, Result, Sandbox,
    SandboxBackend,
    model::{About, Bundle, ContainerId, Namespace, RuntimeOptions},
};

use crate::{config::Backend as Kind, gvisor::Gvisor, host::MicroVm, started::Started};

/// All backends, of which one is used.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    machines: MicroVm,
    gvisor: Gvisor,
    kind: OnceLock<Kind>,
    started: Started,
}

impl Chosen {
    /// What is chosen, by all options that are known now.
    fn kind(&self, more: &[RuntimeOptions]) -> Result<Kind> {
        if let Some(kind) = self.kind.get() {
            return Ok(*kind);
        }
        let kind = self.started.config(more)?.backend;
        Ok(*self.kind.get_or_init(|| kind))
    }
}

#[async_trait]
impl Backend for Chosen {
    type Container = Box<dyn Container>;

    fn about(&self) -> About {
        self.machines.about()
    }

    fn open(&mut self, host: Host) -> Result<()> {
        self.machines.open(host.clone())?;
        self.gvisor.open(host)
    }

    async fn prepare(&self, coming: &Coming) {
        self.started.learn(&coming.options);
        self.machines.prepare(coming).await;
        self.gvisor.prepare(coming).await;
    }

    async fn create(&self, request: Create) -> Result<Created<Box<dyn Container>>> {
        match self.kind(request.options.as_slice())? {
            Kind::Gvisor => self.gvisor.create(request).await,
            Kind::Qemu | Kind::Process => self.machines.create(request).await,
        }
    }

    fn clean_up(&self, namespace: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()> {
        // Whose they were is told by what they left: each removes its own, and the journal both.
        self.gvisor.clean_up(namespace, id, bundle)
    }
}

#[async_trait]
impl SandboxBackend for Chosen {
    async fn create_sandbox(&self, request: CreateSandbox) -> Result<Arc<dyn Sandbox>> {
        match self.kind(&request.options)? {
            Kind::Gvisor => self.gvisor.create_sandbox(request).await,
            Kind::Qemu | Kind::Process => self.machines.create_sandbox(request).await,
        }
    }
}
