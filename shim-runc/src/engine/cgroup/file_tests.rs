//! A v2 host that is only files: what is written can be read, and nothing else happens.

use std::{fs, path::PathBuf, sync::Arc};

use super::{Cgroup, CgroupPath, Hierarchies};

struct Host {
    root: tempfile::TempDir,
    cgroup: Cgroup,
}

impl Host {
    fn new(controllers: &str, files: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("ns");
        let leaf = parent.join("c1");
        fs::create_dir_all(&leaf).unwrap();
        for dir in [root.path(), &parent, &leaf] {
            fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
            fs::write(dir.join("cgroup.subtree_control"), "").unwrap();
        }
        fs::write(leaf.join("cgroup.procs"), "").unwrap();
        for file in files {
            fs::write(leaf.join(file), "").unwrap();
        }
        let mounts = format!("41 1 0:38 / {} rw - cgroup2 none rw\n", root.path().display());
        let hierarchies = Arc::new(Hierarchies::find(&mounts).unwrap());
        let cgroup = Cgroup::under(hierarchies, CgroupPath::parse("/ns/c1").unwrap());
        Self { root, cgroup }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join("ns/c1").join(file)
    }

    fn check(&self, resources: &str, expected: &[(&str, &str)]) {
        self.cgroup.create(Some(&serde_json::from_str(resources).unwrap())).unwrap();
        for (file, text) in expected {
            assert_eq!(fs::read_to_string(self.path(file)).unwrap(), *text, "{file}");
        }
    }
}

#[test]
fn limits_of_v2_go_into_its_files() {
    let files = [
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "cpuset.cpus",
        "cpuset.mems",
        "memory.max",
        "memory.low",
        "memory.swap.max",
        "memory.high",
        "pids.max",
        "io.bfq.weight",
        "io.max",
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
        "rdma.max",
    ];
    Host::new("cpu cpuset memory pids io hugetlb rdma", &files).check(
        r#"{
            "cpu": {"shares": 1024, "quota": 20000, "period": 50000, "burst": 7, "cpus": "0-1",
                    "mems": "0", "realtimeRuntime": 5},
            "memory": {"limit": 100, "swap": 150, "reservation": 50, "swappiness": 10},
            "pids": {"limit": -1},
            "blockIO": {"weight": 100,
                        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}],
            "rdma": {"mlx5": {"hcaHandles": 3, "hcaObjects": 4}},
            "unified": {"memory.high": "90"}
        }"#,
        &[
            ("cpu.weight", "100"),
            ("cpu.max", "20000 50000"),
            ("cpu.max.burst", "7"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("memory.max", "100"),
            ("memory.swap.max", "50"),
            ("memory.low", "50"),
            ("memory.high", "90"),
            ("pids.max", "max"),
            ("io.bfq.weight", "100"),
            ("io.max", "8:0 rbps=5"),
            ("hugetlb.2MB.max", "2097152"),
            ("hugetlb.2MB.rsvd.max", "2097152"),
            ("rdma.max", "mlx5 hca_handle=3 hca_object=4"),
        ],
    );
}

#[test]
fn what_is_not_asked_for_is_not_written() {
    let files = ["cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max", "io.weight"];
    let unset = files.map(|file| (file, ""));
    let resources = r#"{
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""},
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 9, "disableOOMKiller": false},
        "pids": {"limit": 0},
        "blockIO": {"weight": 0},
        "hugepageLimits": [],
        "rdma": {},
        "network": {"classID": 0},
        "unified": {}
    }"#;
    Host::new("cpu memory pids io", &files).check(resources, &unset);
}

#[test]
fn files_that_some_kernels_lack_have_stand_ins() {
    let files = ["io.weight", "memory.max", "hugetlb.1GB.max", "cpu.max"];
    Host::new("cpu memory io hugetlb", &files).check(
        r#"{"blockIO": {"weight": 1000}, "memory": {"limit": -1, "swap": -1},
            "hugepageLimits": [{"pageSize": "1GB", "limit": -1}], "cpu": {"quota": -1}}"#,
        &[
            ("io.weight", "10000"),
            ("memory.max", "max"),
            ("hugetlb.1GB.max", "max"),
            ("cpu.max", "max 100000"),
        ],
    );
}

