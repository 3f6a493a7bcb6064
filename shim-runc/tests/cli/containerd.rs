//! The shim under a containerd, with cgroups that systemd makes: where there are both.
//!
//! The tests of containerd itself are in pid namespaces of their own, and systemd is not.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    common,
    systemd::{check_properties, is_systemds, property},
    world::{Ended, LIMIT, until, until_within},
};

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-native-v2");

/// A daemon with everything of its own.
struct Containerd {
    dir: TempDir,
    programs: PathBuf,
    daemon: Child,
}

/// Where containerd's programs are: in the `PATH`, or among those that integration tests fetch.
fn programs() -> Option<PathBuf> {
    let fetched = env::var_os("SHIM_ENGINES").map(PathBuf::from);
    let fetched = fetched.map(|engines| engines.join("forky/containerd/usr/bin"));
    let paths = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&paths).chain(fetched).find(|path| path.join("containerd").exists());
    if found.is_none() {
        println!("skipped: there is no containerd in PATH or SHIM_ENGINES");
    }
    found
}

impl Containerd {
    fn new() -> Option<Self> {
        if !is_systemds() {
            return None;
        }
        let programs = programs()?;
        let dir = TempDir::new_in("/run").unwrap();
        common::make_rootfs(&dir.path().join("rootfs"));
        fs::write(dir.path().join("options.toml"), "SystemdCgroup = true\n").unwrap();
        let config = "version = 3\ndisabled_plugins = ['io.containerd.cri.v1.images', \
            'io.containerd.cri.v1.runtime', 'io.containerd.grpc.v1.cri']\n";
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut daemon = Command::new(programs.join("containerd"));
        daemon.arg("--config").arg(path("config.toml")).arg("--root").arg(path("root"));
        daemon.arg("--state").arg(path("state")).arg("--address").arg(path("socket"));
        let log = fs::File::create(path("log")).unwrap();
        let daemon = daemon.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let containerd = Self { dir, programs, daemon };
        until_within(4 * LIMIT, || containerd.ctr(&["version"]).code == 0);
        Some(containerd)
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn ctr(&self, args: &[&str]) -> Ended {
        let mut ctr = Command::new(self.programs.join("ctr"));
        ctr.arg("--address").arg(self.path("socket")).args(["--namespace", "systemd-test"]);
        Ended::of(ctr.args(args).stdin(Stdio::null()).output().unwrap())
    }

    fn ok(&self, args: &[&str]) -> String {
        let ended = self.ctr(args);
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}\n{log}");
        ended.out
    }

    fn run(&self, flags: &[&str], id: &str, args: &[&str]) -> Ended {
        self.run_in(&format!("system.slice:it:{id}"), flags, id, args)
    }

    fn run_in(&self, cgroup: &str, flags: &[&str], id: &str, args: &[&str]) -> Ended {
        let (options, rootfs) = (self.path("options.toml"), self.path("rootfs"));
        let head = ["run", "--runtime", SHIM, "--runtime-config-path", &options];
        let own = ["--cgroup", cgroup, "--rootfs", &rootfs, id];
        self.ctr(&[&head, flags, &own, args].concat())
    }

    fn begin(&self, id: &str, flags: &[&str]) -> i32 {
        let flags = [&["--detach", "--null-io"], flags].concat();
        let ended = self.run(&flags, id, &["/bin/sleep", "1000"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let list = self.ok(&["task", "list"]);
        let row = list.lines().find(|line| line.starts_with(id)).unwrap();
        row.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn is_gone(id: &str) -> bool {
    property(&format!("it-{id}.scope"), "LoadState") == "not-found"
}

/// One test: without KVM a daemon takes half a minute to begin.
#[test]
fn containerd_has_its_containers_in_scopes_and_leaves_none() {
    let Some(containerd) = Containerd::new() else { return };
    has_scopes(&containerd);
    leaves_none_of_a_shim_that_was_killed(&containerd);
    is_told_what_can_be_no_unit(&containerd);
}

fn has_scopes(containerd: &Containerd) {
    let ended =
        containerd.run(&["--rm"], "short", &["/bin/sh", "-c", "cat /proc/self/cgroup; exit 7"]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (7, "0::/system.slice/it-short.scope\n"),
        "{ended:?}"
    );
    until(|| is_gone("short"));
    let pid = containerd.begin("long", &["--memory-limit", "33554432", "--cpus", "0.5"]);
    let at = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(at, "0::/system.slice/it-long.scope\n");
    let limits = [("MemoryMax", "33554432"), ("CPUQuotaPerSecUSec", "500ms")];
    check_properties("it-long.scope", &limits);
    let read = |name: &str| {
        fs::read_to_string(format!("/sys/fs/cgroup/system.slice/it-long.scope/{name}")).unwrap()
    };
    assert_eq!(
        (read("memory.max").as_str(), read("cpu.max").as_str()),
        ("33554432\n", "50000 100000\n")
    );
    assert_eq!(read("cgroup.procs"), format!("{pid}\n"));
    let exec = |args: &[&str]| {
        containerd.ctr(&[&["task", "exec", "--exec-id", "e", "long"], args].concat())
    };
    assert_eq!(exec(&["/bin/cat", "/proc/self/cgroup"]).out, at);
    assert!(containerd.ok(&["task", "metrics", "long"]).contains("memory"));
    containerd.ok(&["task", "pause", "long"]);
    containerd.ok(&["task", "resume", "long"]);
    // Who exceeds the limit is killed, and systemd does not end the others for it.
    let hungry = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
    assert_eq!(exec(&hungry).code, 137);
    assert!(containerd.ok(&["task", "list"]).contains("RUNNING"));
    containerd.ctr(&["task", "delete", "--force", "long"]);
    assert!(is_gone("long"));
    containerd.ok(&["container", "delete", "long"]);
}

fn leaves_none_of_a_shim_that_was_killed(containerd: &Containerd) {
    let pid = containerd.begin("orphan", &[]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let shim = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    until(|| !Path::new(&format!("/proc/{pid}")).exists());
    until(|| is_gone("orphan"));
    until(|| !containerd.ok(&["task", "list"]).contains("orphan"));
    containerd.ok(&["container", "delete", "orphan"]);
}

fn is_told_what_can_be_no_unit(containerd: &Containerd) {
    let ended = containerd.run_in("/a/b", &["--rm"], "bad", &["/bin/true"]);
    assert_ne!(ended.code, 0);
    assert!(ended.err.contains("linux.cgroupsPath \"/a/b\" is not SLICE:PREFIX:NAME"), "{ended:?}");
}
