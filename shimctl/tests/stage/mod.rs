//! A state of `shimctl` for each test, and the check that nothing of it is left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

/// One `shimctl` state of a test's own, and the check that nothing of it is left.
pub(crate) struct Stage {
    /// Of a test's own.
    pub(crate) root: tempfile::TempDir,
    /// Likewise; every process of it is known by it.
    pub(crate) namespace: String,
    /// The shim under test.
    pub(crate) shim: PathBuf,
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
    pub(crate) fn new(test: &str, shim: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: {test} makes containers and needs root");
            return None;
        }
        let root = tempfile::Builder::new().prefix("shimctl").tempdir_in("/run").unwrap();
        let namespace = format!("{test}-{}", std::process::id());
        Some(Self { root, namespace, shim: binaries().join(shim) })
    }

    /// With the native shim.
    pub(crate) fn native(test: &str) -> Option<Self> {
        Self::new(test, "containerd-shim-native-v2")
    }

    /// A call of `shimctl`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shimctl"));
        command.arg("--root").arg(self.root.path()).args(["--namespace", &self.namespace]);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Ends the test: no process, mount, cgroup or file may be left.
    pub(crate) fn check_nothing_is_left(self) {
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
        for root in cgroup_roots() {
            let cgroup = root.join(&self.namespace);
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
        for root in cgroup_roots() {
            drop(fs::remove_dir(root.join(&self.namespace)));
        }
    }
}

/// The folders below which cgroups can be: the hierarchies of v1, and that of v2.
pub(crate) fn cgroup_roots() -> impl Iterator<Item = PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    hierarchies.map(|one| one.path()).chain([PathBuf::from("/sys/fs/cgroup")])
}

/// What a program has said.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
