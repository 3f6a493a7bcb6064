//! A spec's profile as rules by call, one ABI at a time.

use std::borrow::Cow;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use shim_core::{Error, Result};

use super::abi::{ARM_PRIVATE, Abi, Numbers, Table, multiplexed};

/// What the kernel does with a call, `SECCOMP_RET_*` with a value in its low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_THREAD: Self = Self(0);
    pub(super) const ENOSYS: Self = Self::errno(libc::ENOSYS.unsigned_abs());
    /// An agent decides.
    const NOTIFY: Self = Self(0x7fc0_0000);

    const KILL_PROCESS: u32 = 0x8000_0000;
    const TRAP: u32 = 0x0003_0000;
    const ERRNO: u32 = 0x0005_0000;
    const TRACE: u32 = 0x7ff0_0000;
    const LOG: u32 = 0x7ffc_0000;
    const ALLOW: u32 = 0x7fff_0000;
    /// The part that tells actions apart.
    const KIND: u32 = 0xffff_0000;

    const fn errno(value: u32) -> Self {
        Self(Self::ERRNO | value & 0xffff)
    }

    fn of(action: LinuxSeccompAction, value: Option<u32>) -> Self {
        // EPERM where the profile gives no value, for a tracer too.
        let value = value.unwrap_or(libc::EPERM.unsigned_abs()) & 0xffff;
        match action {
            LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
                Self::KILL_THREAD
            }
            LinuxSeccompAction::ScmpActKillProcess => Self(Self::KILL_PROCESS),
            LinuxSeccompAction::ScmpActTrap => Self(Self::TRAP),
            LinuxSeccompAction::ScmpActErrno => Self::errno(value),
            LinuxSeccompAction::ScmpActTrace => Self(Self::TRACE | value),
            LinuxSeccompAction::ScmpActLog => Self(Self::LOG),
            LinuxSeccompAction::ScmpActAllow => Self(Self::ALLOW),
            LinuxSeccompAction::ScmpActNotify => Self::NOTIFY,
        }
    }

    /// The kernel's own order: of several filters, the strictest action wins.
    fn is_stricter_than(self, other: Self) -> bool {
        let rank = |action: Self| (action.0 & Self::KIND).cast_signed();
        rank(self) < rank(other)
    }

    /// Whether it lets calls through, so that one the profile does not know may do as it likes.
    fn lets_through(self) -> bool {
        matches!(self.0 & Self::KIND, Self::TRACE | Self::LOG | Self::ALLOW)
    }
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) index: u8,
    pub(super) test: Test,
    pub(super) value: u64,
}

/// How an argument is compared with a value, as unsigned numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// What is left of the argument under a mask is the value.
    Masked(u64),
    NotEqual,
}

/// An action when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Always(Action),
    /// The first rule that matches, else the default.
    Check(Vec<Rule>),
}

/// A profile that makes sense.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) default: Action,
    pub(super) listed: Vec<Arch>,
    /// In the order of the spec. One that only says what the default says is no rule, but its name
    /// is one that the profile knows.
    rules: Vec<(Name, Option<Rule>)>,
}

/// A call's name, looked up once for all ABIs.
#[derive(Clone, Copy, Debug)]
struct Name {
    numbers: Numbers,
    /// Its older way on i386: a call and an operation.
    multiplexed: Option<(u32, u32)>,
}

/// A profile in one ABI.
#[derive(Debug)]
pub(super) struct Calls {
    /// By number, each once.
    pub(super) verdicts: Vec<(u32, Verdict)>,
    /// The newest call that the profile knows, if newer ones are to fail with ENOSYS.
    pub(super) newest: Option<u32>,
}

