//! Memory and swap.

use nix::errno::Errno;
use oci_spec::runtime::LinuxMemory;
use shim_core::{Error, Kind, Result};

use super::{Files, Version};

/// Sets what is asked for. The limits on the kernel's own memory are gone from the kernel.
pub(super) fn set(files: &Files<'_>, memory: &LinuxMemory) -> Result<()> {
    match files.version() {
        Version::V1 => set_v1(files, memory),
        Version::V2 => set_v2(files, memory),
    }
}

fn set_v1(files: &Files<'_>, memory: &LinuxMemory) -> Result<()> {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    match (limit, swap) {
        // Memory without a limit under an old limit of both would be none. A kernel that does not
        // account for swap has no such file.
        (Some(-1), None) => {
            files.set_unless(&[Errno::ENOENT], SWAP, -1)?;
            set_limit(files, -1)?;
        }
        // The limit of both must never be below that of memory, not between two writes either.
        (Some(limit), Some(swap)) if raises(files, swap)? => {
            files.set(SWAP, swap)?;
            set_limit(files, limit)?;
        }
        (limit, swap) => {
            limit.map_or(Ok(()), |limit| set_limit(files, limit))?;
            swap.map_or(Ok(()), |swap| files.set(SWAP, swap))?;
        }
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        files.set("memory.soft_limit_in_bytes", reservation)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        files.set("memory.oom_control", 1)?;
    }
    match memory.swappiness() {
        None => Ok(()),
        Some(value @ 0..=100) => files.set("memory.swappiness", value),
        Some(value) => Err(Error::invalid(format!("memory.swappiness {value} is not 0 to 100"))),
    }
}

/// Whether a limit of memory and swap leaves room for the current limit of memory.
fn raises(files: &Files<'_>, swap: i64) -> Result<bool> {
    let Ok(swap) = u64::try_from(swap) else { return Ok(true) };
    let current = files.number("memory.limit_in_bytes")?;
    Ok(current.is_some_and(|current| current < swap))
}

fn set_limit(files: &Files<'_>, limit: i64) -> Result<()> {
    const LIMIT: &str = "memory.limit_in_bytes";
    if files.set_unless(&[Errno::EBUSY], LIMIT, limit)? {
        return Ok(());
    }
    // More is in use than the kernel could reclaim.
    let read = |file| files.number(file).ok().flatten().unwrap_or_default();
    let (usage, most) = (read("memory.usage_in_bytes"), read("memory.max_usage_in_bytes"));
    let err = files.refused(LIMIT, &limit.to_string(), Errno::EBUSY);
    Err(err.context(format!("{usage} bytes are in use, {most} were at most")))
}

// v2 has no swappiness and always kills; as runc, we pass both over there.
fn set_v2(files: &Files<'_>, memory: &LinuxMemory) -> Result<()> {
    let limit = memory.limit().unwrap_or(0);
    let both = memory.swap().unwrap_or(0);
    check(files, memory)?;
    let counted = if limit == 0 && both > 0 { limit_v2(files)? } else { limit };
    match swap_alone(counted, both)? {
        // Not asked for. An empty text would be read as 0.
        None => {}
        // A kernel without swap already keeps to these two.
        Some(swap @ (-1 | 0)) => {
            files.set_unless(&[Errno::ENOENT], "memory.swap.max", text(swap))?;
        }
        Some(swap) => files.set("memory.swap.max", swap)?,
    }
    if limit != 0 {
        files.set("memory.max", text(limit))?;
    }
    match memory.reservation() {
        None | Some(0) => Ok(()),
        Some(reservation) => files.set("memory.low", text(reservation)),
    }
}

/// Adds the limit that a swap alone is counted with.
pub(super) fn complete(files: &Files<'_>, memory: &mut LinuxMemory) -> Result<()> {
    if memory.limit().unwrap_or(0) == 0 && memory.swap().is_some_and(|both| both > 0) {
        memory.set_limit(Some(limit_v2(files)?).filter(|limit| *limit != 0));
    }
    Ok(())
}

/// The limit that there is; 0 for none.
fn limit_v2(files: &Files<'_>) -> Result<i64> {
    Ok(files.number("memory.max")?.map_or(0, |max| i64::try_from(max).unwrap_or(0)))
}

/// Refuses limits that would kill at once, where that is asked for. v1 does so by itself.
pub(super) fn check(files: &Files<'_>, memory: &LinuxMemory) -> Result<()> {
    if files.version() == Version::V1 || memory.check_before_update() != Some(true) {
        return Ok(());
    }
    let (limit, both) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    let Some(usage) = files.number("memory.current")? else { return Ok(()) };
    for (what, limit) in [("memory and swap", both), ("memory", limit)] {
        if u64::try_from(limit).is_ok_and(|limit| limit > 0 && limit <= usage) {
            let text = format!("limit {what} of {} to {limit}: {usage} are in use", files.path());
            return Err(Error::new(Kind::FailedPrecondition, text));
        }
    }
    Ok(())
}

/// The spec's swap is memory and swap together, as v1 counts; v2 counts swap alone.
pub(in super::super) fn swap_alone(limit: i64, both: i64) -> Result<Option<i64>> {
    let invalid = |why| Error::invalid(format!("swap {both} with memory {limit}: {why}"));
    match (limit, both) {
        (-1, 0) => Ok(Some(-1)),
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (-1, swap) => Ok(Some(swap)),
        (0, _) => Err(invalid("swap alone can't be told without a limit of memory")),
        (limit, both) if limit < 0 || both < limit => Err(invalid("swap counts both")),
        (limit, both) => Ok(Some(both - limit)),
    }
}

fn text(limit: i64) -> String {
    if limit == -1 { "max".to_owned() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_told_apart_from_memory() {
        assert_eq!(swap_alone(100, 150).unwrap(), Some(50));
        assert_eq!(swap_alone(100, 100).unwrap(), Some(0));
        assert_eq!(swap_alone(100, 0).unwrap(), None);
        assert_eq!(swap_alone(0, 0).unwrap(), None);
        assert_eq!(swap_alone(100, -1).unwrap(), Some(-1));
        assert_eq!(swap_alone(-1, 0).unwrap(), Some(-1));
        assert_eq!(swap_alone(-1, 50).unwrap(), Some(50));
        assert!(swap_alone(0, 50).is_err());
        assert!(swap_alone(100, 50).is_err());
        assert!(swap_alone(-2, 50).is_err());
    }
}
