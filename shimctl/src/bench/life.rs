//! One container with its shim, its phases timed as the client sees them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use serde_json::Value;
use shim_client::{
    Bundle, Container, ExecChange, Fifos, Shape, Shim, SpecBuilder, Waiting, exec_process, execute,
};
use shim_protos::Any;
use shim_protos::protobuf::MessageField;
use shim_protos::task::{
    CloseIORequest, ConnectRequest, CreateTaskRequest, ExecProcessRequest, KillRequest,
    StartRequest,
};

use super::{Plan, Subject};

/// By which annotation shims know the containers that share one.
const GROUP: &str = "io.containerd.runc.v2.group";

/// All that is there before the shim is.
#[derive(Debug)]
pub(super) struct Prepared {
    plan: Arc<Plan>,
    subject: Arc<Subject>,
    bundle: Bundle,
    scratch: PathBuf,
    spec: Value,
    creation: CreateTaskRequest,
    /// Open, as the shim may wait for a reader of its log.
    log: File,
}

/// A container and its shim, connected.
#[derive(Debug)]
pub(super) struct Life {
    plan: Arc<Plan>,
    container: Container,
    bundle: Bundle,
    scratch: PathBuf,
    spec: Value,
    creation: CreateTaskRequest,
    waiting: Option<Waiting>,
    /// The client's ends of the first process's streams.
    _ends: Vec<File>,
}

/// What the beginning of a life took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// Executing `start` until it has answered and ended.
    pub(super) shim: Duration,
    /// Opening the connection.
    pub(super) connect: Duration,
}

/// A process that was added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    /// Exec and Start, to the latter's reply: the process runs.
    pub(super) took: Duration,
    /// Its pid.
    pub(super) pid: u32,
}

/// Which processes make a shim with its container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pids {
    /// The shim.
    pub(super) shim: u32,
    /// The container's first process.
    pub(super) task: u32,
}

impl Prepared {
    /// Makes the bundle; the name is a part of the container's id.
    pub(super) fn new(
        plan: &Arc<Plan>,
        subject: &Arc<Subject>,
        name: &str,
        group: Option<&str>,
    ) -> Result<Self> {
        let id = format!("bench-{}-{name}", std::process::id());
        let scratch = plan.folder.join("scratch").join(&id);
        let mut spec = SpecBuilder::new(&plan.daemon.namespace, &id).args(&["sleep", "100000"]);
        if let Some(group) = group {
            spec = spec.annotation(GROUP, group);
        }
        let spec = spec.build();
        let mounts = plan.rootfs.mounts(&scratch)?;
        let bundle =
            Bundle::create(&plan.folder.join("bundles"), &id, &scratch.join("work"), Some(&spec))?;
        let creation = CreateTaskRequest {
            id,
            bundle: bundle.path().display().to_string(),
            rootfs: mounts,
            options: MessageField(subject.options.clone().map(Box::new)),
            ..Default::default()
        };
        let mut log = OpenOptions::new();
        log.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let log = log.open(bundle.log()).context("open the log")?;
        let (plan, subject) = (Arc::clone(plan), Arc::clone(subject));
        Ok(Self { plan, subject, bundle, scratch, spec, creation, log })
    }

    /// Starts the shim and connects to it.
    ///
    /// # Errors
    /// Nothing is left then.
    pub(super) async fn begin(self) -> Result<(Life, Begun)> {
        let (daemon, binary) = (&self.plan.daemon, &self.subject.binary);
        let options = self.subject.options.as_ref();
        let stop = &self.plan.stop;
        let limit = daemon.limits.start * 2;
        let shim = async {
            let begun = Instant::now();
            let start = async {
                let answer = execute::start(daemon, binary, &self.bundle, options).await;
                answer.context("shim start")
            };
            let answer = stop.unless("shim start", limit, start).await?;
            let started = begun.elapsed();
            let begun = Instant::now();
            let shim = Shim::connect(daemon, binary, &self.bundle, answer).await;
            let shim = shim.context("connect")?;
            anyhow::Ok((shim, Begun { shim: started, connect: begun.elapsed() }))
        };
        let (shim, begun) = match shim.await {
            Ok(started) => started,
            Err(error) => {
                if let Err(left) = execute::delete(daemon, binary, &self.bundle).await {
                    log::debug!("clean up after the failed start: {left:#}");
                }
                discard(&self.bundle, &self.scratch)?;
                return Err(error);
            }
        };
        // The connected shim has a reader of its own for it.
        drop(self.log);
        let Self { plan, bundle, scratch, spec, creation, .. } = self;
        let container = Container::of_running(shim);
        let (waiting, _ends) = (None, Vec::new());
        Ok((Life { plan, container, bundle, scratch, spec, creation, waiting, _ends }, begun))
    }

    /// Takes the bundle away again.
    pub(super) fn discard(self) -> Result<()> {
        discard(&self.bundle, &self.scratch)
    }
}

impl Life {
    /// The address of its shim, the same for those that share one.
    pub(super) fn address(&self) -> &str {
        &self.container.shim().answer.address
    }

    /// A folder for what belongs to this container.
    pub(super) fn scratch(&self) -> &PathBuf {
        &self.scratch
    }

    /// The plan that it follows.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Gives the first process streams by fifos, with a client at the other end of each. Before Create.
    pub(super) fn with_streams(&mut self) -> Result<()> {
        let fifos = Fifos::create(&self.scratch.join("init"), Shape::Pipes)?;
        let Self { creation, _ends: ends, .. } = self;
        (creation.stdin, creation.stdout) = (fifos.stdin(), fifos.stdout());
        creation.stderr = fifos.stderr();
        for path in [&creation.stdin, &creation.stdout, &creation.stderr] {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            ends.push(opened.with_context(|| format!("open {path}"))?);
        }
        Ok(())
    }

