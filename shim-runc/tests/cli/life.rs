//! From create to delete.

use std::fs;

use serde_json::Value;

use crate::world::{World, is_root, until};

#[test]
fn a_container_goes_from_created_to_running_to_stopped() {
    if !is_root() {
        return;
    }
    let world = World::sleeper().with(|spec| spec["annotations"] = serde_json::json!({ "a": "b" }));
    world.leave(&["create", "--pid-file", "pid", "c"]);
    let state = world.state("c");
    assert_eq!((&state["status"], &state["id"]), (&"created".into(), &"c".into()));
    assert_eq!(state["bundle"], world.dir.path().to_str().unwrap());
    assert_eq!(state["rootfs"], world.path("rootfs").to_str().unwrap());
    assert_eq!((&state["annotations"]["a"], &state["owner"]), (&"b".into(), &"root".into()));
    assert_eq!(state["ociVersion"], "1.1.0");
    assert_eq!(fs::read_to_string(world.path("pid")).unwrap(), state["pid"].to_string());
    let name = |pid: &Value| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name(&state["pid"]), "shim-stem\n");
    world.start("c");
    assert_eq!(name(&state["pid"]), "sleep\n");
    assert_eq!(world.state("c")["status"], "running");
    world.ok(&["kill", "c", "KILL"]);
    world.await_status("c", "stopped");
    assert_eq!(world.state("c")["pid"], 0);
    world.ok(&["delete", "c"]);
    assert!(world.refused(&["state", "c"]).contains("does not exist"));
}

#[test]
fn what_becomes_of_the_spec_later_changes_nothing() {
    if !is_root() {
        return;
    }
    let world = World::script("echo one");
    world.create("c");
    fs::remove_file(world.path("config.json")).unwrap();
    let mut start = std::process::Command::new(crate::world::PROGRAM);
    assert!(start.arg("--root").arg(world.root()).args(["start", "c"]).status().unwrap().success());
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
}

#[test]
fn an_id_is_had_once_and_is_no_path() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    world.create("c");
    assert!(world.refused(&["create", "c"]).contains("exists already"));
    assert_eq!(world.status("c"), "created");
    for bad in ["..", "a/b", ".a", ""] {
        assert!(world.refused(&["create", bad]).contains("invalid container id"), "{bad}");
    }
    world.ok(&["delete", "c"]);
}

#[test]
fn a_verb_at_the_wrong_time_is_refused() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    world.create("c");
    assert!(world.refused(&["resume", "c"]).contains("not paused"));
    world.start("c");
    assert!(world.refused(&["start", "c"]).contains("already running"));
    let why = world.refused(&["delete", "c"]);
    assert!(why.contains("cannot delete container c that is not stopped: running"), "{why}");
    world.ok(&["kill", "c", "9"]);
    world.await_status("c", "stopped");
    assert!(world.refused(&["start", "c"]).contains("has stopped"));
    for verb in [["kill", "c"], ["pause", "c"], ["update", "c"]] {
        assert!(world.refused(&verb).contains("container not running"), "{verb:?}");
    }
    assert_eq!(world.ok(&["ps", "--format", "json", "c"]), "[]\n");
    world.ok(&["delete", "c"]);
    for verb in ["start", "kill", "delete", "pause", "resume", "ps", "update"] {
        assert!(world.refused(&[verb, "c"]).contains("does not exist"), "{verb}");
    }
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn one_that_runs_is_deleted_by_force() {
    if !is_root() {
        return;
    }
    let world = World::script("sleep 1000 & sleep 1000");
    world.create("c");
    world.start("c");
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn a_program_that_is_not_there_is_told_by_create() {
    if !is_root() {
        return;
    }
    let world = World::command(&["nope"]);
    let log = world.path("log");
    let log = log.to_str().unwrap();
    let ended = world.call(&["--log", log, "--log-format", "json", "create", "c"]);
    let text = "create: exec: \"nope\": executable file not found in $PATH";
    assert_eq!((ended.code, ended.err.trim_end()), (1, text));
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&"error".into(), &text.into()));
}

#[test]
fn one_that_cannot_be_executed_is_told_by_start() {
    if !is_root() {
        return;
    }
    let world = World::command(&["/bin/script"]);
    crate::world::script(&world.path("rootfs/bin/script"), "");
    fs::write(world.path("rootfs/bin/script"), "#!/bin/nothing\n").unwrap();
    world.create("c");
    let why = world.refused(&["start", "c"]);
    assert!(why.contains("exec /bin/script: ENOENT"), "{why}");
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
}

