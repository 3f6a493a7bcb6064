//! The defaults that containerd gives, and each change to them.

use super::*;

#[test]
fn the_default_is_containerds() {
    let spec = SpecBuilder::new("ns", "c").build();
    assert_eq!(spec["linux"]["cgroupsPath"], "/ns/c");
    assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
    assert!(spec["process"]["capabilities"].get("inheritable").is_none());
    assert_eq!(spec["process"]["rlimits"][0]["soft"], 1024);
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
    let kinds: Vec<&str> = spec["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| namespace["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "network"]);
    let places: Vec<&str> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert_eq!(places, ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/run"]);
}

#[test]
fn each_change_lands_in_its_place() {
    let mount = BindMount { source: "/a".into(), destination: "/b".into(), read_only: true };
    let spec = SpecBuilder::new("ns", "c")
        .args(&["sh", "-c", "id"])
        .env(&["A=1", "PATH=/x", "A=2"])
        .cwd("/tmp")
        .user(&User { uid: 5, gid: 6, additional_gids: vec![7] })
        .hostname("h")
        .terminal()
        .read_only()
        .memory(64 << 20)
        .cpu_quota(50_000)
        .pids(20)
        .host_network()
        .mount(&mount)
        .annotation("k", "v")
        .build();
    let process = &spec["process"];
    assert_eq!(process["args"], json!(["sh", "-c", "id"]));
    assert_eq!(process["env"], json!(["PATH=/x", "A=2", "TERM=xterm"]));
    assert_eq!(process["cwd"], "/tmp");
    assert_eq!(process["user"], json!({ "uid": 5, "gid": 6, "additionalGids": [7] }));
    assert_eq!(process["terminal"], true);
    assert_eq!(spec["hostname"], "h");
    assert_eq!(spec["root"], json!({ "path": "rootfs", "readonly": true }));
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["memory"], json!({ "limit": 67_108_864 }));
    assert_eq!(resources["cpu"], json!({ "quota": 50_000, "period": 100_000 }));
    assert_eq!(resources["pids"], json!({ "limit": 20 }));
    assert_eq!(spec["linux"]["namespaces"].as_array().unwrap().len(), 4);
    assert_eq!(spec["mounts"][7]["options"], json!(["rbind", "ro"]));
    assert_eq!(spec["annotations"], json!({ "k": "v" }));
}

#[test]
fn confinement_is_there_or_not() {
    let plain = SpecBuilder::new("ns", "c").build();
    assert!(plain["linux"].get("seccomp").is_none(), "containerd's default has none");
    let spec = SpecBuilder::new("ns", "c").confined().build();
    let profile = &spec["linux"]["seccomp"];
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    // The 14 capabilities have that of chroot among them, and none of tracing.
    let rules = profile["syscalls"].to_string();
    assert!(rules.contains("\"chroot\"") && !rules.contains("\"ptrace\""));
    assert_eq!(spec["linux"]["maskedPaths"].as_array().unwrap().len(), 11);
    let spec = SpecBuilder::new("ns", "c").unmasked().build();
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"]["readonlyPaths"], json!([]));
    assert_eq!(spec["process"]["noNewPrivileges"], false);
}

#[test]
fn an_added_process_inherits_what_it_does_not_set() {
    let spec = SpecBuilder::new("ns", "c").env(&["A=1"]).cwd("/srv").terminal().build();
    let change = ExecChange {
        args: vec!["true".to_owned()],
        env: vec!["B=2".to_owned()],
        ..ExecChange::default()
    };
    let process = exec_process(&spec, &change);
    assert_eq!(process["args"], json!(["true"]));
    assert_eq!(process["terminal"], false);
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["env"], json!([DEFAULT_PATH, "A=1", "TERM=xterm", "B=2"]));
    assert_eq!(process["capabilities"], spec["process"]["capabilities"]);
}

#[test]
fn mounts_are_two_paths_and_perhaps_ro() {
    let mount = BindMount::parse("/:/host:ro").unwrap();
    assert_eq!(
        mount,
        BindMount { source: "/".into(), destination: "/host".into(), read_only: true }
    );
    assert!(!BindMount::parse("/:/host").unwrap().read_only);
    for bad in ["/", "/:host", "/:/a:rx", "/:/a:ro:x", "/no/such/path:/a"] {
        assert!(BindMount::parse(bad).is_err(), "{bad}");
    }
}
