//! The processes of a cgroup: listing and killing them.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill as signal},
    unistd,
};
use shim_core::{Context, Error, Result, model::Pid};

use super::{Cgroup, Mode, dir::Dir, freeze, hierarchy::Unified};

/// v1 hierarchies in the order in which they are asked for processes. All should hold the same;
/// of these, a process can hardly want to leave the first.
const ASKED: [&str; 5] = ["devices", "freezer", "pids", "memory", "cpu"];

/// How often those that were forked meanwhile are looked for. Nothing forks once it has been
/// killed, so each round leaves fewer, but for a flood of forks; and from the second round on v1
/// freezes that too.
const ROUNDS: usize = 32;

/// Lists the processes of a container.
pub(super) fn list(cgroup: &Cgroup) -> Result<Vec<Pid>> {
    let hierarchies = &cgroup.hierarchies;
    let root = match hierarchies.mode {
        Mode::V2 => hierarchies.unified.as_ref().map(|unified| &unified.root),
        _ => ASKED
            .iter()
            .find_map(|controller| hierarchies.v1_of(controller))
            .or(hierarchies.v1.first())
            .map(|hierarchy| &hierarchy.root),
    };
    root.map_or(Ok(Vec::new()), |root| below(&root.join(cgroup.path.relative())))
}

/// Where the init process of a container is that has handed controllers down, below its own cgroup.
pub(super) fn divided(cgroup: &Cgroup, unified: &Unified, init: Pid) -> Option<PathBuf> {
    let own = unified.root.join(cgroup.path.relative());
    let handed_down = Dir::open(&own).and_then(|dir| dir.read("cgroup.subtree_control")).ok()?;
    if handed_down.trim().is_empty() {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{init}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = unified.root.join(path);
    path.starts_with(&own).then_some(path)
}

/// Lists the processes in a directory and in those below it.
pub(super) fn below(path: &Path) -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    gather(path, &mut pids).with_context(|| format!("list the processes of {}", path.display()))?;
    Ok(pids)
}

fn gather(path: &Path, pids: &mut Vec<Pid>) -> Result<()> {
    // Others may remove it at any time.
    let gone = |err| matches!(err, Errno::ENOENT | Errno::ENODEV);
    let dir = match Dir::open(path) {
        Ok(dir) => dir,
        Err(err) if gone(err) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    let text = match dir.read("cgroup.procs") {
        // The kernel lists no processes where their threads are spread over cgroups.
        Err(Errno::EOPNOTSUPP) => dir.read("cgroup.threads"),
        other => other,
    };
    match text {
        // A process of a pid namespace that is not below ours reads as 0.
        Ok(text) => {
            pids.extend(text.lines().filter_map(|line| Pid::new(line.parse().ok()?).ok()));
        }
        Err(err) if gone(err) => return Ok(()),
        Err(err) => return Err(err.into()),
    }
    if dir.is_leaf() {
        return Ok(());
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            gather(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// Kills every process of a container.
pub(super) fn kill(cgroup: &Cgroup) -> Result<()> {
    if let Some(unified) = &cgroup.hierarchies.unified {
        // All at once and frozen ones too, since Linux 5.14. Beside v1 it only spares most of the
        // work below: a process need not be in both.
        let path = unified.root.join(cgroup.path.relative());
        let done = Dir::open(&path).and_then(|dir| dir.write("cgroup.kill", "1"));
        if done.is_ok() && cgroup.hierarchies.mode == Mode::V2 {
            return Ok(());
        }
    }
    let mut killed = HashSet::new();
    for round in 0..ROUNDS {
        let mut fresh = list(cgroup)?;
        fresh.retain(|pid| killed.insert(*pid));
        if fresh.is_empty() {
            break;
        }
        if round > 0 {
            freeze::hold(cgroup);
        }
        for pid in fresh {
            match signal(unistd::Pid::from_raw(pid.raw()), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(err) => {
                    freeze::release(cgroup);
                    return Err(Error::from(err).context(format!("kill process {pid}")));
                }
            }
        }
    }
    // A frozen process dies when it is thawed; whoever froze it, a dead one need not stand still.
    freeze::release(cgroup);
    Ok(())
}
