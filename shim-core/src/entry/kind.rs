//! What a shim serves beside tasks. A shim without sandboxes carries nothing of them.

use std::{collections::HashMap, sync::Arc};

use ttrpc::r#async::Service;

use crate::{
    backend::{Backend, SandboxBackend},
    lifecycle::{Pods, Shim},
    model::RuntimeOptions,
    service,
};

/// A kind of shim.
pub(super) trait Kind<B: Backend> {
    /// Whether a pod always has a shim of its own.
    fn is_a_pods(&self) -> bool;

    /// The services beside the task service. `options` are those that `start` was told.
    fn services(
        self,
        shim: &Arc<Shim<B>>,
        options: Vec<RuntimeOptions>,
    ) -> HashMap<String, Service>;
}

/// Tasks alone.
pub(super) struct Containers;

/// Tasks in a sandbox.
pub(super) struct Sandboxed;

impl<B: Backend> Kind<B> for Containers {
    fn is_a_pods(&self) -> bool {
        false
    }

    fn services(self, _: &Arc<Shim<B>>, _: Vec<RuntimeOptions>) -> HashMap<String, Service> {
        HashMap::new()
    }
}

impl<B: SandboxBackend> Kind<B> for Sandboxed {
    fn is_a_pods(&self) -> bool {
        true
    }

    fn services(
        self,
        shim: &Arc<Shim<B>>,
        options: Vec<RuntimeOptions>,
    ) -> HashMap<String, Service> {
        service::sandbox_service(Pods::new(Arc::clone(shim), options))
    }
}
