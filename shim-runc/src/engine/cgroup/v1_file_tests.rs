//! A v1 host that is only files: controllers that the kernels of tests seldom have.

use std::{fmt::Write, fs, path::PathBuf, sync::Arc};

use super::{Cgroup, CgroupPath, Hierarchies};

struct Host {
    root: tempfile::TempDir,
    cgroup: Cgroup,
}

impl Host {
    /// A host with these controllers, each with files in a container's directory.
    fn new(controllers: &[(&str, &[&str])]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut mounts = String::new();
        for (controller, files) in controllers {
            let mount = root.path().join(controller);
            let leaf = mount.join("ns/c1");
            fs::create_dir_all(&leaf).unwrap();
            for file in ["cgroup.procs", "tasks"].iter().chain(*files) {
                fs::write(leaf.join(file), "").unwrap();
            }
            let mount = mount.display();
            writeln!(mounts, "41 1 0:38 / {mount} rw - cgroup none rw,{controller}").unwrap();
        }
        let hierarchies = Arc::new(Hierarchies::find(&mounts).unwrap());
        let cgroup = Cgroup::under(hierarchies, CgroupPath::parse("/ns/c1").unwrap());
        Self { root, cgroup }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join(file.replacen('/', "/ns/c1/", 1))
    }

    fn check(&self, resources: &str, expected: &[(&str, &str)]) {
        self.cgroup.create(Some(&serde_json::from_str(resources).unwrap())).unwrap();
        for (file, text) in expected {
            assert_eq!(fs::read_to_string(self.path(file)).unwrap(), *text, "{file}");
        }
    }
}

#[test]
fn block_devices_have_weights_and_speeds_on_v1() {
    let files: &[&str] = &[
        "blkio.weight",
        "blkio.leaf_weight",
        "blkio.weight_device",
        "blkio.leaf_weight_device",
        "blkio.throttle.read_bps_device",
        "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device",
        "blkio.throttle.write_iops_device",
    ];
    let resources = r#"{"blockIO": {
        "weight": 500, "leafWeight": 300,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 400, "leafWeight": 200}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 2}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 32, "rate": 3}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 48, "rate": 4}]}}"#;
    Host::new(&[("blkio", files)]).check(
        resources,
        &[
            ("blkio/blkio.weight", "500"),
            ("blkio/blkio.leaf_weight", "300"),
            ("blkio/blkio.weight_device", "8:0 400"),
            ("blkio/blkio.leaf_weight_device", "8:0 200"),
            ("blkio/blkio.throttle.read_bps_device", "8:0 1"),
            ("blkio/blkio.throttle.write_bps_device", "8:16 2"),
            ("blkio/blkio.throttle.read_iops_device", "8:32 3"),
            ("blkio/blkio.throttle.write_iops_device", "8:48 4"),
        ],
    );
}

#[test]
fn traffic_is_tagged_on_v1() {
    let host =
        Host::new(&[("net_cls", &["net_cls.classid"]), ("net_prio", &["net_prio.ifpriomap"])]);
    let resources = r#"{"network": {"classID": 1048577,
        "priorities": [{"name": "lo", "priority": 5}]}}"#;
    let expected =
        [("net_cls/net_cls.classid", "1048577"), ("net_prio/net_prio.ifpriomap", "lo 5")];
    host.check(resources, &expected);
}

#[test]
fn huge_pages_and_rdma_are_limited_on_v1() {
    let pages: &[&str] = &["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.rsvd.limit_in_bytes"];
    Host::new(&[("hugetlb", pages), ("rdma", &["rdma.max"])]).check(
        r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5": {"hcaHandles": 3}}}"#,
        &[
            ("hugetlb/hugetlb.2MB.limit_in_bytes", "4194304"),
            ("hugetlb/hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
            ("rdma/rdma.max", "mlx5 hca_handle=3"),
        ],
    );
}

#[test]
fn real_time_and_idleness_are_set_on_v1() {
    let files: &[&str] = &["cpu.rt_period_us", "cpu.rt_runtime_us", "cpu.idle", "cpu.shares"];
    Host::new(&[("cpu", files)]).check(
        r#"{"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950000, "idle": 1}}"#,
        &[
            ("cpu/cpu.rt_period_us", "1000000"),
            ("cpu/cpu.rt_runtime_us", "950000"),
            ("cpu/cpu.idle", "1"),
        ],
    );
}
