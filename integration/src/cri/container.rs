//! A container of a pod, from CreateContainer to RemoveContainer.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::client::Cri;
use super::log::{self, Line};
use super::pod::Pod;
use crate::image;
use crate::messages::cri as m;
use crate::session::Output;
use crate::wait::{self, SOON};

/// What a container is to be, in kubelet's words.
#[derive(Clone, Debug)]
pub struct Draft {
    name: String,
    config: m::ContainerConfig,
}

impl Draft {
    /// A container of the test image, with the namespaces that its pod's configuration asks for.
    #[must_use]
    pub fn new(name: &str, command: &[&str]) -> Self {
        let config = m::ContainerConfig {
            metadata: Some(m::ContainerMetadata { name: name.to_owned(), ..Default::default() })
                .into(),
            image: Some(m::ImageSpec { image: image::NAME.to_owned(), ..Default::default() })
                .into(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            log_path: name.to_owned(),
            ..Default::default()
        };
        Self { name: name.to_owned(), config }
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        let value = value.as_bytes().to_owned();
        self.config.envs.push(m::Env { key: key.to_owned(), value, ..Default::default() });
        self
    }

    /// With a folder of the machine.
    #[must_use]
    pub fn mount(mut self, host: &str, container: &str, readonly: bool) -> Self {
        let (host_path, container_path) = (host.to_owned(), container.to_owned());
        let mount = m::Mount { host_path, container_path, readonly, ..Default::default() };
        self.config.mounts.push(mount);
        self
    }

    /// With limits.
    #[must_use]
    pub fn resources(mut self, resources: m::Resources) -> Self {
        self.config.linux.mut_or_insert_default().resources = Some(resources).into();
        self
    }

    /// As it is sent, in a pod: kubelet gives both the same namespaces.
    fn complete(&self, pod: &m::PodConfig) -> m::ContainerConfig {
        let mut config = self.config.clone();
        let security = m::ContainerSecurityContext {
            namespace_options: pod.linux.security_context.namespace_options.clone(),
            ..Default::default()
        };
        config.linux.mut_or_insert_default().security_context = Some(security).into();
        config
    }
}

/// A container that was made.
#[derive(Debug)]
pub struct Container {
    cri: Cri,
    id: String,
    log: PathBuf,
}

impl Container {
    /// Makes a container.
    ///
    /// # Errors
    /// When containerd refuses; so for every call below.
    pub fn create(pod: &Pod, draft: &Draft) -> Result<Self> {
        let request = m::CreateRequest {
            pod_sandbox_id: pod.id().to_owned(),
            config: Some(draft.complete(pod.config())).into(),
            sandbox_config: Some(pod.config().clone()).into(),
            ..Default::default()
        };
        let answer: m::CreateResponse = pod.cri().ask("CreateContainer", &request)?;
        Ok(Self { cri: pod.cri().clone(), id: answer.container_id, log: pod.log(&draft.name) })
    }

    /// The id that containerd gave it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Starts it.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn start(&self) -> Result<()> {
        self.cri.tell("StartContainer", &self.request())
    }

    /// What kubelet asks for.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn status(&self) -> Result<m::ContainerStatus> {
        let answer: m::ContainerStatusResponse =
            self.cri.ask("ContainerStatus", &self.request())?;
        answer.status.into_option().context("an answer without a status")
    }

    /// Waits until it has ended, and returns how.
    ///
    /// # Errors
    /// When it does not end soon.
    pub fn wait(&self) -> Result<m::ContainerStatus> {
        wait::until("the container's end", SOON, || {
            let status = self.status()?;
            let state = status.state;
            ensure!(state == m::ContainerState::CONTAINER_EXITED.into(), "it is {state:?}");
            Ok(status)
        })
    }

    /// Runs a command in it, whatever its outcome; without an end within `seconds` it is killed.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn exec_within(&self, command: &[&str], seconds: i64) -> Result<Output> {
        let request = m::ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: seconds,
            ..Default::default()
        };
        let answer: m::ExecSyncResponse = self.cri.ask("ExecSync", &request)?;
        Ok(Output {
            status: answer.exit_code,
            stdout: String::from_utf8(answer.stdout)?,
            stderr: String::from_utf8(answer.stderr)?,
        })
    }

    /// Runs a command in it that has to succeed, and returns its output without the last line's end.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        let output = self.exec_within(command, 0)?;
        ensure!(output.status == 0, "{command:?}: {output:?}");
        Ok(output.stdout.trim_end().to_owned())
    }

    /// What it has logged so far.
    ///
    /// # Errors
    /// When there is no log.
    pub fn log(&self) -> Result<Vec<Line>> {
        log::read(&self.log)
    }

    /// Waits until it has logged that line.
    ///
    /// # Errors
    /// When it does not soon.
    pub fn wait_line(&self, text: &str) -> Result<()> {
        wait::until(format_args!("the line {text:?}"), SOON, || {
            let lines = self.log()?;
            ensure!(lines.iter().any(|line| line.text == text), "there are {}", lines.len());
            Ok(())
        })
    }

    /// The file of its log.
    #[must_use]
    pub fn log_file(&self) -> &PathBuf {
        &self.log
    }

    /// Tells containerd to open the log anew: the old one was moved away.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn reopen_log(&self) -> Result<()> {
        self.cri.tell("ReopenContainerLog", &self.request())
    }

    /// Its counters.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn stats(&self) -> Result<m::ContainerStats> {
        let answer: m::ContainerStatsResponse = self.cri.ask("ContainerStats", &self.request())?;
        answer.stats.into_option().context("no counters")
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn update(&self, resources: m::Resources) -> Result<()> {
        let request = m::UpdateRequest {
            container_id: self.id.clone(),
            linux: Some(resources).into(),
            ..Default::default()
        };
        self.cri.tell("UpdateContainerResources", &request)
    }

    /// Ends it: SIGTERM, and after `seconds` SIGKILL.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn stop(&self, seconds: i64) -> Result<()> {
        let container_id = self.id.clone();
        let request = m::StopRequest { container_id, timeout: seconds, ..Default::default() };
        self.cri.tell("StopContainer", &request)
    }

    /// Forgets it.
    ///
    /// # Errors
    /// See [`Self::create`].
    pub fn remove(&self) -> Result<()> {
        self.cri.tell("RemoveContainer", &self.request())
    }

    fn request(&self) -> m::ContainerRequest {
        m::ContainerRequest { container_id: self.id.clone(), ..Default::default() }
    }
}
