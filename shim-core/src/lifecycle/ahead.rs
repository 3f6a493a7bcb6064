//! The container that the shim was started for, before it is asked for.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Mutex as Turn, time::timeout};

use crate::{
    backend::{Backend, Coming},
    model::ContainerId,
};

/// How long a backend that hangs may keep the shim from ending. Less than `delete` waits for an answer.
const LIMIT: Duration = Duration::from_millis(500);

/// What a backend has prepared, and for whom.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    whose: Mutex<Option<ContainerId>>,
    /// Taken while the backend prepares. Only those wait for it whom that is for.
    turn: Turn<()>,
}

impl Ahead {
    /// Has the backend prepare a container, if it is still to come.
    pub(super) async fn prepare<B: Backend>(
        &self,
        backend: &B,
        coming: Coming,
        is_coming: impl FnOnce(&ContainerId) -> bool,
    ) {
        let _turn = self.turn.lock().await;
        if is_coming(&coming.id) {
            *self.whose() = Some(coming.id.clone());
            backend.prepare(&coming).await;
        }
    }

    /// Leaves what is prepared for a container to the backend that creates it.
    pub(super) async fn take(&self, id: &ContainerId) {
        let _taken = self.claim(|known| known == id).await;
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
            if let Some(id) = self.claim(which).await {
                backend.abandon(&id).await;
            }
        };
        if timeout(LIMIT, abandoned).await.is_err() {
            log::warn!("what was prepared for a container is left behind: the backend hangs");
        }
    }

    /// Takes it for one caller, once it is complete.
    async fn claim(&self, which: impl Fn(&ContainerId) -> bool) -> Option<ContainerId> {
        if !self.whose().as_ref().is_some_and(&which) {
            return None;
        }
        let _turn = self.turn.lock().await;
        self.whose().take_if(|known| which(known))
    }

    fn whose(&self) -> MutexGuard<'_, Option<ContainerId>> {
        self.whose.lock().expect("nobody panics with it locked")
    }
}
