//! Verbs that look, and the limits that can be changed.

use std::fs;

use serde_json::{Value, json};

use crate::world::{World, is_root};

#[test]
fn containers_are_listed() {
    if !is_root() {
        return;
    }
    let mut world = World::sleeper();
    assert_eq!(world.ok(&["list", "-q"]), "");
    assert_eq!(world.ok(&["list", "--format", "json"]), "[]\n");
    world.create("a");
    world.spec["linux"]["cgroupsPath"] = format!("/{}/other", world.cgroup).into();
    world.create("b");
    world.start("b");
    assert_eq!(world.ok(&["list", "-q"]), "a\nb\n");
    let list: Value = serde_json::from_str(&world.ok(&["list", "-f", "json"])).unwrap();
    assert_eq!((&list[0]["status"], &list[1]["status"]), (&json!("created"), &json!("running")));
    let table = world.ok(&["list"]);
    let rows: Vec<Vec<_>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!((rows[2][0], rows[2][2], rows[2][5]), ("b", "running", "root"));
    world.ok(&["delete", "-f", "a"]);
    world.ok(&["delete", "-f", "b"]);
}

#[test]
fn limits_are_changed() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    world.create("c");
    world.start("c");
    let limit = |controller: &str, file: &str| {
        let path = world.directory(controller).join(file);
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    };
    if !world.directory("pids").join("pids.max").exists() {
        println!("skipped: no pids controller");
    } else {
        world.ok(&["update", "--pids-limit", "33", "c"]);
        assert_eq!(limit("pids", "pids.max"), "33");
        fs::write(world.path("r.json"), r#"{ "pids": { "limit": 44 } }"#).unwrap();
        world.ok(&["update", "-r", "r.json", "c"]);
        assert_eq!(limit("pids", "pids.max"), "44");
        let mut update = world.program();
        let file = fs::File::open(world.path("r.json")).unwrap();
        update.args(["update", "--resources", "-", "c"]).stdin(file);
        assert!(update.status().unwrap().success());
    }
    fs::write(world.path("r.json"), "nonsense").unwrap();
    assert!(world.refused(&["update", "-r", "r.json", "c"]).contains("parse r.json"));
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn cache_that_this_host_does_not_share_out_is_refused_before_anything_is_changed() {
    if !is_root() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(" - resctrl ") {
        println!("skipped: this host has resctrl");
        return;
    }
    let world = World::sleeper();
    world.create("c");
    let max = world.directory("pids").join("pids.max");
    let before = fs::read_to_string(&max).ok();
    for flag in ["--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=70"] {
        let said = world.refused(&["update", "--pids-limit", "33", flag, "c"]);
        assert!(said.contains("no resctrl filesystem is mounted on this host"), "{said}");
    }
    assert_eq!(fs::read_to_string(&max).ok(), before);
    let event: Value = serde_json::from_str(&world.ok(&["events", "--stats", "c"])).unwrap();
    assert!(event["data"].get("intel_rdt").is_none(), "{event}");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn what_is_used_is_told() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    world.create("c");
    world.start("c");
    let event: Value = serde_json::from_str(&world.ok(&["events", "--stats", "c"])).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!("c")));
    assert!(event["data"]["cpu"]["usage"]["total"].is_u64(), "{event}");
    let mut events = world.program();
    events.args(["events", "--interval", "10ms", "c"]).stdout(std::process::Stdio::piped());
    let mut events = events.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
    for _ in 0..3 {
        assert!(lines.next().unwrap().unwrap().contains("\"stats\""));
    }
    world.ok(&["kill", "c", "KILL"]);
    assert!(events.wait().unwrap().success());
    assert!(world.refused(&["events", "--stats", "c"]).contains("not running"));
    world.ok(&["delete", "c"]);
}

#[test]
fn a_first_spec_runs() {
    if !is_root() {
        return;
    }
    let mut world = World::sleeper();
    let bundle = world.path("fresh");
    fs::create_dir(&bundle).unwrap();
    let bundle = bundle.to_str().unwrap();
    world.ok(&["spec", "--bundle", bundle]);
    assert!(world.refused(&["spec", "-b", bundle]).contains("config.json"));
    let text = fs::read_to_string(world.path("fresh/config.json")).unwrap();
    let spec: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(spec["process"]["args"], json!(["sh"]));
    let cgroup = world.spec["linux"]["cgroupsPath"].clone();
    world.spec = spec;
    world.spec["linux"]["cgroupsPath"] = cgroup;
    world.spec["process"]["terminal"] = false.into();
    world.spec["process"]["args"] = json!(["/bin/sh", "-c", "hostname; ls /sys/fs/cgroup | wc -l"]);
    let out = world.ok(&["run", "c"]);
    assert!(out.starts_with("shim-runc\n") && !out.ends_with("\n0\n"), "{out}");
}

#[test]
fn the_program_says_what_it_is() {
    let call = |args: &[&str]| {
        let output = std::process::Command::new(crate::world::PROGRAM).args(args).output().unwrap();
        crate::world::Ended::of(output)
    };
    assert!(call(&["--version"]).out.starts_with("shim-runc version "));
    assert_eq!(call(&["-v"]).code, 0);
    let features: Value = serde_json::from_str(&call(&["features"]).out).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    for wrong in [
        &[][..],
        &["nonsense"],
        &["start"],
        &["--systemd-cgroup", "state", "c"],
        &["checkpoint", "c"],
        &["restore", "c"],
    ] {
        let ended = call(wrong);
        assert_eq!(ended.code, 1, "{wrong:?}: {ended:?}");
        assert!(!ended.err.is_empty());
    }
}
