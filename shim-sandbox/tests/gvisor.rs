//! Pods in gVisor, by the seam that the framework drives: with the real runsc, as root.
//!
//! `SHIM_ENGINES` names the folder with runsc in it, as the integration tests fetch it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use std::{
    collections::HashSet,
    env,
    fs::{self, File},
    io::{Read, Write},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::pipe,
};
use serde_json::{Value, json};
use shim_core::{
    Backend, Container, Create, CreateSandbox, Exec, Host, Init, Process, Sandbox, SandboxBackend,
    SandboxProcess, Streams, Target,
    linux::{Reaper, open_pid, signal_pidfd},
    model::{
        Bundle, ContainerId, ExecId, ExitStatus, Namespace, Pid, RuntimeOptions, Signal, Stats,
    },
};
use shim_protos::{
    cri::{DNSConfig, PodSandboxConfig, PodSandboxMetadata},
    protobuf::{Message, MessageField},
    runtimeoptions,
};
use shim_sandbox::gvisor::Gvisor;
use tempfile::TempDir;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// Nothing here takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

const KILLED: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// runsc before 2025 takes every network namespace of a newer kernel for the host's, by a file that
/// is in all of them now.
const WRAPPED: &str = "#!/bin/sh\nexec unshare -m sh -c \
    'mount -t tmpfs none /proc/sys/net && exec \"$@\"' sh RUNSC \"$@\"\n";

/// A backend in this process, which stands for a shim.
struct Lab {
    dir: TempDir,
    namespace: Namespace,
    backend: Gvisor,
    host: Host,
    options: RuntimeOptions,
}

/// A container and the far ends of its streams.
struct Made {
    container: Box<dyn Container>,
    process: Process,
    output: File,
}

/// Runs a test on a runtime, or says why not.
fn with_lab(name: &str, test: impl AsyncFnOnce(&Lab)) {
    let Some(engines) = env::var_os("SHIM_ENGINES") else {
        println!("skipped: SHIM_ENGINES is not set");
        return;
    };
    let runsc = Path::new(&engines).join("bookworm-backports/runsc/usr/bin/runsc");
    assert!(runsc.exists(), "no {}", runsc.display());
    set_child_subreaper(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lab = Lab::new(name, &runsc);
        tokio::spawn(collect_gofers(lab.namespace.clone()));
        timeout(LIMIT, test(&lab)).await.expect("it takes too long");
        lab.check_for_leaks();
    });
}

