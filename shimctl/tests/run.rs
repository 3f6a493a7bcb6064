//! `shimctl` as a person uses it, with the native shim and with the example of `shim-core`: no
//! containerd anywhere. Needs root; without it each test says so and passes nothing off as tested.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// One `shimctl` state of a test's own, and the check that nothing of it is left.
struct Stage {
    root: tempfile::TempDir,
    namespace: String,
    shim: PathBuf,
}

/// The shims under test, built once.
fn binaries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        for what in [
            &["build", "--package", "shim-runc", "--bin", "containerd-shim-native-v2"][..],
            &["build", "--package", "shim-core", "--example", "containerd-shim-plain-v1"],
        ] {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            assert!(Command::new(cargo).args(what).status().unwrap().success(), "{what:?}");
        }
        Path::new(env!("CARGO_BIN_EXE_shimctl")).parent().unwrap().to_owned()
    })
}

impl Stage {
    /// `None` without root, which is told.
    fn new(test: &str, shim: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: {test} makes containers and needs root");
            return None;
        }
        let root = tempfile::Builder::new().prefix("shimctl").tempdir_in("/run").unwrap();
        let namespace = format!("{test}-{}", std::process::id());
        Some(Self { root, namespace, shim: binaries().join(shim) })
    }

    fn native(test: &str) -> Option<Self> {
        Self::new(test, "containerd-shim-native-v2")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shimctl"));
        command.arg("--root").arg(self.root.path()).args(["--namespace", &self.namespace]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a container in the foreground.
    fn container(&self, flags: &[&str], program: &[&str]) -> Output {
        let shim = self.shim.to_str().unwrap();
        self.run(&[&["run", "--shim", shim], flags, &["host", "--"], program].concat())
    }

    /// Ends the test: no process, mount, cgroup or file may be left.
    fn check_nothing_is_left(self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?}");
            std::thread::yield_now();
        }
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let root = self.root.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(mounts.lines().filter(|line| line.contains(root)).map(str::to_owned));
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let command = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            if command.contains(&self.namespace) {
                left.push(command.replace('\0', " "));
            }
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let cgroup = hierarchy.path().join(&self.namespace);
            let inside = fs::read_dir(&cgroup).into_iter().flatten().flatten();
            let inside = inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            left.extend(inside.map(|entry| entry.path().display().to_string()));
        }
        left
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The parent of all of a test's cgroups is the test's, not the shim's.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            drop(fs::remove_dir(hierarchy.path().join(&self.namespace)));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
