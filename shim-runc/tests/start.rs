//! The shim as containerd starts it: what its options and its environment say about itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use shim_protos::{
    Any,
    bootstrap::{BootstrapParams, BootstrapResult, Extension},
    protobuf::{Message, MessageField},
    runc::Options,
};

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-native-v2");

/// A cgroup for a test, which goes when it is empty.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(name: &str) -> Option<Self> {
        let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let place = places.map(Path::new).into_iter().find(|p| p.join("cgroup.procs").exists())?;
        let cgroup = place.join(name);
        fs::create_dir_all(&cgroup).ok().map(|()| Self(cgroup))
    }

    fn pids(&self) -> Vec<i32> {
        let pids = fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        pids.lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

/// What containerd sends, with a cgroup among the options.
fn params(directory: &Path, cgroup: &str) -> Vec<u8> {
    let options = Options { shim_cgroup: cgroup.to_owned(), ..Options::default() };
    let options = Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().unwrap(),
        ..Any::default()
    };
    let params = BootstrapParams {
        instance_id: "c1".to_owned(),
        namespace: "test".to_owned(),
        socket_dir: Some(directory.join("s").display().to_string()),
        extensions: vec![Extension { value: MessageField::some(options), ..Default::default() }],
        ..Default::default()
    };
    params.write_to_bytes().unwrap()
}

/// Starts a shim, and returns what it prints.
fn start(directory: &Path, cgroup: &str) -> Result<Vec<u8>, String> {
    start_for("{}", directory, cgroup)
}

/// The same for a container of this spec.
fn start_for(spec: &str, directory: &Path, cgroup: &str) -> Result<Vec<u8>, String> {
    fs::write(directory.join("config.json"), spec).unwrap();
    let mut child = Command::new(SHIM)
        .args(["-namespace", "test", "-id", "c1", "-address", "/none.sock", "start"])
        .current_dir(directory)
        // A kernel without core scheduling is no reason to fail.
        .env("SCHED_CORE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&params(directory, cgroup)).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn a_shim_joins_the_cgroup_of_its_options_with_all_it_starts() {
    let name = format!("shim-test-{}", std::process::id());
    let cgroup = geteuid().is_root().then(|| Cgroup::make(&name)).flatten();
    let Some(cgroup) = cgroup else {
        println!("skipped: no cgroup can be made");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let answer = start(dir.path(), &format!("/{name}")).unwrap();
    let socket = socket(&answer);
    assert!(socket.exists());
    // The process that serves, and the small one that makes containers, which comes later.
    until(|| cgroup.pids().len() >= 2);
    let pids = cgroup.pids();
    assert_eq!(pids.len(), 2, "{pids:?}");
    let serving = pids.iter().min().copied().unwrap();
    let arguments = fs::read_to_string(format!("/proc/{serving}/cmdline")).unwrap();
    assert!(arguments.starts_with(SHIM), "{arguments}");
    assert!(!arguments.contains("start"), "{arguments}");
    kill(Pid::from_raw(serving), Signal::SIGTERM).unwrap();
    until(|| cgroup.pids().is_empty());
    assert!(!socket.exists());
    fs::remove_dir(&cgroup.0).unwrap();
}

#[test]
fn what_is_made_for_a_container_that_never_comes_goes_with_the_shim() {
    let name = format!("shim-test-ahead-{}", std::process::id());
    let shims = format!("shim-test-own-{}", std::process::id());
    let own = geteuid().is_root().then(|| Cgroup::make(&shims)).flatten();
    let Some(own) = own else {
        println!("skipped: no cgroup can be made");
        return;
    };
    let place = own.0.parent().unwrap().join(&name);
    let dir = tempfile::tempdir().unwrap();
    let spec = format!(
        r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","args":["true"],"user":{{"uid":0,"gid":0}}}},
        "root":{{"path":"rootfs"}},"linux":{{"cgroupsPath":"/{name}",
        "namespaces":[{{"type":"pid"}},{{"type":"mount"}}]}}}}"#
    );
    let answer = start_for(&spec, dir.path(), &format!("/{shims}")).unwrap();
    let socket = socket(&answer);
    // The shim, its stem, and a process that waits to become the container's first.
    until(|| place.exists() && own.pids().len() == 3);
    let record = dir.path().join("native.json");
    assert!(record.exists(), "somebody else could not clean up");
    kill(Pid::from_raw(own.pids().into_iter().min().unwrap()), Signal::SIGTERM).unwrap();
    until(|| own.pids().is_empty());
    assert!(!place.exists() && !record.exists() && !socket.exists());
    fs::remove_dir(&own.0).unwrap();
}

#[test]
fn socket_is_a_file_for_root_alone() {
    let name = format!("shim-test-socket-{}", std::process::id());
    let own = geteuid().is_root().then(|| Cgroup::make(&name)).flatten();
    let Some(own) = own else {
        println!("skipped: no cgroup can be made");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let socket = socket(&start(dir.path(), &format!("/{name}")).unwrap());
    // Not a name that everybody in the network namespace could connect to, containers on the
    // host's network among them.
    assert!(socket.is_absolute());
    let found = fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o600, 0));
    let above = fs::metadata(socket.parent().unwrap()).unwrap();
    assert_eq!((above.mode() & 0o077, above.uid()), (0, 0));
    let serving = own.pids().into_iter().min().unwrap();
    let sockets = fs::read_dir(format!("/proc/{serving}/fd")).unwrap().flatten();
    let sockets = sockets.filter_map(|one| fs::read_link(one.path()).ok());
    let sockets: Vec<_> = sockets.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let mut paths = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        if sockets.contains(&format!("socket:[{}]", fields[6])) {
            paths.extend(fields.get(7).copied());
        }
    }
    assert_eq!(paths, [socket.to_str().unwrap()], "{table}");
    kill(Pid::from_raw(serving), Signal::SIGTERM).unwrap();
    until(|| own.pids().is_empty());
    fs::remove_dir(&own.0).unwrap();
}

/// Where the shim listens that has answered.
fn socket(answer: &[u8]) -> PathBuf {
    let answer = BootstrapResult::parse_from_bytes(answer).unwrap();
    PathBuf::from(answer.address.strip_prefix("unix://").unwrap())
}

/// Waits for a condition, within a limit.
fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "it has not come about");
        std::thread::yield_now();
    }
}

#[test]
fn a_cgroup_that_is_nowhere_fails_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let err = start(dir.path(), "/no/such/cgroup").unwrap_err();
    assert!(err.contains("no hierarchy has a cgroup /no/such/cgroup"), "{err}");
    assert_eq!(fs::read_dir(dir.path().join("s")).unwrap().count(), 0, "no socket is left");
}
