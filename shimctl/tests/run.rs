//! `shimctl` as a person uses it, with the native shim and with the example of `shim-core`: no
//! containerd anywhere. Needs root; without it each test says so and passes nothing off as tested.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod stage;

use std::process::Output;

use stage::{Stage, text};

impl Stage {
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a container in the foreground.
    fn container(&self, flags: &[&str], program: &[&str]) -> Output {
        let shim = self.shim.to_str().unwrap();
        self.run(&[&["run", "--shim", shim], flags, &["host", "--"], program].concat())
    }
}

#[test]
fn a_container_has_a_view_of_its_own() {
    let Some(stage) = Stage::native("view") else { return };
    let program = ["sh", "-c", "id -u; hostname; cat /proc/1/comm; grep memory /proc/self/cgroup"];
    let output = stage.container(&["--name", "c1", "--hostname", "web"], &program);
    let printed = text(&output.stdout);
    let printed: Vec<_> = printed.lines().collect();
    assert_eq!(printed.len(), 4, "{printed:?} {}", text(&output.stderr));
    assert_eq!(printed[..3], ["0", "web", "sh"]);
    assert!(printed[3].ends_with(&format!("memory:/{}/c1", stage.namespace)), "{printed:?}");
    stage.check_nothing_is_left();
}

#[test]
fn exit_codes_and_errors_come_through() {
    let Some(stage) = Stage::native("codes") else { return };
    assert_eq!(stage.container(&[], &["sh", "-c", "exit 42"]).status.code(), Some(42));
    assert_eq!(stage.container(&[], &["sh", "-c", "kill -9 $$; sleep 0.1"]).status.code(), Some(0));
    let missing = stage.container(&[], &["/no/such/program"]);
    assert_eq!(missing.status.code(), Some(125));
    assert!(text(&missing.stderr).contains("/no/such/program"), "{}", text(&missing.stderr));
    stage.check_nothing_is_left();
}

#[test]
fn limits_hold() {
    let Some(stage) = Stage::native("limits") else { return };
    let hungry = "x=x; while :; do x=$x$x; done";
    let output = stage.container(&["--memory", "32m"], &["sh", "-c", hungry]);
    assert_eq!(output.status.code(), Some(137), "{}", text(&output.stderr));
    let many = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait";
    let output = stage.container(&["--pids", "5"], &["sh", "-c", many]);
    assert!(text(&output.stderr).contains("fork"), "{}", text(&output.stderr));
    stage.check_nothing_is_left();
}

#[test]
fn every_generation_of_containerd_is_understood() {
    let Some(stage) = Stage::native("generations") else { return };
    let shim = stage.shim.to_str().unwrap().to_owned();
    for generation in ["1.6", "1.7", "2.0", "2.3"] {
        let run = ["--as", generation, "run", "--shim", &shim, "host", "--", "echo", generation];
        let output = stage.run(&run);
        assert_eq!(text(&output.stdout).trim(), generation, "{}", text(&output.stderr));
    }
    stage.check_nothing_is_left();
}

#[test]
fn a_detached_container_is_found_again() {
    let Some(stage) = Stage::native("detached") else { return };
    let started = stage.container(&["-d", "--name", "d1"], &["sleep", "1000"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
    assert!(text(&stage.run(&["ps"]).stdout).contains("d1"));
    let exec = stage.run(&["exec", "d1", "--", "sh", "-c", "echo inside; exit 3"]);
    assert_eq!((exec.status.code(), text(&exec.stdout).as_str()), (Some(3), "inside\n"));
    assert!(stage.run(&["kill", "d1", "KILL"]).status.success());
    let removed = stage.run(&["rm", "-f", "d1"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    stage.check_nothing_is_left();
}

#[test]
fn the_example_backend_runs() {
    let Some(stage) = Stage::new("plain", "examples/containerd-shim-plain-v1") else { return };
    let output = stage.container(&[], &["sh", "-c", "echo plain; exit 7"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(7), "plain\n"));
    stage.check_nothing_is_left();
}
