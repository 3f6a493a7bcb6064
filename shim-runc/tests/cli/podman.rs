//! Podman, with this runtime in the place of its own.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    common,
    systemd::{check_properties, is_systemds, property},
    world::{Ended, PROGRAM, is_root},
};

/// Podman with everything of its own.
struct Podman {
    dir: TempDir,
    /// Who makes cgroups, by Podman's word.
    cgroups: &'static str,
}

impl Podman {
    fn new() -> Option<Self> {
        Self::with("cgroupfs")
    }

    fn with(cgroups: &'static str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let found = Command::new("podman").arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            println!("skipped: podman is not installed");
            return None;
        }
        let podman = Self { dir: TempDir::new_in("/run").unwrap(), cgroups };
        // More than a test may have is the default of some versions.
        let settings = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
            [engine]\nlock_type = \"file\"\n";
        fs::write(podman.path().join("containers.conf"), settings).unwrap();
        common::make_rootfs(&podman.path().join("rootfs"));
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(podman.path().join("rootfs")).arg("-cf");
        let image = podman.path().join("image.tar");
        assert!(tar.arg(&image).arg(".").status().unwrap().success());
        podman.ok(&["import", image.to_str().unwrap(), "box:1"]);
        Some(podman)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn call(&self, args: &[&str]) -> Ended {
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.path().join("containers.conf"));
        podman.arg("--root").arg(self.path().join("root"));
        podman.arg("--runroot").arg(self.path().join("run"));
        podman.arg("--tmpdir").arg(self.path().join("tmp"));
        podman.args(["--storage-driver", "vfs", "--cgroup-manager", self.cgroups]);
        podman.args(["--events-backend", "file", "--runtime", PROGRAM]);
        let (verb, rest) = args.split_first().unwrap();
        podman.arg(verb);
        if matches!(*verb, "run" | "create") {
            podman.arg(format!("--cgroup-parent={}", self.cgroup()));
        }
        Ended::of(podman.args(rest).stdin(Stdio::null()).output().unwrap())
    }

    /// The cgroup above those of its containers.
    fn cgroup(&self) -> String {
        let name = self.path().file_name().unwrap().to_string_lossy();
        let name = name.trim_start_matches('.');
        match self.cgroups {
            "systemd" => format!("podman_test_{name}.slice"),
            _ => format!("/podman-test-{name}"),
        }
    }

    fn ok(&self, args: &[&str]) -> String {
        let ended = self.call(args);
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}");
        ended.out
    }

    fn status(&self, name: &str) -> String {
        self.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name])
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let left = self.call(&["rm", "--all", "--force", "--time", "0"]);
        // vfs mounts its own directory once more.
        let _ =
            Command::new("umount").arg(self.path().join("root/vfs")).stderr(Stdio::null()).status();
        remove_parents(self.cgroup().trim_start_matches('/'));
        assert!(left.code == 0 || std::thread::panicking(), "{left:?}");
    }
}

/// Removes the cgroups that Podman leaves, with any runtime, once its monitors have ended.
fn remove_parents(name: &str) {
    let limit = Instant::now() + Duration::from_secs(5);
    let roots = || common::cgroup_roots().into_iter();
    let parents = || roots().map(|path| path.join(name)).filter(|path| path.exists());
    while parents().count() > 0 && Instant::now() < limit {
        for parent in parents() {
            for below in fs::read_dir(&parent).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(parent);
        }
        std::thread::yield_now();
    }
}

