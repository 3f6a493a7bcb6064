//! An agent, and containers in it.

use std::{
    cell::RefCell,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use nix::sys::signal::{Signal as Kill, kill};
use serde_json::{Value, json};
use shim_core::{
    Container, Error, Exec, Init, Process, Streams, Terminal,
    model::{ContainerId, ExecId, Exit, Pid},
};
use shim_protos::guest::HelloResponse;
use shim_sandbox::{
    Build,
    channel::Word,
    host::{
        agent::{Agent, Health},
        container::{GuestContainer, Rootfs, Wanted, create},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    time::timeout,
};

use crate::common;

/// The program whose subcommand is the agent.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_containerd-shim-sandbox-v2");

/// What a test may take.
const LIMIT: Duration = Duration::from_secs(100);

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// An agent that runs, and the folder that is its guest.
pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) hello: HelloResponse,
    child: Child,
    dir: TempDir,
    /// The cgroups of its containers, below each hierarchy.
    cgroups: RefCell<Vec<String>>,
}

/// A container, and the test's ends of its streams.
pub(crate) struct Running {
    pub(crate) container: GuestContainer,
    pub(crate) init: Process,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: Option<pipe::Receiver>,
}

/// Runs a test as root, and looks at what it leaves.
pub(crate) fn run(test: impl AsyncFnOnce(&mut World)) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: containers are made as root");
        return;
    }
    block_on(async {
        let mut world = World::new(Health::default()).await;
        test(&mut world).await;
        world.end().await;
    });
}

pub(crate) fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LIMIT, test).await.expect("a test ends") });
}

impl World {
    pub(crate) async fn new(health: Health) -> Self {
        let dir = TempDir::new_in("/run").unwrap();
        let (ours, theirs) = StdStream::pair().unwrap();
        let child = spawn(dir.path(), "w0rd", theirs.into());
        ours.set_nonblocking(true).unwrap();
        let line = UnixStream::from_std(ours).unwrap();
        let build = Build::of(PROGRAM).unwrap();
        let word = Word::parse("w0rd").unwrap();
        let (agent, hello) = Agent::greet(line, &word, build, health).await.unwrap();
        Self { agent, hello, child, dir, cgroups: RefCell::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The agent's process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::new(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// How many descriptors the agent has.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// A spec whose process is a shell script, with a root filesystem in the share.
    pub(crate) fn script(&self, script: &str) -> (ContainerId, Value) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("agent-{}-{number}", std::process::id());
        common::make_rootfs(&self.path("share").join(&id).join("rootfs"));
        let mut spec = common::spec(&["/bin/sh", "-c", script]);
        spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        self.cgroups.borrow_mut().push(id.clone());
        (ContainerId::parse(&id).unwrap(), spec)
    }

    pub(crate) async fn create_with(
        &self,
        (id, spec): (ContainerId, Value),
        streams: Streams,
    ) -> Result<Running, Error> {
        let wanted = Wanted {
            rootfs: Some(Rootfs::Shared(format!("{id}/rootfs"))),
            id,
            spec: spec.to_string().into_bytes(),
            streams,
            machine: self.pid(),
        };
        let made = create(&self.agent, wanted).await?;
        let Init::Made(init) = made.init else { panic!("it is to have a process") };
        Ok(Running { container: made.container, init, stdin: None, stdout: None })
    }

    /// A container with pipes, that has not started.
    pub(crate) async fn create(&self, spec: (ContainerId, Value)) -> Running {
        let (stdin, ours_in) = pipe();
        let (ours_out, stdout) = pipe();
        let stderr = stdout.try_clone().unwrap();
        let streams = Streams::Pipes { stdin, stdout, stderr };
        let mut running = self.create_with(spec, streams).await.unwrap();
        running.stdin = Some(pipe::Sender::from_owned_fd(ours_in).unwrap());
        running.stdout = Some(pipe::Receiver::from_owned_fd(ours_out).unwrap());
        running
    }

    /// A container that runs a script.
    pub(crate) async fn start(&self, script: &str) -> Running {
        let running = self.create(self.script(script)).await;
        running.container.start().await.unwrap();
        running
    }

    /// The cgroups of its containers that are still there.
    fn left(&self) -> Vec<PathBuf> {
        let names = self.cgroups.borrow();
        let all = common::cgroup_roots().into_iter();
        let all = all.flat_map(|root| names.iter().map(move |name| root.join(name)));
        all.filter(|cgroup| cgroup.exists()).collect()
    }

    /// Nothing is left in the guest, and the agent ends with its line.
    pub(crate) async fn end(mut self) {
        if self.agent.is_dead() {
            // With a machine its containers would be gone. Here the agent has to be, first of all.
            self.kill();
            until(|| self.child.try_wait().unwrap().is_some()).await;
            until(|| self.left().iter().all(|cgroup| remove(cgroup))).await;
        } else {
            until(|| is_empty(&self.path("stdio")) && is_empty(&self.path("bundles"))).await;
        }
        assert!(self.left().is_empty(), "{:?}", self.left());
        self.agent.end("the test is over");
        until(|| self.child.try_wait().unwrap().is_some()).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _is_collected = self.child.wait();
        // A test that has failed leaves its containers: they are ended, and their cgroups with luck removed.
        for cgroup in self.left() {
            let _removed = remove(&cgroup);
        }
    }
}

impl Running {
    /// All that is printed from here on.
    pub(crate) async fn output(&mut self) -> String {
        let mut text = String::new();
        self.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    /// The next line that is printed.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(self.stdout.as_mut().unwrap().read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn exit(&mut self) -> Exit {
        (&mut self.init.exit).await
    }

