//! Limits as the kernel has taken them.

use super::*;

#[test]
fn limits_of_v1_are_read_back() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    scratch
        .create(
            r#"{
            "cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 10000, "cpus": "0"},
            "memory": {"limit": 33554432, "swap": 67108864, "reservation": 16777216,
                       "swappiness": 10, "kernel": 1, "disableOOMKiller": true},
            "pids": {"limit": 30},
            "network": {}
        }"#,
        )
        .unwrap();
    assert_eq!(scratch.file("cpu", "cpu.shares"), "512");
    assert_eq!(scratch.file("cpu", "cpu.cfs_quota_us"), "20000");
    assert_eq!(scratch.file("cpu", "cpu.cfs_period_us"), "50000");
    assert_eq!(scratch.file("cpu", "cpu.cfs_burst_us"), "10000");
    assert_eq!(scratch.file("cpuset", "cpuset.cpus"), "0");
    assert_ne!(scratch.file("cpuset", "cpuset.mems"), "", "taken from the parent");
    assert_eq!(scratch.file("memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(scratch.file("memory", "memory.memsw.limit_in_bytes"), "67108864");
    assert_eq!(scratch.file("memory", "memory.soft_limit_in_bytes"), "16777216");
    assert_eq!(scratch.file("memory", "memory.swappiness"), "10");
    assert!(scratch.file("memory", "memory.oom_control").contains("oom_kill_disable 1"));
    assert_eq!(scratch.file("pids", "pids.max"), "30");
}

#[test]
fn memory_goes_up_and_down_without_a_limit_in_the_way() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    scratch.create("{}").unwrap();
    let limits = || {
        let read = |file: &str| scratch.file("memory", file);
        (read("memory.limit_in_bytes"), read("memory.memsw.limit_in_bytes"))
    };
    let mib = |count: i64| (count << 20).to_string();
    for (limit, swap) in [(32, 64), (128, 256), (16, 16), (64, 80), (16, 32)] {
        let resources = format!(r#"{{"memory":{{"limit":{},"swap":{}}}}}"#, mib(limit), mib(swap));
        block_on(scratch.cgroup.update(&serde_json::from_str(&resources).unwrap())).unwrap();
        assert_eq!(limits(), (mib(limit), mib(swap)));
    }
    let none = serde_json::from_str(r#"{"memory":{"limit":-1}}"#).unwrap();
    block_on(scratch.cgroup.update(&none)).unwrap();
    let (limit, swap) = limits();
    assert!(limit == swap && limit.len() > 18, "{limit} {swap}");
}

#[test]
fn quotas_and_periods_change_in_any_order() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    scratch.create(r#"{"cpu":{"quota":50000,"period":100000}}"#).unwrap();
    for (quota, period) in [(5000, 10_000), (900_000, 1_000_000), (1000, 1000)] {
        let cpu = format!(r#"{{"cpu":{{"quota":{quota},"period":{period}}}}}"#);
        block_on(scratch.cgroup.update(&serde_json::from_str(&cpu).unwrap())).unwrap();
        assert_eq!(scratch.file("cpu", "cpu.cfs_quota_us"), quota.to_string());
        assert_eq!(scratch.file("cpu", "cpu.cfs_period_us"), period.to_string());
    }
}

#[test]
fn a_limit_that_fails_leaves_nothing_behind() {
    let Some(scratch) = Scratch::new(None) else { return };
    let err = scratch.create(r#"{"cpu":{"cpus":"4095"}}"#).unwrap_err();
    let text = format!("{err:#}");
    let expected = format!("set cpuset.cpus of {} to 4095: ", scratch.cgroup.path());
    assert!(text.starts_with(&expected), "{text}");
    assert!(!scratch.cgroup.exists());
}

#[test]
fn parents_are_made_with_their_sets_and_go_after_an_error() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    let path = CgroupPath::parse(&format!("{}/a/b", scratch.cgroup.path())).unwrap();
    let below = Cgroup::under(Arc::clone(&scratch.cgroup.hierarchies), path);
    let bad: LinuxResources = serde_json::from_str(r#"{"cpu":{"shares":1}}"#).unwrap();
    assert_eq!(below.create(Some(&bad)).unwrap_err().kind(), Kind::InvalidArgument);
    assert!(!scratch.cgroup.exists());
    below.create(None).unwrap();
    let read = |cgroup: &Cgroup| {
        fs::read_to_string(directory_of(cgroup, "cpuset").unwrap().join("cpuset.cpus")).unwrap()
    };
    assert_eq!(read(&below), read(&scratch.cgroup));
    assert_ne!(read(&below).trim(), "");
}

#[test]
fn a_controller_that_is_not_there_is_named() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    if directory_of(&scratch.cgroup, "rdma").is_some() {
        return eprintln!("skipped: this kernel has rdma");
    }
    let err = scratch.create(r#"{"rdma":{"mlx5":{"hcaHandles":3}}}"#).unwrap_err();
    assert_eq!(
        format!("{err:#}"),
        format!(
            "set rdma.max of {} to mlx5 hca_handle=3: this host has no cgroup controller rdma",
            scratch.cgroup.path()
        )
    );
    let err = scratch.create(r#"{"unified":{"memory.high":"1"}}"#).unwrap_err();
    assert_eq!(err.kind(), Kind::InvalidArgument);
}

#[test]
fn huge_pages_are_limited_on_v2_beside_v1() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    let hierarchies = &scratch.cgroup.hierarchies;
    let (Some(unified), None) = (hierarchies.unified_of("hugetlb"), hierarchies.v1_of("hugetlb"))
    else {
        return eprintln!("skipped: huge pages are not on v2 here");
    };
    let handed_down = unified.root.join("cgroup.subtree_control");
    let before = fs::read_to_string(&handed_down).unwrap();
    let limit = |bytes: u32| {
        let text = format!(r#"{{"hugepageLimits":[{{"pageSize":"2MB","limit":{bytes}}}]}}"#);
        serde_json::from_str::<LinuxResources>(&text).unwrap()
    };
    let file = unified.root.join(scratch.cgroup.path.relative()).join("hugetlb.2MB.max");
    scratch.create("{}").unwrap();
    block_on(scratch.cgroup.update(&limit(4 << 20))).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "4194304");
    let Stats::V1(stats) = scratch.cgroup.stats().unwrap() else { panic!("v1 counters") };
    assert!(stats.hugetlb.iter().any(|pages| pages.pagesize == "2MB"));
    drop(scratch);
    if !before.contains("hugetlb") {
        // Others may use it by now.
        let _ = fs::write(handed_down, "-hugetlb");
    }
}

#[test]
fn devices_of_v1_are_listed_as_asked() {
    let Some(scratch) = Scratch::new(Some(Mode::V1)) else { return };
    scratch
        .create(
            r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","access":"m"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}]}"#,
        )
        .unwrap();
    let listed = || {
        let text = scratch.file("devices", "devices.list");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(listed(), ["c *:* m", "c 1:3 rwm"]);
    scratch.set_devices(&spec("deny a, allow c 1:3 rw, allow b 8:0 r")).unwrap();
    assert_eq!(listed(), ["b 8:0 r", "c 1:3 rw"]);
    // An update with a spec's list does not touch them.
    let update = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
    block_on(scratch.cgroup.update(&serde_json::from_str(update).unwrap())).unwrap();
    assert_eq!(listed(), ["b 8:0 r", "c 1:3 rw"]);
    scratch.set_devices(&spec("allow a")).unwrap();
    assert_eq!(listed(), ["a *:* rwm"]);
}

#[test]
fn the_device_program_of_v2_decides() {
    let Some(mut scratch) = Scratch::new(Some(Mode::V2)) else { return };
    let attached = |cgroup: &Cgroup| {
        let dir = fs::File::open(&cgroup.directories()[0].path).unwrap();
        bpf::attached(dir.as_fd()).unwrap().len()
    };
    scratch
        .create(
            r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]}"#,
        )
        .unwrap();
    assert_eq!(attached(&scratch.cgroup), 1);
    let flags = tempfile::tempdir().unwrap();
    let try_out = |scratch: &mut Scratch, name: &str| {
        let flag = flags.path().join(name);
        // sh itself has opened what it needs before.
        let script = format!(
            "set +e; (echo x > /dev/null) && n=null; (head -c1 /dev/zero) && z=zero; \
             echo $n$z > {0}.new; mv {0}.new {0}; exec sleep 100",
            flag.display()
        );
        scratch.run(&script);
        until("it has tried", || flag.exists());
        fs::read_to_string(flag).unwrap().trim().to_owned()
    };
    assert_eq!(try_out(&mut scratch, "one"), "null");
    scratch.set_devices(&spec("deny a, allow c 1:5 r, allow c 1:3 rw")).unwrap();
    assert_eq!(attached(&scratch.cgroup), 1, "replaced, not added");
    assert_eq!(try_out(&mut scratch, "two"), "nullzero");
}