impl Lab {
    fn new(name: &str, runsc: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("runsc");
        fs::write(&script, WRAPPED.replace("RUNSC", runsc.to_str().unwrap())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let body = format!("[runsc]\npath = {script:?}\nflags = {{ platform = \"systrap\" }}\n");
        let message = runtimeoptions::Options {
            type_url: String::new(),
            config_body: body.into_bytes(),
            ..Default::default()
        };
        let options = RuntimeOptions {
            type_url: "runtimeoptions.v1.Options".to_owned(),
            value: message.write_to_bytes().unwrap(),
        };
        let namespace = Namespace::parse(&format!("gvisor-{name}-{}", std::process::id())).unwrap();
        let host = Host { reaper: Reaper::default(), namespace: namespace.clone() };
        let mut backend = Gvisor::new();
        backend.open(host.clone()).unwrap();
        Self { dir, namespace, backend, host, options }
    }

    fn bundle(&self, name: &str) -> Bundle {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        Bundle::new(path).unwrap()
    }

    async fn sandbox(&self, netns: Option<PathBuf>) -> Arc<dyn Sandbox> {
        let metadata = PodSandboxMetadata { name: "web".to_owned(), ..Default::default() };
        let dns = DNSConfig { servers: vec!["10.0.0.1".to_owned()], ..Default::default() };
        let config = PodSandboxConfig {
            metadata: MessageField::some(metadata),
            dns_config: MessageField::some(dns),
            ..Default::default()
        };
        let value = config.write_to_bytes().unwrap();
        let config = RuntimeOptions { type_url: "runtime.v1.PodSandboxConfig".to_owned(), value };
        let request = CreateSandbox {
            id: ContainerId::parse("pod").unwrap(),
            bundle: self.bundle("pod"),
            rootfs: Vec::new(),
            config: Some(config),
            options: vec![self.options.clone()],
            netns,
            annotations: Default::default(),
            host: self.host.clone(),
        };
        self.backend.create_sandbox(request).await.unwrap()
    }

    async fn pod(&self) -> (Arc<dyn Sandbox>, SandboxProcess) {
        let sandbox = self.sandbox(None).await;
        let process = sandbox.start().await.unwrap();
        (sandbox, process)
    }

    /// Makes a container, with a terminal or not.
    async fn make(&self, id: &str, script: &str, more: Value) -> Made {
        let bundle = self.bundle(id);
        let bin = bundle.rootfs().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("sh")).unwrap();
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": { "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
                         "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev/shm", "type": "tmpfs", "source": "shm" },
            ],
            "linux": {
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" },
                               { "type": "uts" }, { "type": "network" }],
                "cgroupsPath": format!("/{}/{id}", self.namespace),
            },
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
        let (output, streams) = streams();
        let created = self.backend.create(Create {
            id: ContainerId::parse(id).unwrap(),
            bundle,
            rootfs: Vec::new(),
            streams,
            options: Some(self.options.clone()),
            checkpoint: None,
            host: self.host.clone(),
        });
        let created = created.await.unwrap();
        let Init::Made(process) = created.init else { panic!("there is no process") };
        Made { container: created.container, process, output }
    }

    async fn start(&self, id: &str, script: &str) -> Made {
        let made = self.make(id, script, json!({})).await;
        made.container.start().await.unwrap();
        made
    }

    fn check_for_leaks(&self) {
        let folder = Path::new("/run/shim-sandbox").join(&self.namespace);
        assert!(!folder.exists(), "{} is left", folder.display());
        let _ = fs::remove_dir(Path::new("/run/shim-gvisor").join(&self.namespace));
        let left = processes("runsc-", &self.namespace);
        assert!(left.is_empty(), "{left:?} run");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let left = hierarchy.path().join(&self.namespace);
            let below = fs::read_dir(&left).into_iter().flatten().flatten();
            let below: Vec<_> = below.filter(|entry| entry.path().is_dir()).collect();
            assert!(below.is_empty(), "{below:?}");
            // What containers had in common is nobody's to remove.
            let _ = fs::remove_dir(left);
        }
    }
}

