//! Hooks of the spec, by several processes.

use std::fs;

use serde_json::{Value, json};

use crate::world::{World, hook, is_root, script};

#[test]
fn they_run_in_the_bundle_with_the_callers_variables_or_their_own() {
    if !is_root() {
        return;
    }
    let world = World::script("true");
    let (log, path) = (world.path("log"), world.path("hook"));
    script(&path, &format!("echo \"$1 $(pwd) $FROM\" >> {}", log.display()));
    let world = world.with(|spec| {
        let of = |moment: &str| json!([{ "path": path, "args": ["hook", moment] }]);
        spec["hooks"]["createRuntime"] = of("createRuntime");
        spec["hooks"]["createContainer"] = of("createContainer");
        spec["hooks"]["createContainer"][0]["env"] = json!(["FROM=spec"]);
    });
    let status = world.program().env("FROM", "caller").args(["run", "c"]).status().unwrap();
    assert!(status.success());
    let bundle = world.dir.path().display();
    let expected = format!("createRuntime {bundle} caller\ncreateContainer {bundle} spec\n");
    assert_eq!(fs::read_to_string(log).unwrap(), expected);
}

#[test]
fn they_run_in_order_and_are_told_the_state() {
    if !is_root() {
        return;
    }
    let world = World::script("echo program >> /log");
    let log = world.path("rootfs/log");
    let path = world.path("hook");
    script(&path, &format!("echo \"$1 $(cat)\" >> {}", log.display()));
    script(&world.path("rootfs/bin/inside"), "echo \"$1 $(cat)\" >> /log");
    let world = world.with(|spec| {
        for moment in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            spec["hooks"][moment] = hook(&path, &["hook", moment]);
        }
        spec["hooks"]["startContainer"] =
            json!([{ "path": "/bin/inside", "args": ["x", "startContainer"], "env": ["PATH=/bin"] }]);
    });
    world.create("c");
    let pid = world.pid("c");
    world.start("c");
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
    let text = fs::read_to_string(&log).unwrap();
    let mut told: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let Some((moment, state)) = line.split_once(' ') else {
            told.push((line.to_owned(), String::new()));
            continue;
        };
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["id"], "c");
        assert_eq!(state["bundle"], world.dir.path().to_str().unwrap());
        assert!(moment == "poststop" || state["pid"] == pid, "{line}");
        told.push((moment.to_owned(), state["status"].as_str().unwrap().to_owned()));
    }
    // poststart and the program are two processes: neither waits for the other.
    let program = told.iter().position(|(moment, _)| moment == "program").unwrap();
    assert!(program >= 4, "{told:?}");
    told.remove(program);
    let expected = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    let told: Vec<_> =
        told.iter().map(|(moment, state)| (moment.as_str(), state.as_str())).collect();
    assert_eq!(told, expected);
}

#[test]
fn one_that_says_no_is_told_by_its_verb() {
    if !is_root() {
        return;
    }
    let no = |world: &World| {
        let path = world.path("no");
        script(&path, "echo it is closed; exit 3");
        path
    };
    for moment in ["prestart", "createRuntime", "createContainer"] {
        let world = World::script("true");
        let path = no(&world);
        let world = world.with(|spec| spec["hooks"][moment] = hook(&path, &["no"]));
        let why = world.refused(&["create", "c"]);
        assert!(why.contains("exit status 3: it is closed"), "{why}");
    }
    let world = World::script("true").with(|spec| {
        spec["hooks"]["startContainer"] = hook("/bin/no".as_ref(), &["no"]);
    });
    script(&world.path("rootfs/bin/no"), "echo it is closed; exit 3");
    fs::write(world.path("rootfs/bin/no"), "#!/bin/sh\necho it is closed; exit 3\n").unwrap();
    world.create("c");
    let why = world.refused(&["start", "c"]);
    assert_eq!(why, "start: startContainer hook /bin/no: exit status 3: it is closed\n");
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
}