#[test]
fn a_limit_below_what_is_used_is_refused_when_asked() {
    let host = Host::new("memory", &["memory.max", "memory.swap.max", "memory.current"]);
    fs::write(host.path("memory.current"), "1000\n").unwrap();
    let set = |resources: &str| host.cgroup.create(Some(&serde_json::from_str(resources).unwrap()));
    let err = set(r#"{"memory": {"limit": 100, "checkBeforeUpdate": true}}"#).unwrap_err();
    assert!(format!("{err:#}").contains("1000"), "{err:#}");
    assert_eq!(fs::read_to_string(host.path("memory.max")).unwrap(), "");
    set(r#"{"memory": {"limit": 100}}"#).unwrap();
    assert_eq!(fs::read_to_string(host.path("memory.max")).unwrap(), "100");
}

#[test]
fn what_a_property_of_systemd_needs_is_taken_from_the_files() {
    let host = Host::new("cpu memory", &[]);
    fs::write(host.path("cpu.max"), "20000 50000\n").unwrap();
    fs::write(host.path("memory.max"), "100\n").unwrap();
    let whole = |resources: &str| {
        let resources = serde_json::from_str(resources).unwrap();
        serde_json::to_value(super::limits::completed(&host.cgroup, &resources).unwrap()).unwrap()
    };
    let cpu = whole(r#"{"cpu": {"quota": 10000}}"#)["cpu"].clone();
    assert_eq!((&cpu["quota"], &cpu["period"]), (&10000.into(), &50000.into()));
    let cpu = whole(r#"{"cpu": {"period": 10000}}"#)["cpu"].clone();
    assert_eq!((&cpu["quota"], &cpu["period"]), (&20000.into(), &10000.into()));
    assert_eq!(whole(r#"{"memory": {"swap": 150}}"#)["memory"]["limit"], 100);
    assert_eq!(whole(r#"{"memory": {"limit": 50}}"#)["memory"]["limit"], 50);
    let none = whole(r#"{"cpu": {"shares": 5}}"#);
    assert!(none["cpu"]["quota"].is_null() && none["cpu"]["period"].is_null());
}

#[test]
fn controllers_are_handed_down_to_the_parent_and_no_further() {
    let host = Host::new("cpu memory", &["cpu.weight"]);
    fs::write(host.path("cgroup.controllers"), "").unwrap();
    host.check(r#"{"cpu": {"shares": 2}}"#, &[("cpu.weight", "1"), ("cgroup.subtree_control", "")]);
    let read = |dir: &str| {
        fs::read_to_string(host.root.path().join(dir).join("cgroup.subtree_control")).unwrap()
    };
    assert_eq!((read("").as_str(), read("ns").as_str()), ("+cpu +memory", "+cpu +memory"));
}

#[test]
fn errors_of_v2_say_what_is_missing() {
    let text = |controllers: &str, resources: &str| {
        let host = Host::new(controllers, &[]);
        let resources = serde_json::from_str(resources).unwrap();
        format!("{:#}", host.cgroup.create(Some(&resources)).unwrap_err())
    };
    assert_eq!(
        text("memory", r#"{"cpu": {"shares": 1024}}"#),
        "set cpu.weight of /ns/c1 to 100: cgroup controller cpu is not enabled there"
    );
    assert_eq!(
        text("cpu", r#"{"cpu": {"idle": 1}}"#),
        "set cpu.idle of /ns/c1 to 1: ENOENT: No such file or directory"
    );
    assert_eq!(
        text("cpu", r#"{"unified": {"memory.high": "1"}}"#),
        "set memory.high of /ns/c1: cgroup controller memory is not enabled there"
    );
    assert_eq!(
        text("cpu", r#"{"unified": {"../x.y": "1"}}"#),
        r#"unified: "../x.y" is not CONTROLLER.PARAMETER"#
    );
}
