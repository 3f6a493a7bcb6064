//! What is left when a verb is killed, and how it goes.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::world::{World, hook, is_root, script, until};

#[test]
fn a_create_that_is_killed_at_any_moment_is_deleted_by_force() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    for round in 0..40_u32 {
        let mut create = world.program();
        create.args(["create", "c"]).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        let mut create = create.spawn().unwrap();
        let moment = round * Duration::from_micros(500);
        while begun.elapsed() < moment {
            std::thread::yield_now();
        }
        create.kill().unwrap();
        create.wait().unwrap();
        world.ok(&["delete", "--force", "c"]);
        assert!(world.refused(&["state", "c"]).contains("does not exist"));
        let left = world.directory("pids");
        assert!(!left.exists(), "round {round}: {} is left", left.display());
    }
}

#[test]
fn one_that_is_being_made_says_so_and_its_deletion_waits() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    let (path, ready) = (world.path("hook"), world.path("ready"));
    script(&path, &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", ready.display()));
    let world = world.with(|spec| spec["hooks"]["createRuntime"] = hook(&path, &["hook"]));
    let mut create = world.program();
    create.args(["create", "c"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut create = create.spawn().unwrap();
    until(|| ready.exists());
    assert_eq!(world.status("c"), "creating");
    assert!(world.refused(&["create", "c"]).contains("exists already"));
    create.kill().unwrap();
    create.wait().unwrap();
    // The hook is the host's, and nobody's any more.
    let pid = std::fs::read_to_string(&ready).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    // Its init process ends by itself: nobody is left to start it.
    world.await_status("c", "stopped");
    world.ok(&["delete", "--force", "c"]);
}

#[test]
fn a_run_that_is_killed_leaves_a_container_to_delete() {
    if !is_root() {
        return;
    }
    let world = World::sleeper();
    let mut run = world.program().args(["run", "c"]).spawn().unwrap();
    until(|| world.call(&["state", "c"]).out.contains("running"));
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(world.status("c"), "running");
    world.ok(&["delete", "--force", "c"]);
}
