//! The model: what a container and its execs are, and what each call does to them.

use super::op::{Op, SLOTS, Slot};

/// What a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Nothing,
    Created,
    Running,
    Paused,
    Stopped,
    Deleted,
}

/// What an exec is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ExecPhase {
    #[default]
    Nothing,
    Added,
    Running,
    Stopped,
}

/// What a call has to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It succeeds.
    Success,
    /// It is refused, with whatever code.
    Refusal,
    /// It is refused with NOT_FOUND.
    NotFound,
    /// It is refused with ALREADY_EXISTS.
    Taken,
    /// The contract leaves it open: the call is left out.
    Open,
}

/// A container's life so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) phase: Phase,
    pub(crate) execs: [ExecPhase; SLOTS],
    /// Topics of the events that have to come; those of one group in any order.
    pub(crate) told: Vec<Vec<String>>,
}

impl Life {
    /// What a call comes to, now.
    pub(crate) fn expect(&self, op: Op) -> Expected {
        use Expected::{NotFound, Open, Refusal, Success};
        match (self.phase, op) {
            (Phase::Nothing | Phase::Deleted, Op::Connect) => Success,
            // Without a container it would end the shim, and the sequence with it; and whether an
            // id can be used again is the shim's to say.
            (Phase::Nothing | Phase::Deleted, Op::Shutdown) | (Phase::Deleted, Op::Create) => Open,
            (Phase::Nothing, Op::Create) => Success,
            (Phase::Nothing | Phase::Deleted, _) => NotFound,
            (_, Op::Create) => Refusal,
            (_, Op::State | Op::Connect | Op::Shutdown) => Success,
            (phase, Op::Start) => success_if(phase == Phase::Created),
            // A frozen process dies of SIGKILL when it is thawed, or at once: kernels differ.
            (Phase::Paused, Op::Kill | Op::Probe | Op::KillExec(_)) => Open,
            (Phase::Stopped, Op::Kill | Op::Probe) => NotFound,
            (_, Op::Kill | Op::Probe) => Success,
            // It would wait for ever.
            (phase, Op::Wait) => if_else(phase == Phase::Stopped, Success, Open),
            // What has never run may go, or have to be killed first.
            (Phase::Created, Op::Delete) => Open,
            (phase, Op::Delete) => success_if(phase == Phase::Stopped),
            (phase, Op::Pause) => success_if(phase == Phase::Running),
            (phase, Op::Resume) => success_if(phase == Phase::Paused),
            // Of an ended container there may be nothing to tell, or nothing.
            (Phase::Stopped, Op::Pids | Op::Stats | Op::Update) => Open,
            (Phase::Created, Op::Update) => Open,
            (_, Op::Pids | Op::Stats | Op::Update) => Success,
            (_, op) => self.expect_of_exec(op),
        }
    }

    fn expect_of_exec(&self, op: Op) -> Expected {
        use Expected::{NotFound, Open, Refusal, Success, Taken};
        let exec = |slot: Slot| self.execs[slot];
        match (op, self.phase) {
            (Op::Exec(slot), _) if exec(slot) != ExecPhase::Nothing => {
                if_else(self.phase == Phase::Running, Taken, Refusal)
            }
            (Op::Exec(_), Phase::Running) => Success,
            // runc's shim takes it and fails to start it; others refuse it.
            (Op::Exec(_), Phase::Created) => Open,
            (Op::Exec(_), _) => Refusal,
            (
                Op::StartExec(slot)
                | Op::StateExec(slot)
                | Op::KillExec(slot)
                | Op::WaitExec(slot)
                | Op::DeleteExec(slot),
                _,
            ) if exec(slot) == ExecPhase::Nothing => NotFound,
            (Op::StartExec(slot), phase) => match (exec(slot), phase) {
                (ExecPhase::Added, Phase::Running) => Success,
                (ExecPhase::Added, Phase::Paused) => Open,
                _ => Refusal,
            },
            (Op::KillExec(slot), _) => match exec(slot) {
                ExecPhase::Running => Success,
                ExecPhase::Stopped => NotFound,
                _ => Refusal,
            },
            (Op::WaitExec(slot), _) => if_else(exec(slot) == ExecPhase::Stopped, Success, Open),
            (Op::DeleteExec(slot), phase) => match (exec(slot), phase) {
                (ExecPhase::Running, _) => Refusal,
                (_, Phase::Paused) => Open,
                _ => Success,
            },
            _ => Success,
        }
    }

