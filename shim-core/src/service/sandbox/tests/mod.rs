//! The sandbox service as a client sees it, over a backend whose sandbox does what a test says.

mod life;
mod request;
mod trouble;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use shim_protos::{
    sandbox::SandboxClient,
    task::{ConnectRequest, PidsRequest, ShutdownRequest, TaskClient},
};
use tokio::{
    sync::{Notify, watch},
    time,
};
use ttrpc::{
    Code,
    r#async::Client,
    asynchronous::transport::Socket,
    context::{Context, with_duration},
};

use super::*;
use crate::{
    backend::{
        Backend, Create, CreateSandbox, Created, Host, Sandbox as BackendSandbox, SandboxProcess,
    },
    event::{Herald, Publisher},
    lifecycle::{
        CreateTask, Shim,
        tests::{Fake, FakeContainer, Script},
    },
    linux::{Reaper, stdio::Exchange},
    model::{About, Exit, ExitStatus, Namespace, PidsStats, Signal, Stats, StatsV2, StdioUris},
    service::{Server, Streaming, services},
};

/// What a test makes the sandbox do, and what it was asked.
#[derive(Debug, Default)]
struct Machine {
    /// What it was asked, in order.
    asked: Mutex<Vec<&'static str>>,
    refuses_create: AtomicBool,
    refuses_start: AtomicBool,
    refuses_stop: AtomicBool,
    refuses_delete: AtomicBool,
    /// A start waits for a stop, or for a permit.
    boots_slowly: AtomicBool,
    /// And does not hear a stop.
    is_deaf: AtomicBool,
    booted: Notify,
    stopped: Notify,
    config: Mutex<Option<RuntimeOptions>>,
    exit: watch::Sender<Option<Exit>>,
}

impl Machine {
    fn note(&self, asked: &'static str) {
        self.asked.lock().unwrap().push(asked);
    }

    fn asked(&self) -> String {
        self.asked.lock().unwrap().join(" ")
    }

    fn end(&self, status: ExitStatus) {
        self.exit.send_if_modified(|exit| {
            let is_first = exit.is_none();
            exit.get_or_insert(Exit::now(status));
            is_first
        });
    }
}

fn set(flag: &AtomicBool) {
    flag.store(true, Ordering::Relaxed);
}