impl Profile {
    /// Reads a spec's profile.
    pub(super) fn read(spec: &LinuxSeccomp) -> Result<Self> {
        let default = Action::of(spec.default_action(), spec.default_errno_ret());
        if default == Action::NOTIFY {
            // The process could not even say that there is a listener.
            let why = "seccomp profile: SCMP_ACT_NOTIFY can't be the default action";
            return Err(Error::invalid(why));
        }
        let table = Table::read();
        let mut rules = Vec::new();
        for syscall in spec.syscalls().iter().flatten() {
            let action = Action::of(syscall.action(), syscall.errno_ret());
            if action == Action::NOTIFY && syscall.names().iter().any(|name| name == "write") {
                let why = "seccomp profile: SCMP_ACT_NOTIFY can't be for write: a process tells of \
                           its listener by write";
                return Err(Error::invalid(why));
            }
            let alternatives = alternatives(syscall)?;
            for name in syscall.names() {
                if name.is_empty() {
                    return Err(Error::invalid("seccomp profile: a system call without a name"));
                }
                let name = Name { numbers: table.numbers(name), multiplexed: multiplexed(name) };
                if action == default {
                    rules.push((name, None));
                    continue;
                }
                for conditions in &alternatives {
                    rules.push((name, Some(Rule { conditions: conditions.clone(), action })));
                }
            }
        }
        let listed = spec.architectures().clone().unwrap_or_default();
        Ok(Self { default, listed, rules })
    }

    /// The rules by the numbers of one ABI.
    pub(super) fn calls(&self, abi: Abi) -> Calls {
        let mut rules: Vec<(u32, Option<Cow<'_, Rule>>)> = Vec::with_capacity(self.rules.len());
        for (name, rule) in &self.rules {
            if let Some(number) = name.numbers.of(abi) {
                rules.push((number, rule.as_ref().map(Cow::Borrowed)));
            }
            if abi == Abi::I386
                && let Some((number, operation)) = name.multiplexed
                && let Some(rule) = rule.as_ref().and_then(|rule| self.multiplexed(operation, rule))
            {
                rules.push((number, Some(Cow::Owned(rule))));
            }
        }
        // Stable: of one call's rules the order counts.
        rules.sort_by_key(|(number, _)| *number);
        let calls = rules.chunk_by(|(one, _), (other, _)| one == other);
        let verdicts = calls.map(|rules| (rules[0].0, self.verdict(rules))).collect();
        Calls { verdicts, newest: self.newest(abi) }
    }

    fn newest(&self, abi: Abi) -> Option<u32> {
        if self.default.lets_through() {
            return None;
        }
        let numbers = self.rules.iter().filter_map(|(name, _)| name.numbers.of(abi));
        // ARM's private calls are old. As runc, a profile that knows nothing of an ABI, or only
        // its first call, has no newest.
        numbers.filter(|number| *number < ARM_PRIVATE).max().filter(|number| *number > 0)
    }

    /// As libseccomp: a rule without conditions decides alone, wherever it stands.
    fn verdict(&self, rules: &[(u32, Option<Cow<'_, Rule>>)]) -> Verdict {
        let rules = || rules.iter().filter_map(|(_, rule)| rule.as_deref());
        match rules().find(|rule| rule.conditions.is_empty()) {
            Some(rule) => Verdict::Always(rule.action),
            None if rules().next().is_none() => Verdict::Always(self.default),
            None => Verdict::Check(rules().cloned().collect()),
        }
    }

    /// A rule for the older way of a call on i386. Its arguments stand behind a pointer, where a
    /// filter can't look: so of what a rule with conditions says, the stricter part holds for all.
    fn multiplexed(&self, operation: u32, rule: &Rule) -> Option<Rule> {
        if !rule.conditions.is_empty() && !rule.action.is_stricter_than(self.default) {
            return None;
        }
        let operation = Condition { index: 0, test: Test::Equal, value: operation.into() };
        Some(Rule { conditions: vec![operation], action: rule.action })
    }
}

/// The conditions of a spec's rule: one set, or one for each condition when two of them look at
/// the same argument. A set without conditions always holds.
fn alternatives(syscall: &LinuxSyscall) -> Result<Vec<Vec<Condition>>> {
    let args = syscall.args().as_deref().unwrap_or_default();
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let seen = |index| conditions.iter().filter(|other| other.index == index).count();
    if conditions.iter().any(|condition| seen(condition.index) > 1) {
        Ok(conditions.into_iter().map(|condition| vec![condition]).collect())
    } else {
        Ok(vec![conditions])
    }
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition> {
    let index = u8::try_from(arg.index()).ok().filter(|index| *index < 6).ok_or_else(|| {
        Error::invalid(format!("seccomp profile: no system call has an argument {}", arg.index()))
    })?;
    let mut value = arg.value();
    let test = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => Test::Less,
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal,
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual,
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater,
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // The mask comes first in a spec.
            let mask = value;
            value = arg.value_two().unwrap_or_default();
            Test::Masked(mask)
        }
    };
    Ok(Condition { index, test, value })
}
