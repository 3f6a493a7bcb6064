//! A pod, from RunPodSandbox to RemovePodSandbox.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::client::Cri;
use super::container::{Container, Draft};
use crate::folder::Folder;
use crate::messages::cri as m;
use crate::wait::{self, SOON};
use crate::{cgroups, procs};

/// A pod's host name.
pub const HOSTNAME: &str = "lighthouse";

/// A pod that was run.
#[derive(Debug)]
pub struct Pod {
    cri: Cri,
    name: String,
    id: String,
    config: m::PodConfig,
    logs: Folder,
}

/// The configuration of a pod as kubelet writes it: `name` is also that of its cgroup below `mark`.
#[must_use]
pub fn config(mark: &str, name: &str, logs: &Folder) -> m::PodConfig {
    let metadata = m::PodMetadata {
        name: name.to_owned(),
        uid: format!("{name}-uid"),
        namespace: "default".to_owned(),
        ..Default::default()
    };
    let dns = m::DnsConfig {
        servers: vec!["10.96.0.10".to_owned()],
        searches: vec!["default.svc.cluster.local".to_owned(), "cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
        ..Default::default()
    };
    // Kubelet's wish for a pod that says nothing: each container has processes of its own.
    let namespaces =
        m::NamespaceOption { pid: m::NamespaceMode::CONTAINER.into(), ..Default::default() };
    let security =
        m::PodSecurityContext { namespace_options: Some(namespaces).into(), ..Default::default() };
    let linux = m::LinuxPodConfig {
        cgroup_parent: format!("/{mark}/{name}"),
        security_context: Some(security).into(),
        ..Default::default()
    };
    m::PodConfig {
        metadata: Some(metadata).into(),
        hostname: HOSTNAME.to_owned(),
        log_directory: logs.path().display().to_string(),
        dns_config: Some(dns).into(),
        labels: HashMap::from([("io.kubernetes.pod.name".to_owned(), name.to_owned())]),
        linux: Some(linux).into(),
        ..Default::default()
    }
}

impl Pod {
    /// Runs a pod.
    ///
    /// # Errors
    /// When containerd refuses; so for every call below.
    pub fn run(
        cri: &Cri,
        name: &str,
        handler: &str,
        config: m::PodConfig,
        logs: Folder,
    ) -> Result<Self> {
        let request = m::RunPodRequest {
            config: Some(config.clone()).into(),
            runtime_handler: handler.to_owned(),
            ..Default::default()
        };
        let id = cri.ask::<m::RunPodResponse>("RunPodSandbox", &request)?.pod_sandbox_id;
        Ok(Self { cri: cri.clone(), name: name.to_owned(), id, config, logs })
    }

    /// The id that containerd gave it.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &m::PodConfig {
        &self.config
    }

    /// The client that made it.
    #[must_use]
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// The file that a container of that name logs to.
    #[must_use]
    pub fn log(&self, container: &str) -> PathBuf {
        self.logs.path().join(container)
    }

    /// Makes and starts a container.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn start(&self, draft: &Draft) -> Result<Container> {
        let container = Container::create(self, draft)?;
        container.start()?;
        Ok(container)
    }

    /// Makes and starts a container that does nothing for a long time.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn sleeper(&self, name: &str) -> Result<Container> {
        self.start(&Draft::new(name, &["sleep", "1000"]))
    }

    /// What kubelet asks for.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn status(&self) -> Result<m::PodStatus> {
        let answer: m::PodStatusResponse = self.cri.ask("PodSandboxStatus", &self.request())?;
        answer.status.into_option().context("an answer without a status")
    }

    /// Waits until the pod is in that state.
    ///
    /// # Errors
    /// When it is not soon.
    pub fn wait_state(&self, state: m::PodState) -> Result<()> {
        wait::until(format_args!("the pod {state:?}"), SOON, || {
            let found = self.status()?.state;
            ensure!(found == state.into(), "it is {found:?}");
            Ok(())
        })
    }

    /// The pid of its shim: the one process that is called with its id.
    ///
    /// # Errors
    /// When there is none.
    pub fn shim(&self) -> Result<i32> {
        procs::with_argument(&self.id)?.context("the pod has no shim")
    }

    /// Its counters.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn stats(&self) -> Result<m::LinuxPodStats> {
        let answer: m::PodStatsResponse = self.cri.ask("PodSandboxStats", &self.request())?;
        let stats = answer.stats.into_option().and_then(|stats| stats.linux.into_option());
        stats.context("no counters")
    }

    /// Ends its containers and takes its network away.
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn stop(&self) -> Result<()> {
        self.cri.tell("StopPodSandbox", &self.request())
    }

    /// Forgets it, and leaves it to the caller what remains: see [`Self::remove`].
    ///
    /// # Errors
    /// See [`Self::run`].
    pub fn forget(&self) -> Result<()> {
        self.cri.tell("RemovePodSandbox", &self.request())
    }

    /// Ends it, in kubelet's way, with all that belongs to it.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn remove(self) -> Result<()> {
        self.stop()?;
        self.forget()?;
        self.is_gone()
    }

    /// Sees to it that containerd has forgotten it and its cgroup is empty, and removes that: as
    /// kubelet does, whose it is.
    ///
    /// # Errors
    /// When something is left.
    pub fn is_gone(self) -> Result<()> {
        let (pods, containers) = (self.cri.pods(&self.id)?, self.cri.containers(&self.id)?);
        ensure!(pods.is_empty() && containers.is_empty(), "left: {pods:?}, {containers:?}");
        wait::until("an empty cgroup", SOON, || {
            let left = cgroups::marked(&self.name)?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })?;
        cgroups::sweep(|name| name == self.name)
    }

    fn request(&self) -> m::PodRequest {
        m::PodRequest { pod_sandbox_id: self.id.clone(), ..Default::default() }
    }
}
