//! Cgroups with processes in them.

use super::*;

#[test]
fn a_cgroup_with_processes_or_frozen_is_refused() {
    let Some(mut scratch) = Scratch::new(None) else { return };
    scratch.create("{}").unwrap();
    scratch.create("{}").expect("empty ones are taken over");
    scratch.run("exec sleep 100");
    let err = scratch.create("{}").unwrap_err();
    assert_eq!(err.kind(), Kind::FailedPrecondition);
    assert!(format!("{err:#}").ends_with("has a process already"), "{err:#}");
    scratch.cgroup.kill().unwrap();
    scratch.reap();
    until("it is empty", || scratch.cgroup.pids().unwrap().is_empty());
    block_on(scratch.cgroup.freeze()).unwrap();
    let err = scratch.create("{}").unwrap_err();
    assert_eq!(err.kind(), Kind::FailedPrecondition);
    assert!(format!("{err:#}").ends_with("is frozen"), "{err:#}");
}

/// Freezing, counting, killing: the same on each version.
fn live(mode: Option<Mode>) {
    let Some(mut scratch) = Scratch::new(mode) else { return };
    scratch.create("{}").unwrap();
    assert_eq!(scratch.cgroup.pids().unwrap(), []);
    let first = scratch.run("sleep 100 & exec sleep 100");
    until("both run", || scratch.cgroup.pids().unwrap().len() == 2);
    assert!(scratch.cgroup.pids().unwrap().contains(&first));

    assert!(!scratch.cgroup.frozen().unwrap());
    block_on(scratch.cgroup.freeze()).unwrap();
    assert!(scratch.cgroup.frozen().unwrap());
    scratch.cgroup.thaw().unwrap();
    assert!(!scratch.cgroup.frozen().unwrap());

    let err = scratch.cgroup.remove().unwrap_err();
    assert!(format!("{err:#}").contains("EBUSY"), "{err:#}");

    // A frozen one dies too.
    block_on(scratch.cgroup.freeze()).unwrap();
    scratch.cgroup.kill().unwrap();
    scratch.reap();
    until("all are dead", || scratch.cgroup.pids().unwrap().is_empty());
    block_on(scratch.cgroup.remove_async()).unwrap();
    assert!(!scratch.cgroup.exists());
    assert_eq!(scratch.cgroup.stats().unwrap_err().kind(), Kind::NotFound);
    assert_eq!(scratch.cgroup.pids().unwrap(), []);
    scratch.cgroup.kill().expect("a cgroup that is gone has nothing to kill");
    scratch.cgroup.remove().expect("a cgroup that is gone is removed");
}

#[test]
fn processes_are_frozen_and_killed_on_this_host() {
    live(None);
}

#[test]
fn processes_are_frozen_and_killed_on_v2() {
    live(Some(Mode::V2));
}

#[test]
fn processes_that_fork_on_and_on_are_killed() {
    let Some(mut scratch) = Scratch::new(Some(Mode::V1)) else { return };
    scratch.create("{}").unwrap();
    // Each forks its successor and is gone.
    scratch.run("f() { f & }; f; f; f; exec sleep 100");
    let mut seen = HashSet::new();
    until("they fork", || {
        seen.extend(scratch.cgroup.pids().unwrap());
        seen.len() > 20
    });
    scratch.cgroup.kill().unwrap();
    scratch.reap();
    until("all are dead", || scratch.cgroup.pids().unwrap().is_empty());
}

#[test]
fn cgroups_that_the_container_made_go_with_it() {
    for mode in [None, Some(Mode::V2)] {
        let Some(mut scratch) = Scratch::new(mode) else { return };
        scratch.create("{}").unwrap();
        for directory in scratch.cgroup.directories() {
            fs::create_dir_all(directory.path.join("x/y")).unwrap();
        }
        if mode == Some(Mode::V2) {
            let below = scratch.cgroup.directories()[0].path.join("x/y/cgroup.procs");
            let pid = scratch.run("exec sleep 100");
            fs::write(below, pid.to_string()).unwrap();
            assert_eq!(scratch.cgroup.pids().unwrap(), [pid]);
        }
        drop(scratch);
    }
}

#[test]
fn counters_of_v1_are_plausible() {
    let Some(mut scratch) = Scratch::new(Some(Mode::V1)) else { return };
    scratch.create(r#"{"pids":{"limit":9},"memory":{"limit":67108864}}"#).unwrap();
    scratch.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 100");
    let read = || match scratch.cgroup.stats().unwrap() {
        Stats::V1(stats) => stats,
        _ => panic!("v1 counters"),
    };
    until("time is counted", || read().cpu.usage.total > 1_000_000);
    let stats = read();
    let pids = stats.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (1, 9));
    assert!(!stats.cpu.usage.per_cpu.is_empty());
    assert!(stats.cpu.usage.per_cpu.iter().sum::<u64>() >= 1_000_000);
    let memory = stats.memory.unwrap();
    assert!(memory.usage.usage > 0 && memory.usage.max >= memory.usage.usage);
    assert_eq!(memory.usage.limit, 67_108_864);
    assert_eq!(memory.hierarchical_memory_limit, 67_108_864);
    // The kernel adds these up now and then.
    until("page faults are counted", || read().memory.unwrap().total_pg_fault > 0);
    assert_eq!(stats.memory_oom_control.unwrap().under_oom, 0);
}

#[test]
fn counters_of_v2_are_plausible() {
    let Some(mut scratch) = Scratch::new(Some(Mode::V2)) else { return };
    scratch.create("{}").unwrap();
    scratch.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 100");
    let read = || match scratch.cgroup.stats().unwrap() {
        Stats::V2(stats) => stats,
        _ => panic!("v2 counters"),
    };
    until("time is counted", || read().cpu.usage_usec > 1000);
    let stats = read();
    assert_eq!(stats.pids.current, 1, "{:?}", scratch.cgroup.pids());
    assert!(stats.cpu.user_usec + stats.cpu.system_usec > 0);
}

#[test]
fn one_of_v2_can_be_given_to_a_user_but_for_its_limits() {
    use std::os::unix::fs::MetadataExt;

    let Some(scratch) = Scratch::new(Some(Mode::V2)) else { return };
    scratch.create("{}").unwrap();
    scratch.cgroup.give_to(5000).unwrap();
    let directory = &scratch.cgroup.directories()[0].path;
    let owner = |path: &std::path::Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(directory), 5000);
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_theirs = matches!(
            name.as_str(),
            "cgroup.procs"
                | "cgroup.subtree_control"
                | "cgroup.threads"
                | "memory.oom.group"
                | "memory.reclaim"
        );
        let expected = if is_theirs { 5000 } else { 0 };
        assert_eq!(owner(&directory.join(&name)), expected, "{name}");
    }
}
