//! The backend: sandboxes and containers as containerd asks for them, in one guest.
//!
//! containerd asks in three ways. Through the Sandbox API the pod is made and started apart from its
//! containers. Without it a container is the pod, by its annotations: the guest lives from its Create to
//! its Delete. And a container alone has a guest for itself, in the same way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use serde_json::Value;
use shim_core::{
    Backend, Coming, Container, Context, Create, CreateSandbox, Created, Error, Host, Kind, Result,
    Sandbox, SandboxBackend, SandboxProcess,
    model::{About, Bundle, ContainerId, Namespace, Platform, RuntimeOptions, Stats},
};
use shim_protos::{
    cri::{NamespaceMode, PodSandboxConfig},
    protobuf::Message,
};

use super::{
    boot::Setup,
    files,
    member::Member,
    pod::{Pod, Wanted},
    size::{Size, Wish},
    spec::{self, Around, OfPod, Places, Role},
};
use crate::{journal, started::Started};

/// CRI's description of a pod, as CreateSandbox's options.
const POD: &str = "runtime.v1.PodSandboxConfig";

/// The size of a pod's /dev/shm, as containerd makes it on the host: bytes.
const SHM: u64 = 64 << 20;

/// Pods in virtual machines. A shim has one.
#[derive(Debug, Default)]
pub struct MicroVm {
    started: Started,
    pod: Mutex<Option<Arc<Pod>>>,
}

impl MicroVm {
    fn pod(&self) -> MutexGuard<'_, Option<Arc<Pod>>> {
        self.pod.lock().expect("nobody panics with it locked")
    }

    /// Makes the pod of this shim, which has none.
    fn make(&self, wanted: Wanted) -> Result<Arc<Pod>> {
        let mut place = self.pod();
        if let Some(pod) = place.as_ref().filter(|pod| !pod.is_gone()) {
            let why = format!("this shim has the sandbox {} already", pod.wanted().id);
            return Err(Error::new(Kind::AlreadyExists, why));
        }
        let pod = Pod::make(wanted, self.started.host()?)?;
        *place = Some(Arc::clone(&pod));
        Ok(pod)
    }

    /// Makes and boots the pod of a container that is one.
    async fn boot_for(
        &self,
        id: &ContainerId,
        raw: &Value,
        of_pod: OfPod,
        options: &[RuntimeOptions],
    ) -> Result<Arc<Pod>> {
        let config = self.started.config(options)?;
        let size = Size::of(Wish::of_spec(raw), config.guest);
        let setup = Setup {
            hostname: of_pod.hostname.unwrap_or_default(),
            sysctls: of_pod.sysctls.into_iter().collect(),
            shm: SHM,
            config: None,
        };
        let wanted = Wanted {
            id: id.clone(),
            config,
            size,
            netns: of_pod.netns.map(Into::into),
            cgroup_parent: format!("/{}", self.started.host()?.namespace),
            setup,
            has_own_files: false,
        };
        let pod = self.make(wanted)?;
        if let Err(err) = pod.boot().await {
            self.remove(&pod).await;
            return Err(err);
        }
        Ok(pod)
    }

    /// Removes a pod whose container could not be made.
    async fn remove(&self, pod: &Arc<Pod>) {
        match pod.delete().await {
            Ok(()) => drop(self.pod().take()),
            Err(err) => log::error!("after a failed create: {err:#}"),
        }
    }
}

#[async_trait]
impl Backend for MicroVm {
    type Container = Box<dyn Container>;

    fn about(&self) -> About {
        let version = env!("CARGO_PKG_VERSION");
        About { name: "io.containerd.sandbox.v2", version, features: None }
    }

    fn open(&mut self, host: Host) -> Result<()> {
        self.started.open(host);
        Ok(())
    }

    async fn prepare(&self, coming: &Coming) {
        self.started.learn(&coming.options);
    }

    async fn create(&self, request: Create) -> Result<Created<Box<dyn Container>>> {
        let raw = spec::read(&request.bundle)?;
        let role = spec::role(&raw);
        let existing = self.pod().clone().filter(|pod| !pod.is_gone());
        let has_own_files = existing.as_ref().is_some_and(|pod| pod.wanted().has_own_files);
        // In a pod that is there already, a container without annotations is one of its own, too.
        let role = if existing.is_some() { Role::Member } else { role };
        let prepare = |places: &Places| {
            let around = Around { id: request.id.as_str(), role, has_own_files, places };
            spec::prepare(raw.clone(), around)
        };
        // What can't be had is told before a guest boots for it.
        let of_pod = prepare(&Places::default())?.pod;
        let (pod, is_owner) = match (existing, role) {
            (Some(pod), _) => (pod, false),
            (None, Role::Member) => {
                let why = format!("container {} is of a pod that is not here", request.id);
                return Err(Error::new(Kind::FailedPrecondition, why));
            }
            (None, _) => {
                let options = request.options.as_slice();
                let pod = self.boot_for(&request.id, &raw, of_pod, options).await?;
                (pod, true)
            }
        };
        let made = match pod.machine().and_then(|machine| prepare(&machine.places)) {
            Ok(prepared) => Member::make(&pod, prepared, request, is_owner).await,
            Err(err) => Err(err),
        };
        if made.is_err() && is_owner {
            self.remove(&pod).await;
        }
        made
    }