    /// Ends it and deletes it.
    pub(crate) async fn remove(mut self) {
        let killed = self.container.kill(shim_core::Target::All, shim_core::model::Signal::KILL);
        let _has_ended = killed.await;
        self.exit().await;
        self.container.delete().await.unwrap();
    }
}

/// Adds a process that runs a script, with pipes for all but what it reads.
pub(crate) async fn exec(
    container: &GuestContainer,
    id: &str,
    script: &str,
) -> Result<(Process, pipe::Receiver), Error> {
    let (ours, stdout) = pipe();
    let streams = Streams::Pipes { stdin: null(), stdout, stderr: null() };
    let process = exec_with(container, id, &["/bin/sh", "-c", script], streams).await?;
    Ok((process, pipe::Receiver::from_owned_fd(ours).unwrap()))
}

pub(crate) async fn exec_with(
    container: &GuestContainer,
    id: &str,
    args: &[&str],
    streams: Streams,
) -> Result<Process, Error> {
    let mut process = common::process(args);
    process["terminal"] = json!(matches!(streams, Streams::Terminal));
    let id = ExecId::parse(id).unwrap();
    let process = serde_json::from_value(process).unwrap();
    container.exec(Exec { id, process, streams }).await
}

/// The test's end of a terminal, and how to size it.
pub(crate) fn terminal(process: &mut Process) -> (UnixStream, shim_core::backend::Resize) {
    match process.terminal.take() {
        Some(Terminal::Remote { stream, resize }) => {
            let stream = StdStream::from(stream);
            stream.set_nonblocking(true).unwrap();
            (UnixStream::from_std(stream).unwrap(), resize)
        }
        other => panic!("{other:?} is no terminal of a guest"),
    }
}

/// Starts an agent on a socket.
pub(crate) fn spawn(root: &Path, word: &str, line: OwnedFd) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["agent", "--socket", "-", "--word", word, "--root"]).arg(root);
    command.stdin(Stdio::from(line)).spawn().unwrap()
}

/// Waits for something, with the limit of a test.
pub(crate) async fn until(mut it_is_so: impl FnMut() -> bool) {
    while !it_is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kills what is in a cgroup, and removes it once it is empty.
fn remove(cgroup: &Path) -> bool {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|pid| pid.parse().ok()) {
        let _has_ended = kill(nix::unistd::Pid::from_raw(pid), Kill::SIGKILL);
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

pub(crate) fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), writer.into())
}

pub(crate) fn null() -> OwnedFd {
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    null.as_fd().try_clone_to_owned().unwrap()
}
