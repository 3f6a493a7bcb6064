//! What is on the host before and after a test.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::common::cgroup_roots;

/// Processes, mounts and cgroups that a container could leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    children: BTreeSet<i32>,
    mounts: usize,
    cgroups: BTreeSet<String>,
}

impl Traces {
    pub(crate) fn now() -> Self {
        let children = children().into_iter().collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let mut cgroups = BTreeSet::new();
        for root in cgroup_roots() {
            collect(&root.join(namespace()), &mut cgroups);
        }
        Self { children, mounts, cgroups }
    }

    pub(crate) fn assert_no_more(&self) {
        // The kernel takes mounts of a dead namespace away a moment later, as it does zombies.
        let limit = Instant::now() + Duration::from_secs(2);
        loop {
            let now = Self::now();
            if now.children.is_subset(&self.children)
                && now.mounts <= self.mounts
                && now.cgroups.is_subset(&self.cgroups)
            {
                return;
            }
            assert!(Instant::now() < limit, "left behind: {self:?} became {now:?}");
            std::thread::yield_now();
        }
    }
}

/// The processes that this one has made.
pub(crate) fn children() -> Vec<i32> {
    let path = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    let all = fs::read_to_string(path).unwrap();
    all.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The process that clones all others.
pub(crate) fn stem() -> i32 {
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // It has its name when it has begun, which nobody waits for.
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        match children().into_iter().find(|pid| name(pid) == "shim-stem\n") {
            Some(stem) => return stem,
            None => assert!(Instant::now() < limit, "there is no stem"),
        }
        std::thread::yield_now();
    }
}

/// Whether a controller can limit containers here, by v1 or by v2.
pub(crate) fn has_controller(name: &str) -> bool {
    let offered = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let found = Path::new("/sys/fs/cgroup").join(name).exists()
        || offered.split_whitespace().any(|offered| offered == name);
    if !found {
        println!("       skipped: no {name} controller");
    }
    found
}

/// Whether the host has cgroup v2 alone.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether this process may do what `CAP_SYS_RESOURCE` is for, which root in a container may not.
pub(crate) fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(effective, 16).unwrap() & (1 << 24) != 0
}

/// Where this run has its cgroups; another one has its own.
pub(crate) fn namespace() -> String {
    format!("engine-test-{}", std::process::id())
}

/// Ends what a failed test has left running.
pub(crate) fn kill_all() {
    for cgroup in Traces::now().cgroups {
        let pids = fs::read_to_string(Path::new(&cgroup).join("cgroup.procs")).unwrap_or_default();
        for pid in pids.split_whitespace() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Removes the cgroups that all containers of this run were in.
pub(crate) fn remove_parents() {
    for root in cgroup_roots() {
        let parent = root.join(namespace());
        let mut all = BTreeSet::new();
        collect(&parent, &mut all);
        for cgroup in all.iter().rev() {
            let _ = fs::remove_dir(cgroup);
        }
        let _ = fs::remove_dir(parent);
    }
}

fn collect(directory: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.insert(entry.path().display().to_string());
            collect(&entry.path(), all);
        }
    }
}
