//! An exec: a process added to a container, from Exec to its Delete.

use std::sync::Arc;

use super::{
    cell::StateCell,
    console::LateConsole,
    state::{ExecOp, ExecState},
};
use crate::{
    backend::{Container, Exec, ExitFuture, Target},
    error::{Context, Error, Kind, Result},
    event::{Event, Herald},
    linux::stdio::{Peers, Relay},
    model::{ContainerId, ExecId, Exit, ExitStatus, Pid, Signal, StdioUris, WindowSize},
};

/// One added process.
#[derive(Debug)]
pub(crate) struct ExecProcess {
    pub(crate) id: ExecId,
    pub(crate) stdio: StdioUris,
    pub(crate) cell: StateCell<ExecState>,
    pub(super) console: LateConsole,
    container: ContainerId,
    process: oci_spec::runtime::Process,
    herald: Herald,
}

impl ExecProcess {
    /// A process that is known and not made yet.
    pub(crate) fn new(
        container: ContainerId,
        id: ExecId,
        process: oci_spec::runtime::Process,
        stdio: StdioUris,
        herald: Herald,
    ) -> Self {
        let (cell, console) = (StateCell::new(ExecState::Added), LateConsole::default());
        Self { id, stdio, cell, console, container, process, herald }
    }

    /// Makes the process. What keeps it from running releases those who wait for its end.
    pub(crate) async fn start<C: Container>(
        self: Arc<Self>,
        container: &C,
        peers: &Peers,
    ) -> Result<Pid> {
        let step = self.cell.begin(ExecOp::Start).await?;
        match self.make(container, peers).await {
            Ok((pid, exit)) => {
                self.herald.tell(&Event::ExecStarted {
                    container: self.container.clone(),
                    exec: self.id.clone(),
                    pid,
                });
                step.commit(ExecState::Running(pid));
                tokio::spawn(Arc::clone(&self).watch(pid, exit));
                Ok(pid)
            }
            Err(err) => {
                step.commit(ExecState::Failed(Exit::now(ExitStatus::Unknown)));
                Err(err)
            }
        }
    }

    async fn make<C: Container>(&self, container: &C, peers: &Peers) -> Result<(Pid, ExitFuture)> {
        let (relay, streams) = Relay::open(&self.stdio, &self.container, peers).await?;
        let request = Exec { id: self.id.clone(), process: self.process.clone(), streams };
        let process = container.exec(request).await.with_context(|| format!("exec {}", self.id))?;
        match relay.run(process.terminal) {
            Ok(console) => self.console.arrive(console),
            // The process lives; it can be killed, but not be talked to.
            Err(err) => log::warn!("streams of exec {}: {err:#}", self.id),
        }
        Ok((process.pid, process.exit))
    }

    async fn watch(self: Arc<Self>, pid: Pid, exit: ExitFuture) {
        let exit = exit.await;
        self.console.drained().await;
        let step = self.cell.turn().await;
        self.herald.tell(&Event::Exited {
            container: self.container.clone(),
            exec: Some(self.id.clone()),
            pid,
            exit,
        });
        step.commit(ExecState::Stopped(pid, exit));
    }

    /// Signals the process, at any moment of its life.
    pub(crate) async fn kill<C: Container>(&self, container: &C, signal: Signal) -> Result<()> {
        match self.cell.current() {
            ExecState::Running(pid) => {
                container.kill(Target::Exec { id: &self.id, pid }, signal).await
            }
            ExecState::Added => Err(Error::new(Kind::FailedPrecondition, "process not created")),
            ExecState::Stopped(..) | ExecState::Failed(_) => {
                Err(Error::not_found("process already finished"))
            }
        }
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Exit {
        self.cell.until(|state| state.exit()).await
    }

    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        self.console.resize(size)
    }

    pub(crate) fn close_stdin(&self) {
        self.console.close_stdin();
    }
}
