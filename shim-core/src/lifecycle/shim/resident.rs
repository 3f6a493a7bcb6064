//! The sandbox's place among the tasks: the shim stays for it, and knows its process.

use std::time::Duration;

use tokio::time;

use super::{Shim, Slot};
use crate::{
    backend::{Backend, Host},
    error::Result,
    model::{ContainerId, Pid},
};

/// How long the ends of the last containers may take to be told.
const LAST_ENDS: Duration = Duration::from_secs(3);

impl<B: Backend> Shim<B> {
    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Takes the sandbox's place, and what was prepared for it.
    pub(crate) async fn move_in(&self, id: &ContainerId) -> Result<()> {
        self.reserve(id, Slot::Sandbox(None))?;
        self.ahead.take(id).await;
        Ok(())
    }

    /// Notes the sandbox's process.
    pub(crate) fn found(&self, id: &ContainerId, pid: Pid) {
        if let Some(Slot::Sandbox(known)) = self.tasks().slots.get_mut(id) {
            *known = Some(pid);
        }
    }

    /// Leaves the sandbox's place.
    pub(crate) fn move_out(&self, id: &ContainerId) {
        self.forget(id);
    }

    /// The process of the sandbox, if that is its id.
    pub(crate) fn resident(&self, id: &ContainerId) -> Option<Option<Pid>> {
        match self.tasks().slots.get(id) {
            Some(Slot::Sandbox(pid)) => Some(*pid),
            _ => None,
        }
    }

    /// Ends the shim, whatever it holds: containers have ended with their sandbox, and that is told first.
    pub(crate) async fn end(&self) {
        self.refuse_more();
        let tasks: Vec<_> = self.tasks().slots.values().filter_map(Slot::task).collect();
        let all = async {
            for task in tasks {
                task.wait().await;
            }
        };
        if time::timeout(LAST_ENDS, all).await.is_err() {
            log::warn!("a container outlives its sandbox");
        }
        self.shutdown.notify_one();
    }
}
