//! The set of processors and memory nodes.

use std::path::Path;

use nix::errno::Errno;
use oci_spec::runtime::{LinuxCpu, LinuxResources};
use shim_core::{Error, Result};

use super::Files;
use crate::engine::cgroup::dir::Dir;

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Sets what is asked for; empty texts are not asked for.
pub(super) fn set(files: &Files<'_>, cpu: &LinuxCpu) -> Result<()> {
    for (file, set) in FILES.into_iter().zip([cpu.cpus(), cpu.mems()]) {
        if let Some(set) = set.as_deref().filter(|set| !set.is_empty()) {
            files.set(file, set)?;
        }
    }
    Ok(())
}

/// Whether any set is asked for.
pub(in super::super) fn ask_for(resources: &LinuxResources) -> bool {
    let asked = |set: &Option<String>| set.as_ref().is_some_and(|set| !set.is_empty());
    resources.cpu().as_ref().is_some_and(|cpu| asked(cpu.cpus()) || asked(cpu.mems()))
}

/// Gives a cgroup, and those above it, their parents' sets where they have none of their own.
///
/// On v1 a new cgroup starts with empty sets, and no task can join it until both are filled. A
/// child's set must be a part of its parent's, so the parent has to be filled first.
pub(in super::super) fn fill(root: &Path, path: &Path) -> Result<()> {
    sets(root, path).map(drop)
}

fn sets(root: &Path, path: &Path) -> Result<[String; 2]> {
    let named =
        |err: Errno, what: &str| Error::from(err).context(format!("{what} {}", path.display()));
    let dir = Dir::open(path).map_err(|err| named(err, "open"))?;
    let read = |file| dir.read(file).map(|text| text.trim().to_owned());
    let mut own = [String::new(), String::new()];
    for (set, file) in own.iter_mut().zip(FILES) {
        *set = read(file).map_err(|err| named(err, "read the cpuset of"))?;
    }
    let parent = path.parent().filter(|_| path != root);
    let (true, Some(parent)) = (own.iter().any(String::is_empty), parent) else { return Ok(own) };
    let inherited = sets(root, parent)?;
    for ((set, file), inherited) in own.iter_mut().zip(FILES).zip(inherited) {
        if set.is_empty() {
            dir.write(file, &inherited)
                .map_err(|err| named(err, &format!("set {file} to {inherited} in")))?;
            *set = inherited;
        }
    }
    Ok(own)
}
