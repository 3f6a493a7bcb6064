//! How an init process comes to run: it was made by Create and waits, or is in a checkpoint.

use std::sync::Arc;

use tokio::time;

use super::{FAILED_START_LIMIT, InitOp, InitState, Task};
use crate::{
    backend::{Container, Process},
    error::{Context, Result},
    event::Event,
    linux,
    model::{Exit, ExitStatus, Pid},
};

impl<C: Container> Task<C> {
    /// Runs the user's program.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<Pid> {
        let step = self.init.begin(InitOp::Start).await?;
        let started = match self.init.current().pid() {
            Some(pid) => self.container.start().await.map(|()| (pid, None)),
            None => self.restore().await.map(|(pid, exit)| (pid, Some(exit))),
        };
        match started {
            Ok((pid, exit)) => {
                self.herald.tell(&Event::Started { container: self.id.clone(), pid });
                step.commit(InitState::Running(pid));
                if let Some(exit) = exit {
                    tokio::spawn(Arc::clone(self).watch(pid, exit));
                }
                Ok(pid)
            }
            Err(err) => {
                match self.init.current() {
                    // What was never a process has no end to wait for.
                    InitState::Saved => {
                        step.commit(InitState::Stopped(None, Exit::now(ExitStatus::Unknown)));
                    }
                    _ => {
                        drop(step);
                        self.end_after_failed_start().await;
                    }
                }
                Err(err)
            }
        }
    }

    /// Makes the process of a checkpoint.
    async fn restore(&self) -> Result<(Pid, crate::backend::ExitFuture)> {
        let relay = self.take_relay();
        let Process { pid, exit, terminal } = self.container.restore().await.context("restore")?;
        match relay.unwrap_or_default().run(terminal) {
            Ok(console) => self.console.arrive(console),
            // The process lives; it can be killed, but not be talked to.
            Err(err) => log::warn!("streams of {}: {err:#}", self.id),
        }
        if let Err(err) = linux::record(&self.bundle, pid) {
            log::warn!("{err:#}");
        }
        Ok((pid, exit))
    }

    /// What could not run is ending. containerd's clients look once, and delete only what has
    /// stopped: so the answer comes after that.
    async fn end_after_failed_start(&self) {
        if time::timeout(FAILED_START_LIMIT, self.wait()).await.is_err() {
            log::warn!("the process of {} outlives its failed start", self.id);
        }
    }
}
