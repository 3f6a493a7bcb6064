//! Added processes.

use std::{fs, io::Write, process::Stdio};

use serde_json::json;

use crate::world::{Ended, World, is_root, until};

fn running() -> World {
    let world = World::sleeper();
    world.create("c");
    world.start("c");
    world
}

#[test]
fn its_status_is_that_of_the_program() {
    if !is_root() {
        return;
    }
    let world = running();
    let ended = world.call(&["exec", "c", "/bin/sh", "-c", "hostname; echo no >&2; exit 7"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (7, "box\n", "no\n"));
    assert_eq!(world.call(&["exec", "c", "sh", "-c", "kill -TERM $$"]).code, 143);
    let mut cat = world.program();
    cat.args(["exec", "c", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut cat = cat.spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(Ended::of(cat.wait_with_output().unwrap()).out, "through");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn one_that_cannot_run_says_why() {
    if !is_root() {
        return;
    }
    let world = running();
    for (args, why) in [
        (["exec", "c", "nope"], "exec: exec: \"nope\": executable file not found in $PATH"),
        (["exec", "c", "/none"], "exec: exec: \"/none\": stat /none: no such file or directory"),
        (["exec", "c", "/etc/passwd"], "permission denied"),
        (["exec", "none", "true"], "container \"none\" does not exist"),
    ] {
        let ended = world.call(&args);
        assert_eq!(ended.code, 255, "{ended:?}");
        assert!(ended.err.contains(why), "{ended:?}");
    }
    world.ok(&["kill", "c", "9"]);
    world.await_status("c", "stopped");
    let ended = world.call(&["exec", "c", "true"]);
    assert!(ended.code == 255 && ended.err.contains("stopped container"), "{ended:?}");
    world.ok(&["delete", "c"]);
}

#[test]
fn it_is_like_the_containers_own_unless_told_otherwise() {
    if !is_root() {
        return;
    }
    let world = running();
    let look = "id -u; id -g; id -G; pwd; echo $A $TERM; grep -E 'CapEff|NoNew' /proc/self/status | tr -d '\\t'";
    let out = world.ok(&["exec", "c", "sh", "-c", look]);
    assert_eq!(out, "0\n0\n0\n/\nxterm\nCapEff:00000000a80425fb\nNoNewPrivs:1\n");
    let flags = ["exec", "-u", "1000:1001", "-g", "7", "-g", "8", "-e", "A=b", "--cwd", "/tmp"];
    let out = world.ok(&[&flags[..], &["c", "sh", "-c", look]].concat());
    let expected = "1000\n1001\n1001 7 8\n/tmp\nb xterm\nCapEff:0000000000000000\nNoNewPrivs:1\n";
    assert_eq!(out, expected);
    let out = world.ok(&["exec", "--cap", "CAP_SYS_TIME", "c", "sh", "-c", look]);
    assert!(out.contains("CapEff:00000000aa0425fb\n"), "{out}");
    let mut process = crate::common::process(&["sh", "-c", look]);
    process["user"] = json!({ "uid": 5, "gid": 6 });
    process["noNewPrivileges"] = false.into();
    fs::write(world.path("process.json"), process.to_string()).unwrap();
    let out = world.ok(&["exec", "--process", "process.json", "c"]);
    assert_eq!(out, "5\n6\n6\n/\nxterm\nCapEff:0000000000000000\nNoNewPrivs:0\n");
    // As with a spec's, what nobody knows is left out.
    let out = world.ok(&["exec", "--cap", "CAP_TO_FLY", "c", "sh", "-c", look]);
    assert!(out.contains("CapEff:00000000a80425fb\n"), "{out}");
    for bad in [&["-u", "root"][..], &["--process-label", "x"]] {
        let ended = world.call(&[&["exec"], bad, &["c", "true"]].concat());
        assert_eq!(ended.code, 255, "{bad:?}: {ended:?}");
    }
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn it_can_be_left_alone() {
    if !is_root() {
        return;
    }
    let world = running();
    world.leave(&["exec", "--detach", "--pid-file", "pid", "c", "sleep", "2000"]);
    let pid = fs::read_to_string(world.path("pid")).unwrap();
    let arguments = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(arguments(), "sleep\x002000\0");
    let listed: Vec<i32> = serde_json::from_str(&world.ok(&["ps", "-f", "json", "c"])).unwrap();
    assert!(listed.contains(&pid.parse().unwrap()) && listed.len() == 2, "{listed:?}");
    let table = world.ok(&["ps", "c", "-o", "pid,args"]);
    assert!(table.contains("sleep 1000") && table.contains("sleep 2000"), "{table}");
    assert_eq!(table.lines().count(), 3);
    world.ok(&["delete", "-f", "c"]);
}

/// Whether a controller has a hierarchy of its own.
fn is_v1(controller: &str) -> bool {
    std::path::Path::new("/sys/fs/cgroup").join(controller).join("tasks").exists()
}

#[test]
fn it_is_in_the_containers_cgroup_or_in_one_below() {
    if !is_root() {
        return;
    }
    let world = running();
    let look = |flags: &[&str]| {
        let args = [&["exec"], flags, &["c", "cat", "/proc/self/cgroup"]].concat();
        world.call(&args)
    };
    let ended = world.call(&["exec", "--cgroup", "sub", "c", "true"]);
    assert!(ended.code == 255 && ended.err.contains("ENOENT"), "{ended:?}");
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = text.lines().filter(|line| line.contains(" - cgroup"));
    for mount in mounts.filter_map(|line| line.split(' ').nth(4)) {
        let own = std::path::Path::new(mount).join(&world.cgroup).join("c");
        if own.exists() {
            fs::create_dir(own.join("sub")).unwrap();
        }
    }
    assert!(look(&[]).out.lines().all(|line| line.ends_with(":/")));
    let below = look(&["--cgroup", "sub"]);
    assert!(below.out.lines().all(|line| line.ends_with(":/sub")), "{below:?}");
    for (flags, why) in [
        (&["--cgroup", "nothing:sub"][..], "\"nothing\" has no hierarchy of cgroup v1"),
        (&["--cgroup", "sub", "--cgroup", "pids:sub"], "\"sub\" names no controller"),
        (&["--cgroup", ":sub"], "\":sub\" names no controller"),
    ] {
        let ended = look(flags);
        assert!(ended.code == 255 && ended.err.contains(why), "{ended:?}");
    }
    if is_v1("pids") && is_v1("memory") {
        let some = look(&["--cgroup", "pids,memory:sub"]);
        let each = look(&["--cgroup", "pids:sub", "--cgroup", "memory:/sub/"]);
        assert_eq!((&some.out, some.code), (&each.out, 0), "{some:?} {each:?}");
        for line in some.out.lines() {
            let is_named = line.contains(":pids:") || line.contains(":memory:");
            assert!(line.ends_with(if is_named { ":/sub" } else { ":/" }), "{some:?}");
        }
        let ended = look(&["--cgroup", "pids:sub", "--cgroup", "pids:."]);
        assert!(ended.code == 255 && ended.err.contains("two paths for pids"), "{ended:?}");
    }
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn a_paused_container_takes_none_unless_it_is_to() {
    if !is_root() {
        return;
    }
    let world = running();
    world.ok(&["pause", "c"]);
    let ended = world.call(&["exec", "c", "true"]);
    assert!(ended.code == 255 && ended.err.contains("paused"), "{ended:?}");
    // It stands still before its program runs, and goes on with the others.
    let mut exec = world.program();
    exec.args(["exec", "--ignore-paused", "c", "echo", "late"]).stdout(Stdio::piped());
    let exec = exec.spawn().unwrap();
    let members = || world.ok(&["ps", "-f", "json", "c"]).split(',').count();
    until(|| members() == 2);
    world.ok(&["resume", "c"]);
    assert_eq!(Ended::of(exec.wait_with_output().unwrap()).out, "late\n");
    world.ok(&["delete", "-f", "c"]);
}
