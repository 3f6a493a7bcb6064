//! The calls of a sequence.

use std::fmt;

use super::random::Random;

/// One of the execs that a sequence plays with.
pub(crate) type Slot = usize;

/// How many there are.
pub(crate) const SLOTS: usize = 2;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Start,
    State,
    /// With SIGKILL.
    Kill,
    /// With signal 0, which only asks.
    Probe,
    Wait,
    Delete,
    Pause,
    Resume,
    Pids,
    Stats,
    Update,
    Connect,
    /// With the container there, it does nothing.
    Shutdown,
    Exec(Slot),
    StartExec(Slot),
    StateExec(Slot),
    KillExec(Slot),
    WaitExec(Slot),
    DeleteExec(Slot),
}

impl Op {
    /// Any call; those that lead on come more often than those that only look.
    pub(super) fn any(random: &mut Random) -> Self {
        let slot = random.below(SLOTS);
        let choices = [
            Self::Create,
            Self::Create,
            Self::Create,
            Self::Start,
            Self::Start,
            Self::Start,
            Self::State,
            Self::State,
            Self::Kill,
            Self::Probe,
            Self::Wait,
            Self::Delete,
            Self::Pause,
            Self::Resume,
            Self::Resume,
            Self::Pids,
            Self::Stats,
            Self::Update,
            Self::Connect,
            Self::Shutdown,
            Self::Exec(slot),
            Self::Exec(slot),
            Self::Exec(slot),
            Self::StartExec(slot),
            Self::StartExec(slot),
            Self::StartExec(slot),
            Self::StateExec(slot),
            Self::KillExec(slot),
            Self::WaitExec(slot),
            Self::DeleteExec(slot),
        ];
        random.of(&choices)
    }
}

/// A sequence as a reader wants it: `Create, Start, Exec(0)`.
pub(crate) struct Sequence<'a>(pub(crate) &'a [Op]);

impl fmt::Display for Sequence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, op) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{op:?}")?;
        }
        Ok(())
    }
}
