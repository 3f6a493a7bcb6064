//! A client of containerd's containers, tasks and events: what `ctr` cannot say.
//!
//! Made for tests: whoever waits for an answer does so for half a minute at most.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::empty::Empty;
use protobuf::{EnumOrUnknown, Message, MessageField};
use serde_json::Value;
use shim_protos::runc::CheckpointOptions;
use tokio::time::timeout;

use crate::events::{Events, MARK};
use crate::grpc::{Channel, Code, Status};
use crate::spec::Spec;

/// The messages of `proto/client.proto`.
pub use crate::messages::client as messages;

use messages as m;

const CONTAINERS: &str = "containerd.services.containers.v1.Containers";
const TASKS: &str = "containerd.services.tasks.v1.Tasks";
const EVENTS: &str = "containerd.services.events.v1.Events";

/// The type of OCI messages, which travel as JSON.
const OCI: &str = "types.containerd.io/opencontainers/runtime-spec/1/";

/// Where a task's or an exec's streams go; empty is nowhere.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// Path of a fifo.
    pub stdin: String,
    /// Path of a fifo, or a URI.
    pub stdout: String,
    /// Path of a fifo, or a URI.
    pub stderr: String,
}

/// A process of a container: its first, or an exec.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target<'a> {
    /// The container's id.
    pub container: &'a str,
    /// The exec's id; empty for the first process.
    pub exec: &'a str,
}

impl<'a> Target<'a> {
    /// The first process.
    #[must_use]
    pub fn init(container: &'a str) -> Self {
        Self { container, exec: "" }
    }

    /// An exec.
    #[must_use]
    pub fn exec(container: &'a str, exec: &'a str) -> Self {
        Self { container, exec }
    }

    fn request(self) -> m::ProcessRequest {
        m::ProcessRequest {
            container_id: self.container.to_owned(),
            exec_id: self.exec.to_owned(),
            ..Default::default()
        }
    }
}

/// A client in one of containerd's namespaces.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    runtime: String,
    socket: PathBuf,
    namespace: String,
}

