//! The rule book: which operation is legal when. Pure: no I/O, no `await`.
//!
//! A deleted process has no state: it is absent from its table. A kill is no operation of the table:
//! it takes no turn and is tried in any state.

use std::fmt;

use super::cell::Rules;
use crate::{
    error::{Error, Kind},
    model::{Exit, Pid},
};

/// Where an init process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitState {
    /// It is in a checkpoint and has no process yet.
    Saved,
    /// It exists and has not run the user's program.
    Created(Pid),
    /// It runs.
    Running(Pid),
    /// It is frozen with the rest of its container.
    Paused(Pid),
    /// It has ended, or could not be restored and never was a process.
    Stopped(Option<Pid>, Exit),
}

/// Where an exec is in its life. An exec can't be paused alone, so there is no such state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecState {
    /// It is known and has no process.
    Added,
    /// It runs.
    Running(Pid),
    /// It has ended.
    Stopped(Pid, Exit),
    /// It could not be started and never had a process.
    Failed(Exit),
}

/// What a client may ask of an init process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitOp {
    /// Run the user's program.
    Start,
    /// Add a process beside it.
    Exec,
    /// Freeze the container.
    Pause,
    /// Thaw it.
    Resume,
    /// Change its limits.
    Update,
    /// Save the container.
    Checkpoint,
    /// Free the container.
    Delete,
}

/// What a client may ask of an exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecOp {
    /// Make its process.
    Start,
    /// Forget it.
    Delete,
}

/// The phases that the wire knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running,
    Paused,
    Stopped,
}

/// An operation that came at the wrong time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {op} a {phase} process")]
pub(crate) struct Refused {
    op: &'static str,
    phase: Phase,
}

impl InitState {
    /// The process, whatever became of it.
    pub(crate) fn pid(self) -> Option<Pid> {
        match self {
            Self::Saved => None,
            Self::Created(pid) | Self::Running(pid) | Self::Paused(pid) => Some(pid),
            Self::Stopped(pid, _) => pid,
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(_, exit) => Some(exit),
            Self::Saved | Self::Created(_) | Self::Running(_) | Self::Paused(_) => None,
        }
    }

    /// As the wire has it.
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Saved | Self::Created(_) => Phase::Created,
            Self::Running(_) => Phase::Running,
            Self::Paused(_) => Phase::Paused,
            Self::Stopped(..) => Phase::Stopped,
        }
    }

    /// One row a state.
    fn permits(self, op: InitOp) -> bool {
        use InitOp::{Checkpoint, Delete, Exec, Pause, Resume, Start, Update};
        match self {
            Self::Saved => matches!(op, Start | Delete),
            Self::Created(_) => matches!(op, Start | Exec | Update | Delete),
            Self::Running(_) => matches!(op, Exec | Pause | Update | Checkpoint),
            Self::Paused(_) => matches!(op, Resume | Update | Checkpoint),
            Self::Stopped(..) => matches!(op, Delete),
        }
    }
}

impl ExecState {
    /// The process, if there ever was one.
    pub(crate) fn pid(self) -> Option<Pid> {
        match self {
            Self::Added | Self::Failed(_) => None,
            Self::Running(pid) | Self::Stopped(pid, _) => Some(pid),
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(_, exit) | Self::Failed(exit) => Some(exit),
            Self::Added | Self::Running(_) => None,
        }
    }

    /// As the wire has it.
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Added => Phase::Created,
            Self::Running(_) => Phase::Running,
            Self::Stopped(..) | Self::Failed(_) => Phase::Stopped,
        }
    }

    fn permits(self, op: ExecOp) -> bool {
        use ExecOp::{Delete, Start};
        match self {
            Self::Added => matches!(op, Start | Delete),
            Self::Running(_) => false,
            Self::Stopped(..) | Self::Failed(_) => matches!(op, Delete),
        }
    }
}

impl Rules for InitState {
    type Op = InitOp;
    type Refused = Refused;

    fn check(&self, op: InitOp) -> Result<(), Refused> {
        if self.permits(op) {
            return Ok(());
        }
        Err(Refused { op: op.verb(), phase: self.phase() })
    }
}

impl Rules for ExecState {
    type Op = ExecOp;
    type Refused = Refused;

    fn check(&self, op: ExecOp) -> Result<(), Refused> {
        if self.permits(op) {
            return Ok(());
        }
        Err(Refused { op: op.verb(), phase: self.phase() })
    }
}

impl InitOp {
    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exec => "exec in",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Delete => "delete",
        }
    }
}

impl ExecOp {
    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::new(Kind::FailedPrecondition, refused.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExitStatus;

    fn legal<S: Rules<Op = O> + Copy, O: Copy>(state: S, ops: &[O]) -> Vec<bool> {
        ops.iter().map(|op| state.check(*op).is_ok()).collect()
    }

    #[test]
    fn every_state_of_an_init_process_permits_just_its_row() {
        use InitOp::*;
        let pid = Pid::new(7).unwrap();
        let ops = [Start, Exec, Pause, Resume, Update, Checkpoint, Delete];
        let ended = InitState::Stopped(Some(pid), Exit::now(ExitStatus::Code(0)));
        let rows = [
            (InitState::Saved, [true, false, false, false, false, false, true]),
            (InitState::Created(pid), [true, true, false, false, true, false, true]),
            (InitState::Running(pid), [false, true, true, false, true, true, false]),
            (InitState::Paused(pid), [false, false, false, true, true, true, false]),
            (ended, [false, false, false, false, false, false, true]),
        ];
        for (state, row) in rows {
            assert_eq!(legal(state, &ops), row, "{state:?}");
        }
    }

    #[test]
    fn every_state_of_an_exec_permits_just_its_row() {
        let pid = Pid::new(7).unwrap();
        let exit = Exit::now(ExitStatus::Unknown);
        let ops = [ExecOp::Start, ExecOp::Delete];
        assert_eq!(legal(ExecState::Added, &ops), [true, true]);
        assert_eq!(legal(ExecState::Running(pid), &ops), [false, false]);
        assert_eq!(legal(ExecState::Stopped(pid, exit), &ops), [false, true]);
        assert_eq!(legal(ExecState::Failed(exit), &ops), [false, true]);
    }

    #[test]
    fn a_refusal_names_the_verb_and_the_phase() {
        let refused = InitState::Running(Pid::new(7).unwrap()).check(InitOp::Delete).unwrap_err();
        let err = Error::from(refused);
        assert_eq!(err.to_string(), "cannot delete a running process");
        assert_eq!(err.kind(), Kind::FailedPrecondition);
    }
}
