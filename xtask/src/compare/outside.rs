//! What the host sees: the container's cgroup while it is there, and what is left of it afterwards.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
};

use anyhow::Result;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{field::Fields, place::Place};

/// Files that hold limits, of all controllers of version 1.
const LIMITS: [&str; 34] = [
    "blkio.bfq.weight",
    "blkio.throttle.read_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.write_iops_device",
    "blkio.weight",
    "cgroup.clone_children",
    "cgroup.procs",
    "cpu.cfs_burst_us",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.idle",
    "cpu.rt_period_us",
    "cpu.rt_runtime_us",
    "cpu.shares",
    "cpuset.cpu_exclusive",
    "cpuset.cpus",
    "cpuset.mems",
    "devices.list",
    "freezer.state",
    "hugetlb.2MB.limit_in_bytes",
    "memory.kmem.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.oom_control",
    "memory.soft_limit_in_bytes",
    "memory.swappiness",
    "memory.use_hierarchy",
    "net_cls.classid",
    "net_prio.ifpriomap",
    "notify_on_release",
    "pids.max",
    "rdma.max",
];

/// Looks at the container's cgroup in every hierarchy.
pub(super) fn look(place: &Place, seen: &mut Fields) {
    let groups = place.cgroups();
    let names: Vec<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
    seen.add("cgroup.hierarchies", names.join(" "));
    for (name, group) in &groups {
        let group = group.join("c1");
        let owner = fs::metadata(&group)
            .map(|found| format!("{:o} {}:{}", found.mode() & 0o7777, found.uid(), found.gid()));
        seen.add(&format!("cgroup.{name}.owner"), owner.unwrap_or_else(|err| err.to_string()));
        for file in LIMITS {
            let Ok(text) = fs::read_to_string(group.join(file)) else { continue };
            let text = match file {
                "cgroup.procs" => text.lines().count().to_string(),
                "devices.list" => sorted(&text),
                _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
            };
            seen.add(&format!("cgroup.{name}.{file}"), text);
        }
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("; ")
}

/// What is there after the last act and should not be.
pub(super) fn left(place: &Place, seen: &mut Fields) -> Result<()> {
    let mut left = Vec::new();
    for (name, group) in place.cgroups() {
        // The folder above is ours: runtimes leave it, since others may be in it.
        let below = fs::read_dir(&group).into_iter().flatten().flatten();
        left.extend(
            below
                .filter(|entry| entry.path().is_dir())
                .map(|entry| format!("cgroup {name}/{}", entry.file_name().to_string_lossy())),
        );
    }
    let state = fs::read_dir(place.state()).into_iter().flatten().flatten();
    let names = state.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // What a runtime keeps for all containers begins with a dot.
    left.extend(names.filter(|name| !name.starts_with('.')).map(|name| format!("state {name}")));
    let laid_out = |path: &Path| place.laid_out.iter().any(|known| known == path);
    for mount in place.mounts()?.iter().filter(|mount| !laid_out(mount)) {
        left.push(format!("mount {}", place.stripped(&mount.display().to_string())));
    }
    seen.add("left", left.join(", "));
    seen.add("host's null", place.null()?);
    Ok(())
}

/// Removes the folders of all cgroups of this place, with processes that are left in them.
pub(super) fn remove_groups(place: &Place) {
    for (_, group) in place.cgroups() {
        // What could not be removed shows up as left with the next bundle.
        let _ = remove(&group);
    }
    // crun makes folders of this name on the tmpfs that hierarchies are mounted on.
    for folder in ["", "unified"] {
        let made = Path::new("/sys/fs/cgroup").join(folder).join(&place.group);
        let _ = fs::remove_dir_all(made);
    }
}

fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    let _ = fs::write(group.join("freezer.state"), "THAWED");
    let tasks = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = tasks.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw);
    let ends: Vec<_> = pids.filter_map(end).collect();
    for end in ends {
        let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit));
    }
    fs::remove_dir(group)
}

/// Kills a process, and returns what tells its end.
fn end(pid: Pid) -> Option<OwnedFd> {
    let end = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    pidfd_send_signal(&end, Signal::KILL).ok()?;
    Some(end)
}
