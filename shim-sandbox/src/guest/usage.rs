//! What a guest has and uses, by the files of proc(5) and sysfs.

use std::{fs, path::Path};

use nix::sys::utsname::uname;
use shim_core::{Context, Error, Result};
use shim_protos::guest::{HelloResponse, OnlineResponse, StatsResponse};

use super::Ground;
use crate::Build;

/// One tick of proc(5)'s processor times; USER_HZ is 100 wherever Linux runs now.
const TICK: u64 = 10_000_000;

/// Where the kernel has processors and blocks of memory that may be off.
const SYSTEM: &str = "/sys/devices/system";

/// Says who is there.
pub(super) fn hello() -> Result<HelloResponse> {
    let name = uname().context("uname")?;
    Ok(HelloResponse {
        build: Build::own()?.as_str().to_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
        machine: name.machine().to_string_lossy().into_owned(),
        memory: memory()?.0,
        processors: processors()?,
        ..Default::default()
    })
}

/// Uses of the guest as a whole.
pub(super) fn stats() -> Result<StatsResponse> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let (total, available) = memory()?;
    Ok(StatsResponse {
        cpu: busy(&text).ok_or_else(|| Error::other("/proc/stat has no processors"))? * TICK,
        memory: total.saturating_sub(available),
        ..Default::default()
    })
}

/// Brings processors online up to a number, and all memory.
pub(super) fn online(wanted: u32, ground: Ground) -> Result<OnlineResponse> {
    if ground == Ground::Machine {
        let mut missing = wanted.saturating_sub(processors()?);
        let cpus = Path::new(SYSTEM).join("cpu");
        bring(&cpus, "cpu", ("online", "0", "1"), &mut missing)?;
        let memory = Path::new(SYSTEM).join("memory");
        bring(&memory, "memory", ("state", "offline", "online"), &mut u32::MAX.clone())?;
    }
    Ok(OnlineResponse { processors: processors()?, memory: memory()?.0, ..Default::default() })
}

/// Switches at most so many of a folder's numbered entries on.
fn bring(
    folder: &Path,
    prefix: &str,
    (file, off, on): (&str, &str, &str),
    left: &mut u32,
) -> Result<()> {
    // A kernel without hotplug has no such folder, and nothing that is off.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let switch = entry.path().join(file);
        let is_off = number.is_some_and(|number| number.parse::<u32>().is_ok())
            && fs::read_to_string(&switch).is_ok_and(|state| state.trim() == off);
        if is_off && *left > 0 {
            fs::write(&switch, on).with_context(|| format!("write {}", switch.display()))?;
            *left -= 1;
        }
    }
    Ok(())
}

/// In all and free for use, in bytes.
fn memory() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let field = |name| {
        let value = kibibytes(&text, name);
        value.ok_or_else(|| Error::other(format!("/proc/meminfo has no {name}")))
    };
    Ok((field("MemTotal:")? << 10, field("MemAvailable:")? << 10))
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many processors are online.
fn processors() -> Result<u32> {
    let path = "/sys/devices/system/cpu/online";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    count(text.trim()).ok_or_else(|| Error::other(format!("{path} says {text:?}")))
}

/// How many numbers are in a list as the kernel writes it: `0-3,5`.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The ticks in which processors did something: all but idle and waiting for disks; a guest's guests are in
/// `user` already.
fn busy(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft, ..] = ticks[..] else {
        return None;
    };
    Some(user + nice + system + interrupts + soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(count("0-3,5"), Some(5));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("3-1"), None);
        assert_eq!(busy("cpu  1 2 3 400 500 6 7 8 9 9\ncpu0 1\n"), Some(19));
        assert_eq!(kibibytes("A: 1 kB\nMemTotal:   22 kB\n", "MemTotal:"), Some(22));
        let hello = hello().unwrap();
        assert!(hello.memory > 0 && hello.processors > 0);
        assert!(stats().unwrap().memory < hello.memory);
        assert_eq!(online(999, Ground::Process).unwrap().processors, hello.processors);
    }

    #[test]
    fn what_is_off_is_switched_on_up_to_a_number() {
        let dir = tempfile::tempdir().unwrap();
        for (name, state) in [("cpu0", "1\n"), ("cpu1", "0\n"), ("cpu2", "0\n"), ("cpufreq", "0\n")]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("online"), state).unwrap();
        }
        bring(dir.path(), "cpu", ("online", "0", "1"), &mut 1).unwrap();
        let state = |name: &str| fs::read_to_string(dir.path().join(name).join("online")).unwrap();
        let on = [state("cpu1"), state("cpu2")].iter().filter(|state| *state == "1").count();
        assert_eq!((on, state("cpufreq").as_str()), (1, "0\n"));
    }
}