fn is(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

/// A fake whose containers live in a machine.
struct Machinist(Fake, Arc<Machine>);
struct FakeSandbox(Arc<Machine>);

#[async_trait]
impl Backend for Machinist {
    type Container = FakeContainer;

    fn about(&self) -> About {
        self.0.about()
    }

    async fn create(&self, request: Create) -> Result<Created<FakeContainer>> {
        self.0.create(request).await
    }

    fn clean_up(&self, _: &Namespace, _: &ContainerId, _: &Bundle) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl SandboxBackend for Machinist {
    async fn create_sandbox(&self, request: CreateSandbox) -> Result<Arc<dyn BackendSandbox>> {
        self.1.note("create");
        if is(&self.1.refuses_create) {
            return Err(Error::other("no machine"));
        }
        *self.1.config.lock().unwrap() = request.config;
        Ok(Arc::new(FakeSandbox(Arc::clone(&self.1))))
    }
}

#[async_trait]
impl BackendSandbox for FakeSandbox {
    async fn start(&self) -> Result<SandboxProcess> {
        let machine = &self.0;
        machine.note("start");
        if is(&machine.refuses_start) {
            return Err(Error::other("kernel panic"));
        }
        if is(&machine.boots_slowly) {
            tokio::select! {
                () = machine.booted.notified() => {}
                () = machine.stopped.notified(), if !is(&machine.is_deaf) => {
                    return Err(Error::other("stopped"));
                }
            }
        }
        let mut exit = machine.exit.subscribe();
        let exit = async move {
            let ended = exit.wait_for(Option::is_some).await.map(|exit| *exit);
            ended.ok().flatten().unwrap_or(Exit::now(ExitStatus::Unknown))
        };
        Ok(SandboxProcess {
            pid: Pid::new(std::process::id().try_into().unwrap()).unwrap(),
            exit: Box::pin(exit),
            created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            spec: None,
        })
    }

    async fn stop(&self, _: Duration) -> Result<()> {
        self.0.note("stop");
        if is(&self.0.refuses_stop) {
            return Err(Error::other("it is stuck"));
        }
        self.0.stopped.notify_one();
        // What boots has nothing yet that could be ended.
        if !is(&self.0.boots_slowly)
            || !is(&self.0.is_deaf)
            || self.0.asked().ends_with("stop stop")
        {
            self.0.end(ExitStatus::Signal(Signal::KILL));
        }
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        self.0.note("delete");
        if is(&self.0.refuses_delete) {
            return Err(Error::other("a file is left"));
        }
        Ok(())
    }

    async fn stats(&self) -> Result<Stats> {
        let pids = PidsStats { current: 3, limit: 9 };
        Ok(Stats::V2(Box::new(StatsV2 { pids, ..Default::default() })))
    }

    fn info(&self) -> HashMap<String, String> {
        HashMap::from([("kernel".to_owned(), "6".to_owned())])
    }
}

/// A shim with the sandbox service, and a client of it.
struct Sandboxed {
    shim: Arc<Shim<Machinist>>,
    server: Server,
    machine: Arc<Machine>,
    sandbox: SandboxClient,
    task: TaskClient,
    dir: tempfile::TempDir,
}

impl Sandboxed {
    fn new() -> Self {
        let namespace = Namespace::parse("ns").unwrap();
        let host = Host { reaper: Reaper::default(), namespace: namespace.clone() };
        let herald = Herald { publisher: Publisher::new(), namespace };
        let machine = Arc::new(Machine::default());
        let backend = Machinist(Fake(Script::default()), Arc::clone(&machine));
        let shim = Arc::new(Shim::new(backend, host, herald, Exchange::default()));
        // As `start` has told it.
        shim.announce(pod()).unwrap();
        let mut services = services(&shim);
        services.extend(sandbox_service(Pods::new(Arc::clone(&shim), Vec::new())));
        let server = Server::new(services, Streaming(Exchange::default()));
        let (sandbox, task) = connect(&server);
        Self { shim, server, machine, sandbox, task, dir: tempfile::tempdir().unwrap() }
    }

    async fn created() -> Self {
        let stage = Self::new();
        stage.create().await.unwrap();
        stage
    }

    async fn ready() -> Self {
        let stage = Self::created().await;
        stage.start().await.unwrap();
        stage
    }

    /// All connections end, and one comes.
    fn reconnect(&mut self) {
        (self.sandbox, self.task) = connect(&self.server);
    }

    async fn create(&self) -> ttrpc::Result<()> {
        let request = CreateSandboxRequest {
            sandbox_id: POD.into(),
            bundle_path: self.dir.path().display().to_string(),
            ..Default::default()
        };
        self.sandbox.create_sandbox(limit(), &request).await.map(drop)
    }

    async fn start(&self) -> ttrpc::Result<StartSandboxResponse> {
        let request = StartSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
        self.sandbox.start_sandbox(limit(), &request).await
    }

    async fn status(&self) -> SandboxStatusResponse {
        let request =
            SandboxStatusRequest { sandbox_id: POD.into(), verbose: true, ..Default::default() };
        self.sandbox.sandbox_status(limit(), &request).await.unwrap()
    }

    async fn ping(&self) -> ttrpc::Result<()> {
        let request = PingRequest { sandbox_id: POD.into(), ..Default::default() };
        self.sandbox.ping_sandbox(limit(), &request).await.map(drop)
    }

    async fn stop(&self) -> ttrpc::Result<()> {
        let request = StopSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
        self.sandbox.stop_sandbox(limit(), &request).await.map(drop)
    }

    async fn wait(&self) -> ttrpc::Result<WaitSandboxResponse> {
        let request = WaitSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
        self.sandbox.wait_sandbox(limit(), &request).await
    }

    async fn shut_down(&self) -> ttrpc::Result<()> {
        let request = ShutdownSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
        self.sandbox.shutdown_sandbox(limit(), &request).await.map(drop)
    }

    /// Whether the shim ends.
    async fn ends(&self) -> bool {
        time::timeout(Duration::from_millis(100), self.shim.shut_down()).await.is_ok()
    }

    async fn create_container(&self) {
        let create = CreateTask {
            id: id(),
            bundle: Bundle::new(self.dir.path()).unwrap(),
            rootfs: Vec::new(),
            stdio: StdioUris::default(),
            options: None,
            checkpoint: None,
        };
        self.shim.create(create).await.unwrap();
    }
}

const POD: &str = "p1";

fn pod() -> ContainerId {
    ContainerId::parse(POD).unwrap()
}

fn limit() -> Context {
    with_duration(Duration::from_secs(5))
}

fn connect(server: &Server) -> (SandboxClient, TaskClient) {
    let (near, far) = tokio::net::UnixStream::pair().unwrap();
    let server = server.clone();
    tokio::spawn(async move { server.serve(far).await });
    let client = Client::new(Socket::new(near));
    (SandboxClient::new(client.clone()), TaskClient::new(client))
}

fn id() -> ContainerId {
    ContainerId::parse("c1").unwrap()
}

/// What a refused call says.
fn refused<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (Code, String) {
    match answer.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}
