//! A host with v2 alone, where limits are handed down from the root.

use super::*;

/// A cgroup whose controllers this test may hand down.
fn scratch() -> Option<Scratch> {
    let scratch = Scratch::new(None)?;
    if scratch.cgroup.mode() != Mode::V2 {
        eprintln!("skipped: this host has v1");
        return None;
    }
    Some(scratch)
}

fn read(cgroup: &Cgroup, file: &str) -> String {
    let path = cgroup.directories()[0].path.join(file);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path:?}: {err}")).trim().to_owned()
}

fn resources(text: &str) -> LinuxResources {
    serde_json::from_str(text).unwrap()
}

fn counters(cgroup: &Cgroup) -> Box<shim_core::model::StatsV2> {
    match cgroup.stats().unwrap() {
        Stats::V2(stats) => stats,
        _ => panic!("v2 counters"),
    }
}

#[test]
fn limits_of_v2_are_read_back() {
    let Some(scratch) = scratch() else { return };
    scratch
        .create(
            r#"{
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 10000, "cpus": "0",
                    "mems": "0"},
            "memory": {"limit": 33554432, "swap": 67108864, "reservation": 16777216,
                       "swappiness": 10, "kernel": 1, "disableOOMKiller": true},
            "pids": {"limit": 30},
            "blockIO": {"weight": 100},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "unified": {"memory.high": "30000000", "memory.oom.group": "1", "cgroup.max.depth": "3"}
        }"#,
        )
        .unwrap();
    for (file, expected) in [
        ("cpu.weight", "59"),
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("memory.max", "33554432"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "16777216"),
        ("memory.high", "29999104"),
        ("memory.oom.group", "1"),
        ("cgroup.max.depth", "3"),
        ("pids.max", "30"),
        ("hugetlb.2MB.max", "4194304"),
    ] {
        assert_eq!(read(&scratch.cgroup, file), expected, "{file}");
    }
    // Which of the two there is depends on the kernel's build.
    let weight = |file| scratch.cgroup.directories()[0].path.join(file).exists();
    let file = if weight("io.bfq.weight") { "io.bfq.weight" } else { "io.weight" };
    let expected = if file == "io.weight" { "default 910" } else { "default 100" };
    assert_eq!(read(&scratch.cgroup, file), expected);
}

#[test]
fn half_of_a_quota_leaves_the_other_half() {
    let Some(scratch) = scratch() else { return };
    scratch.create(r#"{"cpu": {"quota": 20000, "period": 50000}}"#).unwrap();
    for (cpu, expected) in [
        (r#"{"quota": 30000}"#, "30000 50000"),
        (r#"{"period": 80000}"#, "30000 80000"),
        (r#"{"shares": 1024}"#, "30000 80000"),
        (r#"{"quota": -1}"#, "max 80000"),
        (r#"{"quota": 5000, "period": 10000}"#, "5000 10000"),
    ] {
        block_on(scratch.cgroup.update(&resources(&format!(r#"{{"cpu": {cpu}}}"#)))).unwrap();
        assert_eq!(read(&scratch.cgroup, "cpu.max"), expected, "{cpu}");
    }
}

#[test]
fn memory_and_swap_change_on_v2() {
    let Some(scratch) = scratch() else { return };
    scratch.create("{}").unwrap();
    let mib = |count: i64| (count << 20).to_string();
    for (limit, swap) in [(32, 64), (128, 256), (16, 16), (64, 80)] {
        let both = format!(r#"{{"memory":{{"limit":{},"swap":{}}}}}"#, mib(limit), mib(swap));
        block_on(scratch.cgroup.update(&resources(&both))).unwrap();
        assert_eq!(read(&scratch.cgroup, "memory.max"), mib(limit));
        assert_eq!(read(&scratch.cgroup, "memory.swap.max"), mib(swap - limit));
    }
    // By itself it counts with the limit that there is.
    let swap = format!(r#"{{"memory":{{"swap":{}}}}}"#, mib(100));
    block_on(scratch.cgroup.update(&resources(&swap))).unwrap();
    assert_eq!(read(&scratch.cgroup, "memory.swap.max"), mib(100 - 64));
    block_on(scratch.cgroup.update(&resources(r#"{"memory":{"limit":-1}}"#))).unwrap();
    assert_eq!(read(&scratch.cgroup, "memory.max"), "max");
    assert_eq!(read(&scratch.cgroup, "memory.swap.max"), "max");
    let alone = block_on(scratch.cgroup.update(&resources(&swap))).unwrap_err();
    assert_eq!(alone.kind(), Kind::InvalidArgument);
}

#[test]
fn every_controller_reaches_a_cgroup_far_below() {
    let Some(scratch) = scratch() else { return };
    let path = CgroupPath::parse(&format!("{}/a/b", scratch.cgroup.path())).unwrap();
    let below = Cgroup::under(Arc::clone(&scratch.cgroup.hierarchies), path);
    below.create(Some(&resources(r#"{"pids": {"limit": 5}}"#))).unwrap();
    let root = &scratch.cgroup.hierarchies.unified.as_ref().unwrap().controllers;
    let reached = read(&below, "cgroup.controllers");
    let missing: Vec<_> =
        root.iter().filter(|name| !reached.split_whitespace().any(|one| one == **name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {root:?}");
    assert_eq!(read(&below, "pids.max"), "5");
    let err =
        block_on(below.update(&resources(r#"{"unified": {"memory.nonsense": "1"}}"#))).unwrap_err();
    assert_eq!(
        format!("{err:#}"),
        format!("set memory.nonsense of {}: the kernel has no such file", below.path())
    );
    let err =
        block_on(below.update(&resources(r#"{"rdma": {"mlx5": {"hcaHandles": 3}}}"#))).unwrap_err();
    assert!(format!("{err:#}").ends_with("mlx5 hca_handle=3: ENODEV: No such device"), "{err:#}");
}

#[test]
fn counters_of_v2_tell_the_limits() {
    let Some(mut scratch) = scratch() else { return };
    scratch.create(r#"{"pids":{"limit":9},"memory":{"limit":67108864}}"#).unwrap();
    scratch.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 100");
    until("time is counted", || counters(&scratch.cgroup).cpu.usage_usec > 1000);
    let stats = counters(&scratch.cgroup);
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 9));
    assert!(stats.memory.usage > 4096 && stats.memory.max_usage >= stats.memory.usage);
    assert_eq!(stats.memory.usage_limit, 67_108_864);
    assert_eq!(stats.memory.swap_limit, u64::MAX);
    assert!(stats.memory.pgfault > 0 && stats.memory.anon > 0);
    assert_eq!(stats.memory_events.unwrap().oom_kill, 0);
    assert!(stats.hugetlb.iter().any(|pages| pages.pagesize == "2MB"));
    assert!(stats.cpu.psi.is_some() || !scratch_has(&scratch, "cpu.pressure"));
}

fn scratch_has(scratch: &Scratch, file: &str) -> bool {
    scratch.cgroup.directories()[0].path.join(file).exists()
}

#[test]
fn want_of_memory_is_counted_on_v2() {
    let Some(mut scratch) = scratch() else { return };
    scratch.create(r#"{"memory":{"limit":16777216,"swap":16777216}}"#).unwrap();
    scratch.run("dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null || true; exec sleep 100");
    until("one is killed", || counters(&scratch.cgroup).memory_events.unwrap().oom_kill > 0);
    until("only the sleeper is left", || scratch.cgroup.pids().unwrap().len() == 1);
}
