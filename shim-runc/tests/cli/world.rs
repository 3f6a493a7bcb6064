//! A root and a bundle of a test's own, and what one does with the command line.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shim-runc");
/// More than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Whether tests can make containers here.
pub(crate) fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: containers need root");
    }
    is_root
}

/// A bundle and a root. Dropped, it looks for what is left.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) spec: Value,
    /// Below each hierarchy's root.
    pub(crate) cgroup: String,
}

/// How a verb ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    /// A world whose container runs a shell script.
    pub(crate) fn script(script: &str) -> Self {
        Self::command(&["/bin/sh", "-c", script])
    }

    /// A container that stays.
    pub(crate) fn sleeper() -> Self {
        Self::command(&["/bin/sleep", "1000"])
    }

    pub(crate) fn command(args: &[&str]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let dir = TempDir::new_in("/run").unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        common::make_rootfs(&dir.path().join("rootfs"));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("cli-test-{}-{number}", std::process::id());
        let mut spec = common::spec(args);
        spec["linux"]["cgroupsPath"] = format!("/{cgroup}/c").into();
        Self { dir, spec, cgroup }
    }

    /// Changes the spec.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) fn with_terminal(self) -> Self {
        self.with(|spec| spec["process"]["terminal"] = true.into())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, in its bundle.
    pub(crate) fn program(&self) -> Command {
        let (path, text) = (self.path("config.json"), self.spec.to_string());
        // Another verb may be reading it.
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::write(path, text).unwrap();
        }
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.dir.path()).arg("--root").arg(self.root());
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, args: &[&str]) -> Ended {
        Ended::of(self.program().args(args).output().unwrap())
    }

    /// A verb that has to succeed; what it prints.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ended = self.call(args);
        assert_eq!(ended.code, 0, "{args:?}: {ended:?}");
        ended.out
    }

    /// A verb that leaves processes which keep its streams.
    pub(crate) fn leave(&self, args: &[&str]) {
        let mut command = self.program();
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{args:?}");
    }

    /// A verb that has to fail with 1; what it says.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let ended = self.call(args);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{args:?}: {ended:?}");
        ended.err
    }

    pub(crate) fn create(&self, id: &str) {
        self.leave(&["create", id]);
    }

    pub(crate) fn start(&self, id: &str) {
        self.ok(&["start", id]);
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn await_status(&self, id: &str, expected: &str) {
        until(|| self.status(id) == expected);
    }

    pub(crate) fn pid(&self, id: &str) -> i32 {
        self.state(id)["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// The container's directory in the hierarchy of a controller of v1, or in the only one.
    pub(crate) fn directory(&self, controller: &str) -> PathBuf {
        let v1 = Path::new("/sys/fs/cgroup").join(controller);
        let root = if v1.exists() { v1 } else { PathBuf::from("/sys/fs/cgroup") };
        root.join(&self.cgroup).join("c")
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let roots = common::cgroup_roots().into_iter();
        roots.map(|root| root.join(&self.cgroup)).filter(|path| path.exists()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut left = Vec::new();
        for cgroup in self.cgroups() {
            let below = fs::read_dir(&cgroup).unwrap().flatten();
            left.extend(below.map(|one| one.path()).filter(|path| path.is_dir()));
        }
        left.extend(
            fs::read_dir(self.root()).into_iter().flatten().flatten().map(|one| one.path()),
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts
                .lines()
                .find(|line| line.contains(self.dir.path().to_str().unwrap()))
                .map(PathBuf::from),
        );
        // What a failed test leaves must not stay on the machine.
        for one in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            self.call(&["delete", "--force", one.file_name().to_str().unwrap()]);
        }
        for cgroup in self.cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
        assert!(left.is_empty() || std::thread::panicking(), "left behind: {left:?}");
    }
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().or(output.status.signal().map(|signal| -signal));
        Self { code: code.unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Waits for a condition.
pub(crate) fn until(condition: impl FnMut() -> bool) {
    until_within(LIMIT, condition);
}

/// Waits for something that takes longer.
pub(crate) fn until_within(limit: Duration, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < limit, "it did not happen");
        std::thread::yield_now();
    }
}

/// A script on the host, for a hook.
pub(crate) fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/busybox sh\n{body}\n")).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// A hook as the spec has it.
pub(crate) fn hook(path: &Path, args: &[&str]) -> Value {
    json!([{ "path": path, "args": args, "timeout": 10 }])
}