    /// Create, to its reply.
    pub(super) async fn create(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.call("create", self.container.task().create(&self.creation)).await?;
        Ok(begun.elapsed())
    }

    /// Start of the first process, to its reply; its end is waited for from here on.
    pub(super) async fn start(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let waiting = self.container.wait("");
        let started = self.start_process("").await;
        self.waiting = Some(waiting);
        started?;
        Ok(begun.elapsed())
    }

    async fn start_process(&self, exec_id: &str) -> Result<u32> {
        let (id, exec_id) = (self.creation.id.clone(), exec_id.to_owned());
        let request = StartRequest { id, exec_id, ..Default::default() };
        let started = self.call("start", self.container.task().start(&request)).await?;
        Ok(started.pid)
    }

    /// Adds a process; without fifos it has no streams.
    pub(super) async fn exec(
        &self,
        args: &[&str],
        streams: Option<(&Fifos, Terminal)>,
    ) -> Result<Added> {
        let mut change = ExecChange {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..Default::default()
        };
        let mut request = ExecProcessRequest {
            id: self.creation.id.clone(),
            exec_id: EXEC.to_owned(),
            ..Default::default()
        };
        if let Some((fifos, terminal)) = streams {
            change.terminal = terminal == Terminal::Yes;
            request.terminal = change.terminal;
            request.stdin = fifos.stdin();
            request.stdout = fifos.stdout();
            request.stderr = fifos.stderr();
        }
        request.spec = MessageField::some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: serde_json::to_vec(&exec_process(&self.spec, &change))?,
            ..Default::default()
        });
        let begun = Instant::now();
        self.call("exec", self.container.task().exec(&request)).await?;
        let pid = self.start_process(EXEC).await.context("exec")?;
        Ok(Added { took: begun.elapsed(), pid })
    }

    /// Lets the exec see the end of its input, whose writing end is given up.
    pub(super) async fn end_input(&self, fifo: File) -> Result<()> {
        let request = CloseIORequest {
            id: self.creation.id.clone(),
            exec_id: EXEC.to_owned(),
            stdin: true,
            ..Default::default()
        };
        self.call("close_io", self.container.task().close_io(&request)).await?;
        drop(fifo);
        Ok(())
    }

    /// Waits for the end of the exec and deletes it.
    pub(super) async fn end_exec(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut waiting = self.container.wait(EXEC);
        let stop = &self.plan.stop;
        let limit = self.plan.daemon.limits.create;
        let ended = stop.or("exec end", limit, &mut waiting).await?.context("wait")??;
        self.call("exec end", self.container.delete_exec(EXEC)).await?;
        let took = begun.elapsed();
        ensure!(ended.exit_status == 0, "exec end: it ended with {}", ended.exit_status);
        Ok(took)
    }

    /// SIGKILL until Wait answers.
    pub(super) async fn kill(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let request = KillRequest { id: self.creation.id.clone(), signal: 9, ..Default::default() };
        self.call("kill", self.container.task().kill(&request)).await?;
        let mut waiting = self.waiting.take().context("kill: it was not started")?;
        let limit = self.plan.daemon.limits.create;
        let ended = self.plan.stop.or("kill", limit, &mut waiting).await?.context("wait")??;
        let took = begun.elapsed();
        ensure!(ended.exit_status == 137, "a killed process ended with {}", ended.exit_status);
        Ok(took)
    }

    /// Delete, to its reply.
    pub(super) async fn delete(&self) -> Result<Duration> {
        let begun = Instant::now();
        self.call("delete", self.container.delete_exec("")).await?;
        Ok(begun.elapsed())
    }

    /// Shutdown, and executing `delete`; then the bundle goes, which is not timed.
    pub(super) async fn clean_up(self) -> Result<Duration> {
        let begun = Instant::now();
        let cleaned = self.container.remove_shim().await;
        let took = begun.elapsed();
        discard(&self.bundle, &self.scratch)?;
        cleaned.context("clean up")?;
        Ok(took)
    }

    /// Takes everything away, whatever it is doing; for after a failure, whose error counts.
    pub(super) async fn end_by_force(self) {
        let id = self.container.id().to_owned();
        let ended = self.container.remove_by_force().await;
        if let Err(error) = ended.and_then(|()| discard(&self.bundle, &self.scratch)) {
            log::warn!("clean up after {id}: {error:#}");
        }
    }

    /// The shim and the container's first process.
    pub(super) async fn pids(&self) -> Result<Pids> {
        let request = ConnectRequest { id: self.creation.id.clone(), ..Default::default() };
        let pids = self.call("connect", self.container.task().connect(&request)).await?;
        Ok(Pids { shim: pids.shim_pid, task: pids.task_pid })
    }

    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, shim_client::CallError>>,
    ) -> Result<T> {
        self.plan.stop.unless(what, self.plan.daemon.limits.create, call).await
    }
}

/// The id of the one exec that a container has at a time.
const EXEC: &str = "e";

/// Whether an exec gets a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terminal {
    /// One terminal for all streams.
    Yes,
    /// A pipe for each stream.
    No,
}

fn discard(bundle: &Bundle, scratch: &PathBuf) -> Result<()> {
    bundle.remove()?;
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", scratch.display()))
        }
        _ => Ok(()),
    }
}