/// Collects the servers of files, as a shim collects its orphans: runsc waits for that.
async fn collect_gofers(namespace: Namespace) {
    let mut ended = signal(SignalKind::child()).unwrap();
    let mut known = HashSet::new();
    loop {
        known.extend(processes("runsc-gofer", &namespace));
        known.retain(|pid| {
            let state = waitpid(nix::unistd::Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
            matches!(state, Ok(WaitStatus::StillAlive))
        });
        ended.recv().await;
    }
}

/// The processes of a namespace's sandboxes, by the beginning of what they are called.
fn processes(name: &str, namespace: &Namespace) -> Vec<i32> {
    let ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.starts_with(name) && line.contains(namespace.as_str())
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

impl Made {
    async fn end(self) -> (ExitStatus, String) {
        let exit = self.process.exit.await;
        self.container.delete().await.unwrap();
        (exit.status, read(self.output))
    }

    async fn exec(&self, id: &str, script: &str, streams: Streams) -> Process {
        let id = ExecId::parse(id).unwrap();
        let is_terminal = matches!(streams, Streams::Terminal);
        let process = json!({
            "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 }, "terminal": is_terminal,
        });
        let process = serde_json::from_value(process).unwrap();
        self.container.exec(Exec { id, process, streams }).await.unwrap()
    }
}

fn streams() -> (File, Streams) {
    let (read, write) = pipe().unwrap();
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let stderr = write.try_clone().unwrap();
    (File::from(read), Streams::Pipes { stdin: null(), stdout: write, stderr })
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    // A terminal ends with an error.
    let _ = file.read_to_string(&mut text);
    text
}

fn kill(pid: Pid) {
    signal_pidfd(open_pid(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn containers_of_a_pod_share_what_is_the_pods() {
    with_lab("share", async |lab| {
        let (sandbox, process) = lab.pod().await;
        let first = lab.start("c1", "echo there > /dev/shm/x; nc -l -p 8080 -e echo hello").await;
        let script = "cat /etc/hostname /etc/resolv.conf; until [ -s /dev/shm/x ]; do :; done; \
                      cat /dev/shm/x; until nc 127.0.0.1 8080 < /dev/null; do :; done 2> /dev/null";
        let second = lab.start("c2", script).await;
        assert_eq!(second.process.pid, process.pid);
        let (status, output) = second.end().await;
        assert_eq!(status, ExitStatus::Code(0));
        assert_eq!(output, "web\nnameserver 10.0.0.1\nthere\nhello\n");
        assert_eq!(first.end().await.0, ExitStatus::Code(0));
        sandbox.ping().await.unwrap();
        sandbox.stats().await.unwrap();
        sandbox.stop(Duration::ZERO).await.unwrap();
        assert_eq!(process.exit.await.status.wire(), 137);
        sandbox.stop(Duration::ZERO).await.unwrap();
        assert!(sandbox.ping().await.is_err());
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn a_container_is_used_while_others_come_and_go() {
    with_lab("use", async |lab| {
        let (sandbox, _process) = lab.pod().await;
        let long = lab.start("long", "exec sleep 1000").await;
        for code in [0, 7] {
            let short = lab.start("short", &format!("exit {code}")).await;
            assert_eq!(short.end().await.0, ExitStatus::Code(code));
        }
        let (output, streams) = streams();
        let exec = long.exec("e1", "echo in there; exit 5", streams).await;
        assert_eq!(exec.exit.await.status, ExitStatus::Code(5));
        assert_eq!(read(output), "in there\n");
        let exec = long
            .exec("e2", "[ -t 0 ] && echo on one; read x; echo got $x; exit 6", Streams::Terminal)
            .await;
        let mut master = File::from(exec.terminal.unwrap().into_master().unwrap());
        master.write_all(b"typed\n").unwrap();
        assert_eq!(exec.exit.await.status, ExitStatus::Code(6));
        let told = read(master);
        assert!(told.contains("on one") && told.contains("got typed"), "{told:?}");
        let Stats::V1(stats) = long.container.stats().await.unwrap() else { panic!() };
        assert_eq!(stats.pids.unwrap().current, 1);
        assert!(long.container.pause().await.is_err());
        long.container.kill(Target::Init, Signal::KILL).await.unwrap();
        assert_eq!(long.end().await.0.wire(), 137);
        let created = lab.make("never", "true", json!({})).await;
        created.container.kill(Target::Init, Signal::KILL).await.unwrap();
        assert_eq!(created.end().await, (KILLED, String::new()));
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn the_end_of_the_sandbox_is_that_of_all_in_it() {
    with_lab("end", async |lab| {
        let (sandbox, process) = lab.pod().await;
        let first = lab.start("c1", "sleep 1000").await;
        let second = lab.start("c2", "sleep 1000").await;
        let created = lab.make("c3", "true", json!({})).await;
        kill(process.pid);
        assert_eq!(process.exit.await.status, KILLED);
        for made in [first, second, created] {
            assert_eq!(made.end().await.0, KILLED);
        }
        sandbox.stop(Duration::ZERO).await.unwrap();
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn a_sandbox_that_is_never_started_or_forgotten_leaves_nothing() {
    with_lab("forgotten", async |lab| {
        let sandbox = lab.sandbox(None).await;
        sandbox.stop(Duration::ZERO).await.unwrap();
        sandbox.delete().await.unwrap();
        let other = Gvisor::new();
        let (namespace, bundle) = (lab.namespace.clone(), lab.bundle("pod"));
        let lab = lab.again();
        let (_sandbox, process) = lab.pod().await;
        let _container = lab.start("c1", "sleep 1000").await;
        // As `delete` does, in a process that serves nobody.
        let id = ContainerId::parse("pod").unwrap();
        let cleaned = tokio::task::spawn_blocking(move || other.clean_up(&namespace, &id, &bundle));
        cleaned.await.unwrap().unwrap();
        assert_eq!(process.exit.await.status, KILLED);
    });
}

#[test]
fn a_pod_has_the_network_that_was_made_for_it() {
    with_lab("net", async |lab| {
        let cable = Cable::new();
        let sandbox = lab.sandbox(Some(cable.netns())).await;
        let process = sandbox.start().await.unwrap();
        let made = lab.start("c1", "cat /etc/hosts; ip addr; nc -l -p 80 -e echo hello").await;
        let peer = cable.peer.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut ask = Command::new("ip");
            ask.args(["netns", "exec", &peer, "timeout", "30", "sh", "-c"]);
            ask.arg("until busybox nc 10.9.0.2 80; do :; done").stdin(Stdio::null());
            ask.output().unwrap()
        });
        assert_eq!(String::from_utf8_lossy(&asked.await.unwrap().stdout), "hello\n");
        let (status, output) = made.end().await;
        assert_eq!(status, ExitStatus::Code(0));
        assert!(output.contains("10.9.0.2\tweb\n"), "{output}");
        assert!(output.contains("inet 10.9.0.2/24"), "{output}");
        sandbox.stop(Duration::ZERO).await.unwrap();
        process.exit.await;
        sandbox.delete().await.unwrap();
    });
}

#[test]
fn containers_without_the_sandbox_api_run_as_well() {
    with_lab("plain", async |lab| {
        let plain = lab.start("plain", "echo alone; exit 3").await;
        assert_eq!(plain.end().await, (ExitStatus::Code(3), "alone\n".to_owned()));
        let annotated = |kind: &str| {
            let kind = ("io.kubernetes.cri.container-type".to_owned(), json!(kind));
            let pod = ("io.kubernetes.cri.sandbox-id".to_owned(), json!("pause"));
            json!({ "annotations": Value::Object([kind, pod].into_iter().collect()) })
        };
        let pause = lab.make("pause", "exec sleep 1000", annotated("sandbox")).await;
        pause.container.start().await.unwrap();
        let member = lab.make("in-it", "echo inside; exit 4", annotated("container")).await;
        member.container.start().await.unwrap();
        assert_eq!(member.end().await, (ExitStatus::Code(4), "inside\n".to_owned()));
        pause.container.kill(Target::Init, Signal::KILL).await.unwrap();
        assert_eq!(pause.end().await.0.wire(), 137);
    });
}

impl Lab {
    /// The same shim, as it would be after another sandbox.
    fn again(&self) -> Self {
        let mut backend = Gvisor::new();
        backend.open(self.host.clone()).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            namespace: self.namespace.clone(),
            backend,
            host: self.host.clone(),
            options: self.options.clone(),
        }
    }
}

/// A pod's namespace, a peer's, and a cable between them; gone when dropped.
struct Cable {
    pod: String,
    peer: String,
}

impl Cable {
    fn new() -> Self {
        let cable = Self { pod: "gvisor-pod".to_owned(), peer: "gvisor-peer".to_owned() };
        let (pod, peer) = (&cable.pod, &cable.peer);
        for line in [
            format!("netns add {pod}"),
            format!("netns add {peer}"),
            format!("-n {pod} link add eth0 type veth peer name far netns {peer}"),
            format!("-n {pod} link set lo up"),
            format!("-n {pod} link set eth0 up"),
            format!("-n {peer} link set far up"),
            format!("-n {peer} addr add 10.9.0.1/24 dev far"),
            format!("-n {pod} addr add 10.9.0.2/24 dev eth0"),
            format!("-n {pod} route add default via 10.9.0.1 dev eth0"),
        ] {
            let made = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(made.success(), "ip {line}");
        }
        cable
    }

    fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.pod)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.pod, &self.peer] {
            let _gone = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
