//! The execs of a container: processes added to it, by their ids.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard},
};

use super::{Deleted, ExecProcess, ExecState, InitOp, InitState, ProcessState, Task};
use crate::{
    backend::Container,
    error::{Error, Kind, Result},
    event::Event,
    lifecycle::state::ExecOp,
    model::{ExecId, Exit, ExitStatus, Pid, Signal, StdioUris},
};

impl<C: Container> Task<C> {
    /// Adds an exec.
    pub(crate) async fn add_exec(
        &self,
        id: ExecId,
        process: oci_spec::runtime::Process,
        stdio: StdioUris,
    ) -> Result<()> {
        let _step = self.init.begin(InitOp::Exec).await?;
        let mut execs = self.execs();
        if execs.contains_key(&id) {
            return Err(Error::new(Kind::AlreadyExists, format!("exec {id} exists already")));
        }
        let (container, herald) = (self.id.clone(), self.herald.clone());
        let exec = ExecProcess::new(container, id.clone(), process, stdio, herald);
        execs.insert(id.clone(), Arc::new(exec));
        drop(execs);
        self.herald.tell(&Event::ExecAdded { container: self.id.clone(), exec: id });
        Ok(())
    }

    /// Makes an exec's process.
    pub(crate) async fn start_exec(&self, id: &ExecId) -> Result<Pid> {
        let exec = self.exec(id)?;
        match self.init.current() {
            InitState::Created(_) | InitState::Running(_) => {
                exec.start(&self.container, &self.peers).await
            }
            InitState::Paused(_) => {
                Err(Error::new(Kind::FailedPrecondition, "cannot exec in a paused process"))
            }
            InitState::Saved | InitState::Stopped(..) => {
                Err(Error::new(Kind::FailedPrecondition, "init process is not running"))
            }
        }
    }

    /// Signals an exec.
    pub(crate) async fn kill_exec(&self, id: &ExecId, signal: Signal) -> Result<()> {
        self.exec(id)?.kill(&self.container, signal).await
    }

    /// Forgets an exec that has ended or never ran.
    pub(crate) async fn delete_exec(&self, id: &ExecId) -> Result<Deleted> {
        let exec = self.exec(id)?;
        let step = exec.cell.begin(ExecOp::Delete).await?;
        // Two deletions may have waited for the same turn.
        if self.execs().remove(id).is_none() {
            return Err(no_exec(id));
        }
        exec.console.close().await;
        let state = exec.cell.current();
        let exit = state.exit().unwrap_or(Exit::now(ExitStatus::Code(0)));
        let deleted = Deleted { pid: state.pid(), exit };
        self.tell_deleted(Some(id), &deleted);
        if state == ExecState::Added {
            // Whoever waits for its end hears that there will be none.
            step.commit(ExecState::Failed(exit));
        }
        Ok(deleted)
    }

    /// Tells those who wait for execs that were never started: their container is gone.
    pub(super) async fn forget_unstarted_execs(&self) {
        let execs: Vec<_> = self.execs().values().cloned().collect();
        for exec in execs {
            let step = exec.cell.turn().await;
            if exec.cell.current() == ExecState::Added {
                step.commit(ExecState::Failed(Exit::now(ExitStatus::Unknown)));
            }
        }
    }

    /// An exec as it is.
    pub(crate) fn exec_state(&self, id: &ExecId) -> Result<ProcessState> {
        let exec = self.exec(id)?;
        let state = exec.cell.current();
        Ok(ProcessState {
            phase: state.phase(),
            pid: state.pid(),
            exit: state.exit(),
            stdio: exec.stdio.clone(),
        })
    }

    /// Waits until none runs.
    pub(super) async fn execs_ended(&self) {
        let execs: Vec<_> = self.execs().values().cloned().collect();
        for exec in execs {
            // A start on its way ends first; one that comes later finds the container ended.
            drop(exec.cell.turn().await);
            let over = |state: &ExecState| (!matches!(state, ExecState::Running(_))).then_some(());
            exec.cell.until(over).await;
        }
    }

    /// Finds an exec.
    pub(crate) fn exec(&self, id: &ExecId) -> Result<Arc<ExecProcess>> {
        self.execs().get(id).cloned().ok_or_else(|| no_exec(id))
    }

    pub(super) fn execs(&self) -> MutexGuard<'_, HashMap<ExecId, Arc<ExecProcess>>> {
        self.execs.lock().expect("nobody panics with the execs locked")
    }
}

fn no_exec(id: &ExecId) -> Error {
    Error::not_found(format!("exec {id} does not exist"))
}