impl Client {
    /// Connects to a daemon. Containers will be made with the runtime of that name.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(socket: &Path, namespace: &str, runtime: &str) -> Result<Self> {
        let channel = Channel::connect(socket, namespace).await?;
        Ok(Self {
            channel,
            runtime: runtime.to_owned(),
            socket: socket.to_owned(),
            namespace: namespace.to_owned(),
        })
    }

    /// The same client, whose containers are made with another runtime.
    #[must_use]
    pub fn with_runtime(self, runtime: &str) -> Self {
        Self { runtime: runtime.to_owned(), ..self }
    }

    /// A client with a connection of its own to the same daemon.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn another(&self) -> Result<Self> {
        Self::connect(&self.socket, &self.namespace, &self.runtime).await
    }

    /// Makes a container, which is only a record so far. `options` are the runtime's.
    ///
    /// # Errors
    /// [`Status`] when containerd refuses; so for every call below.
    pub async fn create_container(
        &self,
        id: &str,
        spec: &Spec,
        options: Option<Any>,
    ) -> Result<()> {
        let runtime = m::container::Runtime {
            name: self.runtime.clone(),
            options: MessageField::from_option(options),
            ..Default::default()
        };
        let container = m::Container {
            id: id.to_owned(),
            runtime: Some(runtime).into(),
            spec: Some(oci("Spec", spec.json())).into(),
            ..Default::default()
        };
        let request =
            m::CreateContainer { container: Some(container).into(), ..Default::default() };
        let method = format!("{CONTAINERS}/Create");
        self.channel.call::<m::CreateContainer>(&method, &request).await.map(drop)
    }

    /// Forgets a container, which has no task any more.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn delete_container(&self, id: &str) -> Result<()> {
        let request = m::DeleteContainerRequest { id: id.to_owned(), ..Default::default() };
        self.channel.call::<Empty>(&format!("{CONTAINERS}/Delete"), &request).await.map(drop)
    }

    /// Makes the task of a container, and returns the pid of its first process.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn create(&self, id: &str, rootfs: &[m::Mount], streams: &Streams) -> Result<u32> {
        let request = m::CreateTaskRequest { rootfs: rootfs.to_vec(), ..Default::default() };
        self.create_with(id, request, streams).await
    }

    /// The same with more in the request. One that is to be restored has no process yet.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn create_with(
        &self,
        id: &str,
        request: m::CreateTaskRequest,
        streams: &Streams,
    ) -> Result<u32> {
        let Streams { stdin, stdout, stderr } = streams.clone();
        let container_id = id.to_owned();
        let request = m::CreateTaskRequest { container_id, stdin, stdout, stderr, ..request };
        Ok(self.task::<m::CreateTaskResponse>("Create", &request).await?.pid)
    }

    /// Saves a task.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn checkpoint(&self, id: &str, options: &CheckpointOptions) -> Result<()> {
        let type_url = "containerd.runc.v1.CheckpointOptions".to_owned();
        let options = Any { type_url, value: options.write_to_bytes()?, ..Default::default() };
        let request = m::CheckpointTaskRequest {
            container_id: id.to_owned(),
            options: Some(options).into(),
            ..Default::default()
        };
        self.task::<Empty>("Checkpoint", &request).await.map(drop)
    }

    /// Adds a process to a task: `process` is the OCI spec's.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn exec(&self, target: Target<'_>, process: &Value, streams: &Streams) -> Result<()> {
        let Streams { stdin, stdout, stderr } = streams.clone();
        let request = m::ExecRequest {
            container_id: target.container.to_owned(),
            exec_id: target.exec.to_owned(),
            stdin,
            stdout,
            stderr,
            spec: Some(oci("Process", process)).into(),
            ..Default::default()
        };
        self.task::<Empty>("Exec", &request).await.map(drop)
    }

    /// Starts a process that was made, and returns its pid.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn start(&self, target: Target<'_>) -> Result<u32> {
        Ok(self.task::<m::StartResponse>("Start", &target.request()).await?.pid)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn kill(&self, target: Target<'_>, signal: u32) -> Result<()> {
        let request = m::KillRequest {
            container_id: target.container.to_owned(),
            exec_id: target.exec.to_owned(),
            signal,
            ..Default::default()
        };
        self.task::<Empty>("Kill", &request).await.map(drop)
    }

    /// Waits for the end of a process, and returns its exit status.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn wait(&self, target: Target<'_>) -> Result<u32> {
        Ok(self.task::<m::WaitResponse>("Wait", &target.request()).await?.exit_status)
    }

    /// What containerd knows of a process.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn get(&self, target: Target<'_>) -> Result<m::Process> {
        let response = self.task::<m::GetResponse>("Get", &target.request()).await?;
        response.process.into_option().context("an answer without a process")
    }

    /// The state of a process.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn status(&self, target: Target<'_>) -> Result<EnumOrUnknown<m::Status>> {
        Ok(self.get(target).await?.status)
    }

    /// Deletes an ended process: the task with its shim, or an exec.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn delete(&self, target: Target<'_>) -> Result<m::DeleteResponse> {
        let method = if target.exec.is_empty() { "Delete" } else { "DeleteProcess" };
        self.task(method, &target.request()).await
    }

    /// Freezes every process of a task.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.task::<Empty>("Pause", &Target::init(id).request()).await.map(drop)
    }

    /// Undoes [`Self::pause`].
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn resume(&self, id: &str) -> Result<()> {
        self.task::<Empty>("Resume", &Target::init(id).request()).await.map(drop)
    }

    /// Ends a process's standard input: there will be no further writer.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn close_stdin(&self, target: Target<'_>) -> Result<()> {
        let request = m::CloseIORequest {
            container_id: target.container.to_owned(),
            exec_id: target.exec.to_owned(),
            stdin: true,
            ..Default::default()
        };
        self.task::<Empty>("CloseIO", &request).await.map(drop)
    }

    /// Every process of a task, with what the shim says about it.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn pids(&self, id: &str) -> Result<Vec<(u32, Option<Any>)>> {
        let request = Target::init(id).request();
        let response: m::ListPidsResponse = self.task("ListPids", &request).await?;
        let processes = response.processes.into_iter();
        Ok(processes.map(|process| (process.pid, process.info.into_option())).collect())
    }

    /// Changes the limits of a task: `resources` are the OCI spec's.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn update(&self, id: &str, resources: &Value) -> Result<()> {
        let request = m::UpdateRequest {
            container_id: id.to_owned(),
            resources: Some(oci("LinuxResources", resources)).into(),
            ..Default::default()
        };
        self.task::<Empty>("Update", &request).await.map(drop)
    }

    /// The counters of a task.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn metrics(&self, id: &str) -> Result<Any> {
        let filters = vec![format!("id=={id}")];
        let request = m::MetricsRequest { filters, ..Default::default() };
        let response: m::MetricsResponse = self.task("Metrics", &request).await?;
        let metric = response.metrics.into_iter().find(|metric| metric.id == id);
        metric.and_then(|metric| metric.data.into_option()).context("no metrics")
    }

    /// Listens to what happens to a container from now on.
    ///
    /// # Errors
    /// See [`Self::create_container`].
    pub async fn events(&self, container: &str) -> Result<Events> {
        let request = m::SubscribeRequest::default();
        let answers = self.channel.stream(&format!("{EVENTS}/Subscribe"), &request).await?;
        let mut events = Events::new(answers, container);
        // The subscription holds once it brings what was published after it.
        let publish = m::PublishRequest {
            topic: format!("/tasks/{MARK}"),
            event: Some(events.mark()?).into(),
            ..Default::default()
        };
        loop {
            self.channel.call::<Empty>(&format!("{EVENTS}/Publish"), &publish).await?;
            if let Ok(seen) = timeout(Duration::from_millis(50), events.until(MARK)).await {
                seen?;
                return Ok(events);
            }
        }
    }

    async fn task<R: Message>(&self, method: &str, request: &impl Message) -> Result<R> {
        self.channel.call(&format!("{TASKS}/{method}"), request).await
    }
}

/// The code with which a call was refused.
///
/// # Errors
/// The failure itself, when it was of another kind; also when the call was not refused.
pub fn refusal<T>(result: Result<T>) -> Result<Code> {
    let Err(error) = result else { anyhow::bail!("it was not refused") };
    match error.downcast_ref::<Status>() {
        Some(status) => Ok(status.code),
        None => Err(error),
    }
}

fn oci(name: &str, value: &Value) -> Any {
    let (type_url, value) = (format!("{OCI}{name}"), value.to_string().into_bytes());
    Any { type_url, value, ..Default::default() }
}