#[test]
fn signals_go_to_the_init_process_or_to_all() {
    if !is_root() {
        return;
    }
    let catch = "trap 'exit 0' TERM; touch /tmp/$$; while :; do sleep 0.01; done";
    let world = World::script(&format!("sh -c \"{}\" & {catch}", catch.replace("$$", "other")));
    world.create("c");
    world.start("c");
    until(|| world.path("rootfs/tmp/1").exists() && world.path("rootfs/tmp/other").exists());
    world.ok(&["kill", "--all", "c", "0"]);
    assert!(world.refused(&["kill", "c", "NOPE"]).contains("unknown signal"));
    world.ok(&["kill", "c", "SIGTERM"]);
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
}

#[test]
fn without_a_pid_namespace_all_end_with_the_init_process() {
    if !is_root() {
        return;
    }
    let world = World::script("sleep 1000 & exec sleep 1000").with(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    });
    world.create("c");
    world.start("c");
    until(|| world.ok(&["ps", "-f", "json", "c"]).split(',').count() == 2);
    world.ok(&["kill", "c", "KILL"]);
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
}

#[test]
fn a_paused_container_stands_still() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    world.create("c");
    world.start("c");
    world.ok(&["pause", "c"]);
    assert_eq!(world.status("c"), "paused");
    assert!(world.refused(&["pause", "c"]).contains("not running"));
    world.ok(&["resume", "c"]);
    assert_eq!(world.status("c"), "running");
    world.ok(&["pause", "c"]);
    world.ok(&["kill", "c", "KILL"]);
    world.await_status("c", "stopped");
    world.ok(&["delete", "c"]);
    world.create("c");
    world.ok(&["pause", "c"]);
    assert_eq!(world.status("c"), "paused");
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn a_start_needs_no_more_than_reading_and_writing() {
    if !is_root() {
        return;
    }
    let denied = [
        "accept", "accept4", "connect", "socket", "sendmsg", "recvmsg", "sendto", "recvfrom",
        "open", "openat", "openat2", "fcntl", "poll", "ppoll", "close",
    ];
    for no_new_privileges in [true, false] {
        for (program, why) in [("true", ""), ("script", "exec /bin/script: ENOENT")] {
            let world = World::command(&[&format!("/bin/{program}")]).with(|spec| {
                spec["process"]["noNewPrivileges"] = no_new_privileges.into();
                // Where its home is looked up, the passwd file is opened.
                spec["process"]["env"] = serde_json::json!(["HOME=/"]);
                let rule =
                    serde_json::json!({ "names": denied, "action": "SCMP_ACT_KILL_PROCESS" });
                spec["linux"]["seccomp"] =
                    serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
            });
            let script = world.path("rootfs/bin/script");
            crate::world::script(&script, "");
            fs::write(script, "#!/bin/nothing\n").unwrap();
            world.create("c");
            let ended = world.call(&["start", "c"]);
            assert_eq!(ended.code, i32::from(!why.is_empty()), "{ended:?}");
            assert!(ended.err.contains(why), "{ended:?}");
            world.await_status("c", "stopped");
            world.ok(&["delete", "c"]);
        }
    }
}

#[test]
fn files_are_passed_on() {
    if !is_root() {
        return;
    }
    let world =
        World::script("echo $LISTEN_FDS $LISTEN_PID; cat <&3 <&4; ls /proc/self/fd | wc -l");
    let run = |listening: &str, count: &str| {
        let mut shell = std::process::Command::new("/bin/sh");
        let mut program = world.program();
        program.args(["run", "--preserve-fds", count, "c"]);
        let words = [program.get_program()].into_iter().chain(program.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        let line =
            format!("exec 3</etc/hostname 4<config.json 5</dev/null; exec {}", words.join(" "));
        shell.args(["-c", &line]).current_dir(world.dir.path());
        if !listening.is_empty() {
            shell.env("LISTEN_FDS", listening);
        }
        crate::world::Ended::of(shell.output().unwrap())
    };
    let spec = world.spec.to_string();
    let ended = run("1", "1");
    // The three streams, these two, and the directory that ls reads.
    assert_eq!(ended.out, format!("1 1\n{spec}6\n"), "{ended:?}");
    let ended = run("", "2");
    assert_eq!(ended.out, format!("\n{spec}6\n"), "{ended:?}");
    let why = world.refused(&["create", "--preserve-fds", "9", "c"]);
    assert!(why.contains("is to be passed on and is not open"), "{why}");
}

#[test]
fn no_mount_of_a_container_is_a_peer_of_the_hosts() {
    if !is_root() {
        return;
    }
    let world = World::script("grep -c shared: /proc/self/mountinfo");
    // A host as service managers leave it.
    let mut host = std::process::Command::new("unshare");
    host.args(["--mount", "--propagation", "shared"]).arg(world.program().get_program());
    host.args(world.program().get_args()).args(["run", "c"]).current_dir(world.dir.path());
    let ended = crate::world::Ended::of(host.output().unwrap());
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("0\n", ""), "{ended:?}");
}