    /// What a call that has succeeded leaves.
    pub(crate) fn follow(&mut self, op: Op) {
        match op {
            Op::Create => self.become_with(Phase::Created, "create"),
            Op::Start => self.become_with(Phase::Running, "start"),
            Op::Pause => self.become_with(Phase::Paused, "paused"),
            Op::Resume => self.become_with(Phase::Running, "resumed"),
            Op::Kill => self.end(),
            Op::Delete => self.become_with(Phase::Deleted, "delete"),
            Op::Exec(slot) => self.exec_with(slot, ExecPhase::Added, "exec-added"),
            Op::StartExec(slot) => self.exec_with(slot, ExecPhase::Running, "exec-started"),
            Op::KillExec(slot) => self.exec_with(slot, ExecPhase::Stopped, "exit"),
            Op::DeleteExec(slot) => self.execs[slot] = ExecPhase::Nothing,
            _ => {}
        }
    }

    fn become_with(&mut self, phase: Phase, topic: &str) {
        self.phase = phase;
        self.told.push(vec![topic.to_owned()]);
    }

    fn exec_with(&mut self, slot: Slot, phase: ExecPhase, topic: &str) {
        self.execs[slot] = phase;
        self.told.push(vec![format!("{topic} {}", name(slot))]);
    }

    /// The init process ends, and with it the pid namespace's others, which are told of first.
    fn end(&mut self) {
        let mut exits = Vec::new();
        for (slot, exec) in self.execs.iter_mut().enumerate() {
            if *exec == ExecPhase::Running {
                *exec = ExecPhase::Stopped;
                exits.push(format!("exit {}", name(slot)));
            }
        }
        if !exits.is_empty() {
            self.told.push(exits);
        }
        self.become_with(Phase::Stopped, "exit");
    }

    /// How many events have to come.
    pub(crate) fn count_told(&self) -> usize {
        self.told.iter().map(Vec::len).sum()
    }

    /// Whether those events are the ones that had to come.
    pub(crate) fn is_told_by(&self, topics: &[String]) -> bool {
        let mut rest = topics;
        for group in &self.told {
            let Some((now, later)) = rest.split_at_checked(group.len()) else { return false };
            let mut now = now.to_vec();
            now.sort();
            let mut group = group.clone();
            group.sort();
            if now != group {
                return false;
            }
            rest = later;
        }
        rest.is_empty()
    }
}

/// The exec id of a slot.
pub(crate) fn name(slot: Slot) -> String {
    format!("e{slot}")
}

fn success_if(is: bool) -> Expected {
    if_else(is, Expected::Success, Expected::Refusal)
}

fn if_else<T>(is: bool, yes: T, no: T) -> T {
    if is { yes } else { no }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ops: &[Op]) -> Life {
        let mut life = Life::default();
        for op in ops {
            assert_eq!(life.expect(*op), Expected::Success, "{op:?} of {ops:?}");
            life.follow(*op);
        }
        life
    }

    #[test]
    fn a_whole_life() {
        let life = after(&[
            Op::Create,
            Op::Start,
            Op::Exec(0),
            Op::StartExec(0),
            Op::Exec(1),
            Op::StartExec(1),
            Op::Kill,
            Op::DeleteExec(0),
            Op::Delete,
        ]);
        assert_eq!(life.phase, Phase::Deleted);
        let told = "create;start;exec-added e0;exec-started e0;exec-added e1;exec-started e1;\
                    exit e1;exit e0;exit;delete";
        let told: Vec<String> = told.split(';').map(str::to_owned).collect();
        assert!(life.is_told_by(&told));
        assert!(!life.is_told_by(&told[..9]));
        let mut late = told.clone();
        late.swap(7, 8);
        assert!(!life.is_told_by(&late), "an exec's exit comes before the container's");
    }

    #[test]
    fn what_is_refused() {
        let paused = after(&[Op::Create, Op::Start, Op::Exec(0), Op::Pause]);
        assert_eq!(paused.expect(Op::Pause), Expected::Refusal);
        assert_eq!(paused.expect(Op::Delete), Expected::Refusal);
        assert_eq!(paused.expect(Op::Exec(1)), Expected::Refusal);
        let running = after(&[Op::Create, Op::Start, Op::Exec(0)]);
        assert_eq!(running.expect(Op::Exec(0)), Expected::Taken);
        assert_eq!(running.expect(Op::StateExec(1)), Expected::NotFound);
        assert_eq!(Life::default().expect(Op::State), Expected::NotFound);
    }
}
