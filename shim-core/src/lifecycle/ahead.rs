//! The container that the shim was started for, before it is asked for.

use std::time::Duration;

use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use crate::{
    backend::{Backend, Coming},
    model::ContainerId,
};

/// How long a backend that hangs may keep the shim from ending. Less than `delete` waits for an answer.
const LIMIT: Duration = Duration::from_millis(500);

/// For whom the backend has something prepared. Locked while it prepares.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Option<ContainerId>>);

impl Ahead {
    /// Has the backend prepare a container, if it is still to come.
    pub(super) async fn prepare<B: Backend>(
        &self,
        backend: &B,
        coming: Coming,
        is_coming: impl FnOnce(&ContainerId) -> bool,
    ) {
        let mut ahead = self.0.lock().await;
        if is_coming(&coming.id) {
            *ahead = Some(coming.id.clone());
            backend.prepare(&coming).await;
        }
    }

    /// Leaves what is prepared for a container to the backend that creates it.
    pub(super) async fn take(&self, id: &ContainerId) {
        let _taken = self.0.lock().await.take_if(|known| known == id);
    }

    /// Has the backend remove what is prepared for a container, if that has not been created.
    pub(super) async fn abandon<B: Backend>(&self, backend: &B, id: &ContainerId) {
        self.abandon_if(backend, |known| known == id).await;
    }

    /// Has it remove whatever is prepared.
    pub(super) async fn abandon_all<B: Backend>(&self, backend: &B) {
        self.abandon_if(backend, |_| true).await;
    }

    async fn abandon_if<B: Backend>(&self, backend: &B, which: impl Fn(&ContainerId) -> bool) {
        let abandoned = async {
            let mut ahead: MutexGuard<'_, _> = self.0.lock().await;
            if let Some(id) = ahead.take_if(|known| which(known)) {
                backend.abandon(&id).await;
            }
        };
        if timeout(LIMIT, abandoned).await.is_err() {
            log::warn!("what was prepared for a container is left behind: the backend hangs");
        }
    }
}
