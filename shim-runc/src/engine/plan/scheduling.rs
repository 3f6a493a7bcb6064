//! How the kernel treats a process: scheduler, io priority, processors, memory, personality.

use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use shim_core::{Error, Kind, Result};

use super::{Draft, Inherited, Start};
use crate::engine::{execute::MASK_WORDS, step::Step};

pub(super) fn all(
    draft: &mut Draft,
    process: &Process,
    inherited: &Inherited,
    start: Start<'_>,
) -> Result<()> {
    if let Some(scheduler) = process.scheduler() {
        draft.step(schedule(scheduler));
    }
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u64::try_from(priority.priority()).ok().filter(|level| *level < 8);
        let level = level.ok_or_else(|| Error::invalid("an io priority is 0 to 7"))?;
        draft.step(Step::SetIoPriority { priority: class << 13 | level });
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        affine(draft, affinity, start)?;
    }
    if let Some(domain) = inherited.personality {
        draft.step(Step::SetPersonality { domain });
    }
    Ok(())
}

/// Plans where the container's memory comes from.
pub(super) fn memory(draft: &mut Draft, linux: Option<&Linux>) -> Result<()> {
    let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) else {
        return Ok(());
    };
    let nodes = policy.nodes().as_deref().unwrap_or_default();
    let flags = policy.flags().iter().flatten().fold(0, |all, flag| all | memory_flag(*flag));
    let mode = memory_mode(policy.mode()) | flags;
    draft.step(Step::SetMemoryPolicy { mode, nodes: mask(nodes)? });
    Ok(())
}

/// The number of an execution domain.
pub(super) fn domain(personality: &LinuxPersonality) -> Result<u64> {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::new(Kind::Unsupported, "personality flags are not supported"));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

fn schedule(asked: &Scheduler) -> Step {
    let policy = match asked.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = asked.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    });
    let signed = |number: Option<i32>| i64::from(number.unwrap_or(0)).cast_unsigned();
    Step::Schedule {
        policy,
        flags,
        nice: signed(*asked.nice()),
        priority: signed(*asked.priority()),
        runtime: asked.runtime().unwrap_or(0),
        deadline: asked.deadline().unwrap_or(0),
        period: asked.period().unwrap_or(0),
    }
}

/// The spec means this for added processes only.
fn affine(
    draft: &mut Draft,
    affinity: &oci_spec::runtime::ExecCPUAffinity,
    start: Start<'_>,
) -> Result<()> {
    if matches!(start, Start::Awaited(_)) {
        return Ok(());
    }
    // The first is for the time of the setup, which here is too short to matter.
    let last = affinity.cpu_affinity_final().as_deref().or(affinity.initial().as_deref());
    if let Some(list) = last.filter(|list| !list.is_empty()) {
        draft.step(Step::SetAffinity { mask: mask(list)? });
    }
    Ok(())
}

fn memory_mode(mode: MemoryPolicyModeType) -> u64 {
    match mode {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    }
}

fn memory_flag(flag: MemoryPolicyFlagType) -> u64 {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    }
}

/// A list like `0-3,7` as a bit mask.
fn mask(list: &str) -> Result<Vec<u64>> {
    let wrong = || Error::invalid(format!("{list:?} is no list of numbers"));
    let mut words = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= MASK_WORDS * 64 {
            return Err(wrong());
        }
        for bit in first..=last {
            if words.len() <= bit / 64 {
                words.resize(bit / 64 + 1, 0);
            }
            words[bit / 64] |= 1 << (bit % 64);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask("0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(mask("64").unwrap(), [0, 1]);
        assert!(mask("").unwrap().is_empty());
        for bad in ["a", "3-1", "0-", "99999"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }
}