    fn clean_up(&self, namespace: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()> {
        journal::clean_up_after(namespace, id, bundle)
    }
}

#[async_trait]
impl SandboxBackend for MicroVm {
    async fn create_sandbox(&self, request: CreateSandbox) -> Result<Arc<dyn Sandbox>> {
        self.started.learn(&request.options);
        let config = self.started.config(&[])?;
        let described = describe(request.config.as_ref())?;
        refuse_the_hosts(&described)?;
        let linux = described.linux.clone().unwrap_or_default();
        let wanted = Wanted {
            id: request.id,
            size: Size::of(Wish::of_pod(&described), config.guest),
            config,
            netns: request.netns,
            cgroup_parent: parent(
                &linux.cgroup_parent,
                &self.started.host()?.namespace.to_string(),
            ),
            setup: Setup {
                hostname: files::hostname(&described)?,
                sysctls: linux.sysctls,
                shm: SHM,
                config: Some(described),
            },
            has_own_files: true,
        };
        let pod = self.make(wanted)?;
        Ok(Arc::new(GuestSandbox(pod)))
    }
}

/// CRI's description, if it is one: `ctr` sends nothing, or an empty message.
pub(crate) fn describe(options: Option<&RuntimeOptions>) -> Result<PodSandboxConfig> {
    let Some(options) = options.filter(|o| o.type_url.rsplit('/').next() == Some(POD)) else {
        return Ok(PodSandboxConfig::default());
    };
    PodSandboxConfig::parse_from_bytes(&options.value)
        .map_err(|err| Error::invalid(format!("parse {POD}: {err}")))
}

/// A guest has namespaces of its own: what asks for the host's would get less than it thinks.
pub(crate) fn refuse_the_hosts(config: &PodSandboxConfig) -> Result<()> {
    let linux = config.linux.as_ref();
    let security = linux.and_then(|linux| linux.security_context.as_ref());
    let Some(options) = security.and_then(|security| security.namespace_options.as_ref()) else {
        return Ok(());
    };
    for (name, mode) in [("network", options.network), ("pid", options.pid), ("ipc", options.ipc)] {
        if mode.enum_value() == Ok(NamespaceMode::NODE) {
            let why = format!("namespace_options.{name}: a guest can't have the host's");
            return Err(Error::new(Kind::FailedPrecondition, why));
        }
    }
    Ok(())
}

/// Where the machine's cgroup goes. A slice is a path in which each part repeats those before it.
pub(crate) fn parent(asked: &str, namespace: &str) -> String {
    let asked = asked.trim_end_matches('/');
    if asked.is_empty() {
        return format!("/{namespace}");
    }
    let Some(slice) = asked.strip_suffix(".slice").filter(|_| !asked.contains('/')) else {
        return asked.to_owned();
    };
    let mut path = String::new();
    let mut name = String::new();
    for part in slice.split('-') {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push_str(&format!("/{name}.slice"));
    }
    path
}

/// A pod as the Sandbox API drives it.
#[derive(Debug)]
struct GuestSandbox(Arc<Pod>);

#[async_trait]
impl Sandbox for GuestSandbox {
    async fn start(&self) -> Result<SandboxProcess> {
        let pid = self.0.boot().await?;
        let pod = Arc::clone(&self.0);
        let exit = Box::pin(async move { pod.exit().await });
        Ok(SandboxProcess { pid, exit, created_at: SystemTime::now(), spec: None })
    }

    async fn stop(&self, grace: Duration) -> Result<()> {
        self.0.stop(grace).await
    }

    async fn delete(&self) -> Result<()> {
        self.0.delete().await.context("remove the sandbox")
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    fn platform(&self) -> Platform {
        Platform::own()
    }

    async fn stats(&self) -> Result<Stats> {
        self.0.stats()
    }

    fn info(&self) -> HashMap<String, String> {
        let wanted = self.0.wanted();
        let size = wanted.size;
        let mut info = HashMap::from([
            ("memory".to_owned(), format!("{} MiB", size.memory)),
            ("processors".to_owned(), size.processors.to_string()),
            ("image".to_owned(), wanted.config.image.display().to_string()),
        ]);
        if let Ok(machine) = self.0.machine() {
            info.insert("kernel".to_owned(), machine.kernel.clone());
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_path_of_slices() {
        assert_eq!(parent("", "k8s.io"), "/k8s.io");
        assert_eq!(parent("/kubepods/pod1/", "k8s.io"), "/kubepods/pod1");
        let slice = parent("kubepods-burstable-pod1.slice", "k8s.io");
        let expected = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        assert_eq!(slice, expected);
    }

    #[test]
    fn options_that_are_no_pod_describe_none() {
        let empty = RuntimeOptions { type_url: "google.protobuf.Empty".into(), value: vec![] };
        for options in [None, Some(&empty)] {
            assert_eq!(describe(options).unwrap(), PodSandboxConfig::default());
        }
        let garbage = RuntimeOptions { type_url: POD.into(), value: vec![0xff] };
        assert!(describe(Some(&garbage)).unwrap_err().to_string().contains(POD));
    }
}
