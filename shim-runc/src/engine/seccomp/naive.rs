//! A profile read rule by rule at each call, for the tests to compare filters with.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::abi::{Abi, Table};

/// A profile in one ABI, whose calls are told apart by number.
pub(super) struct Reading<'a> {
    spec: &'a LinuxSeccomp,
    abi: Abi,
    named: Vec<(u32, &'a LinuxSyscall)>,
    newest: u32,
}

impl<'a> Reading<'a> {
    pub(super) fn of(spec: &'a LinuxSeccomp, table: &Table, abi: Abi) -> Self {
        let syscalls = spec.syscalls().iter().flatten();
        let named: Vec<_> = syscalls
            .flat_map(|syscall| syscall.names().iter().map(move |name| (name, syscall)))
            .filter_map(|(name, syscall)| Some((table.numbers(name).of(abi)?, syscall)))
            .collect();
        let newest = named.iter().map(|(its, _)| *its).filter(|its| *its < 0xf_0000).max();
        Self { spec, abi, named, newest: newest.unwrap_or(0) }
    }

    /// What the profile says of a call. The older ways of calls on i386 are left out.
    pub(super) fn read(&self, number: u32, args: [u64; 6]) -> u32 {
        let default = value(self.spec.default_action(), self.spec.default_errno_ret());
        if !is_listed(self.spec, self.abi) {
            return 0;
        }
        let its: Vec<_> = self.named.iter().filter(|(its, _)| *its == number).collect();
        let action = |syscall: &LinuxSyscall| value(syscall.action(), syscall.errno_ret());
        let rules = || its.iter().map(|(_, syscall)| syscall).filter(|s| action(s) != default);
        let always = rules().find(|syscall| conditions(syscall).is_empty());
        let hit = || rules().find(|syscall| holds(conditions(syscall), self.abi, args));
        let lets_through = matches!(default >> 16, 0x7fff | 0x7ffc | 0x7ff0);
        let is_newer = self.newest > 0 && number > self.newest && its.is_empty();
        match always.or_else(hit) {
            Some(syscall) => action(syscall),
            None if is_newer && !lets_through && number < u32::MAX => 0x0005_0026,
            None => default,
        }
    }
}

/// Whether a profile's filter lets an ABI's calls in at all.
fn is_listed(spec: &LinuxSeccomp, abi: Abi) -> bool {
    let arch = match abi {
        Abi::X86_64 | Abi::Aarch64 => return true,
        Abi::X32 => Arch::ScmpArchX32,
        Abi::I386 => Arch::ScmpArchX86,
        Abi::Arm => Arch::ScmpArchArm,
    };
    spec.architectures().as_ref().is_some_and(|list| list.contains(&arch))
}

fn value(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    match action {
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        other => other.as_u32(None),
    }
}

fn conditions(syscall: &LinuxSyscall) -> &[LinuxSeccompArg] {
    syscall.args().as_deref().unwrap_or_default()
}

fn holds(conditions: &[LinuxSeccompArg], abi: Abi, args: [u64; 6]) -> bool {
    let part = |value: u64| if abi.is_wide() { value } else { value & 0xffff_ffff };
    let one = |condition: &LinuxSeccompArg| {
        let (arg, is) = (part(args[condition.index()]), part(condition.value()));
        match condition.op() {
            LinuxSeccompOperator::ScmpCmpNe => arg != is,
            LinuxSeccompOperator::ScmpCmpLt => arg < is,
            LinuxSeccompOperator::ScmpCmpLe => arg <= is,
            LinuxSeccompOperator::ScmpCmpEq => arg == is,
            LinuxSeccompOperator::ScmpCmpGe => arg >= is,
            LinuxSeccompOperator::ScmpCmpGt => arg > is,
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                arg & is == part(condition.value_two().unwrap_or(0))
            }
        }
    };
    let mut indexes: Vec<_> = conditions.iter().map(LinuxSeccompArg::index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.len() < conditions.len() {
        conditions.iter().any(one)
    } else {
        conditions.iter().all(one)
    }
}
