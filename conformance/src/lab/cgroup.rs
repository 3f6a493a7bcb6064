//! A container's cgroup, as the kernel shows it: version 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Whether this machine's cgroups are of version 2 alone.
pub(crate) fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The folder of a process's cgroup; with version 2 the controller does not matter.
pub(crate) fn folder(pid: u32, controller: &str) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let place = text.lines().find_map(|line| {
        let (controllers, place) = line.split_once(':')?.1.split_once(':')?;
        let wanted = if is_v2() { "" } else { controller };
        controllers.split(',').any(|one| one == wanted).then_some(place)
    });
    let place = place.with_context(|| format!("no {controller} in {path}"))?;
    let root = Path::new("/sys/fs/cgroup");
    let root = if is_v2() { root.to_owned() } else { root.join(controller) };
    Ok(root.join(place.trim_start_matches('/')))
}

/// What a file of that controller says about a process's cgroup, by its name in either version.
pub(crate) fn read(pid: u32, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let path = folder(pid, controller)?.join(if is_v2() { v2 } else { v1 });
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// The same as a number; what has no limit in version 2 is a very large one in version 1.
pub(crate) fn number(pid: u32, controller: &str, v1: &str, v2: &str) -> Result<u64> {
    let text = read(pid, controller, v1, v2)?;
    if text == "max" {
        return Ok(u64::MAX);
    }
    text.parse().with_context(|| format!("{v1}: {text:?}"))
}