#[test]
fn podman_runs_containers_with_it() {
    let Some(podman) = Podman::new() else { return };
    for network in ["--network=none", "--network=host"] {
        let ended =
            podman.call(&["run", "--rm", network, "box:1", "sh", "-c", "echo hello; exit 7"]);
        assert_eq!((ended.code, ended.out.as_str()), (7, "hello\n"), "{ended:?}");
    }
    // Podman's own codes for what its runtime says.
    let run = ["run", "--rm", "--network=none", "box:1"];
    for (program, code) in [("nope", 127), ("/none", 127), ("/etc/passwd", 126)] {
        let ended = podman.call(&[&run[..], &[program]].concat());
        assert_eq!(ended.code, code, "{ended:?}");
    }
    let limits =
        ["run", "--rm", "--network=none", "--memory=64m", "--pids-limit=20", "--user=1000"];
    let out = podman.ok(&[&limits[..], &["--cap-drop=all", "box:1", "id", "-u"]].concat());
    assert_eq!(out, "1000\n");
    let flags = ["run", "--rm", "--network=none", "--read-only", "--tmpfs=/etc", "box:1"];
    let out = podman.ok(&[&flags[..], &["sh", "-c", "touch /x 2>/dev/null || ls /etc"]].concat());
    assert!(out.contains("passwd"), "{out}");
    // A device that only a rule of Podman's opens.
    let run = ["run", "--rm", "--network=none", "--cap-add=MKNOD"];
    let look = ["box:1", "sh", "-c", "mknod /dev/x c 10 229; (: < /dev/x) 2>&1"];
    for (flags, is_denied) in [(&[][..], true), (&["--privileged"], false)] {
        let ended = podman.call(&[&run[..], flags, &look].concat());
        assert_eq!(ended.out.contains("not permitted"), is_denied, "{flags:?}: {ended:?}");
    }
}

#[test]
fn podman_goes_through_a_life_with_it() {
    let Some(podman) = Podman::new() else { return };
    podman.ok(&["create", "--name", "web", "--network=none", "box:1", "sleep", "1000"]);
    podman.ok(&["init", "web"]);
    assert!(podman.status("web").starts_with("initialized"));
    podman.ok(&["start", "web"]);
    assert!(podman.status("web").starts_with("running"));
    let ended = podman.call(&["exec", "web", "sh", "-c", "hostname >/dev/null; echo in; exit 3"]);
    assert_eq!((ended.code, ended.out.as_str()), (3, "in\n"), "{ended:?}");
    assert_eq!(podman.call(&["exec", "web", "nope"]).code, 127);
    podman.ok(&["exec", "--detach", "web", "sleep", "2000"]);
    assert!(podman.ok(&["top", "web", "args"]).contains("sleep 2000"));
    assert!(podman.ok(&["stats", "--no-stream", "web"]).contains("web"));
    podman.ok(&["pause", "web"]);
    assert!(podman.status("web").starts_with("paused"));
    podman.ok(&["unpause", "web"]);
    podman.ok(&["stop", "--time", "0", "web"]);
    assert_eq!(podman.status("web"), "exited 137\n");
    podman.ok(&["start", "web"]);
    podman.ok(&["rm", "--force", "--time", "0", "web"]);
}

#[test]
fn podman_has_its_containers_in_scopes_of_systemds() {
    if !is_systemds() {
        return;
    }
    let Some(podman) = Podman::with("systemd") else { return };
    let network = "--network=none";
    let script = "cat /proc/self/cgroup; exit 7";
    let ended = podman.call(&["run", "--rm", network, "box:1", "sh", "-c", script]);
    assert_eq!((ended.code, ended.out.as_str()), (7, "0::/\n"), "{ended:?}");
    let flags = ["--name", "web", network, "--memory=64m", "--pids-limit=20", "box:1"];
    let id = podman.ok(&[&["run", "--detach"], &flags[..], &["sleep", "1000"]].concat());
    let scope = format!("libpod-{}.scope", id.trim());
    let slice = podman.cgroup();
    check_properties(&scope, &[("Slice", &slice), ("MemoryMax", "67108864"), ("TasksMax", "20")]);
    assert_eq!(podman.ok(&["exec", "web", "cat", "/proc/self/cgroup"]), "0::/\n");
    assert!(podman.ok(&["stats", "--no-stream", "web"]).contains("web"));
    podman.ok(&["rm", "--force", "--time", "0", "web"]);
    assert_eq!(property(&scope, "LoadState"), "not-found");
}
