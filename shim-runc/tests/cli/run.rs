//! Containers that somebody stays with.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{Ended, World, is_root};

#[test]
fn its_status_is_that_of_the_program() {
    if !is_root() {
        return;
    }
    for (script, code) in [("exit 0", 0), ("echo hello; exit 5", 5), ("kill -9 $$", 137)] {
        // Only without a pid namespace can the first process kill itself.
        let world = World::script(script).with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
        });
        let ended = world.call(&["run", "c"]);
        assert_eq!((ended.code, ended.err.as_str()), (code, ""), "{script}: {ended:?}");
    }
    let ended = World::command(&["nope"]).call(&["run", "c"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("\"nope\""), "{}", ended.err);
}

#[test]
fn it_can_be_kept_or_left_alone() {
    if !is_root() {
        return;
    }
    let world = World::script("exit 3");
    assert_eq!(world.call(&["run", "--keep", "c"]).code, 3);
    assert_eq!(world.status("c"), "stopped");
    world.ok(&["delete", "c"]);
    let world = World::sleeper();
    world.leave(&["run", "--detach", "--pid-file", "pid", "c"]);
    assert_eq!(world.status("c"), "running");
    let pid = std::fs::read_to_string(world.path("pid")).unwrap();
    assert_eq!(pid, world.pid("c").to_string());
    world.ok(&["delete", "-f", "c"]);
}

#[test]
fn the_hosts_null_is_out_of_reach() {
    if !is_root() {
        return;
    }
    // The mode that it has anyhow: nothing happens where this goes wrong.
    let world = World::script(
        "chmod 666 /proc/keys 2>&1; stat -L -c %D /dev/null /proc/self/fd/0 | uniq | wc -l",
    );
    assert_eq!(world.ok(&["run", "c"]), "chmod: /proc/keys: Read-only file system\n1\n");
}

#[test]
fn signals_are_passed_on() {
    if !is_root() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
        let name = signal.as_str().trim_start_matches("SIG");
        let world = World::script(&format!(
            "trap 'echo caught; exit 9' {name}; echo ready; while :; do sleep 0.01; done"
        ));
        let mut run = world.program().args(["run", "c"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill(Pid::from_raw(run.id().cast_signed()), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "caught");
        assert_eq!(Ended::of(run.wait_with_output().unwrap()).code, 9);
    }
}

#[test]
fn other_verbs_work_on_it() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    let run = world.program().args(["run", "c"]).spawn().unwrap();
    let runs = || world.call(&["state", "c"]).out.contains("running");
    crate::world::until(runs);
    assert_eq!(world.ok(&["exec", "c", "echo", "in"]), "in\n");
    world.ok(&["kill", "c", "KILL"]);
    assert_eq!(Ended::of(run.wait_with_output().unwrap()).code, 137);
}
