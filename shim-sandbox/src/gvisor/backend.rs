//! The backend: sandboxes and containers as containerd asks for them, by runsc.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use serde_json::Value;
use shim_core::{
    Backend, Coming, Container, Context, Create, CreateSandbox, Created, Error, Host, Kind, Result,
    Sandbox, SandboxBackend,
    model::{About, Bundle, ContainerId, Namespace},
};
use shim_runc::OciRuntime;

use super::pod::{GvisorSandbox, Pod, Wanted};
use crate::{
    config::Config,
    host::{describe, parent, refuse_the_hosts, spec},
    journal,
    started::Started,
};

/// Where runsc keeps what it knows of containers without a sandbox of the API's, by namespace.
const ROOT: &str = "/run/shim-gvisor";

/// Flags that are given by the shim.
const OURS: [&str; 6] = ["root", "log", "log-fd", "log-format", "panic-log", "panic-log-fd"];

/// Pods in gVisor. A shim has one.
#[derive(Debug, Default)]
pub struct Gvisor {
    started: Started,
    pod: Mutex<Option<Arc<Pod>>>,
}

impl Gvisor {
    /// A backend that makes nothing until it is opened.
    pub fn new() -> Self {
        Self::default()
    }

    fn pod(&self) -> MutexGuard<'_, Option<Arc<Pod>>> {
        self.pod.lock().expect("nobody panics with it locked")
    }
}

#[async_trait]
impl Backend for Gvisor {
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
        let pod = self.pod().clone();
        if let Some(pod) = pod {
            return pod.create(request).await;
        }
        // runsc knows by the annotations what is a pod and what is in one.
        let config = self.started.config(request.options.as_slice())?;
        let has_network = names_a_network(&spec::read(&request.bundle)?);
        let flags = flags(&config.runsc.flags, has_network)?;
        let root = Path::new(ROOT).join(&self.started.host()?.namespace);
        runtime(&config, root, flags)?.create(request).await
    }

    fn clean_up(&self, namespace: &Namespace, id: &ContainerId, bundle: &Bundle) -> Result<()> {
        let alone = shim_runc::clean_up(id, bundle);
        journal::clean_up_after(namespace, id, bundle).and(alone)
    }
}

#[async_trait]
impl SandboxBackend for Gvisor {
    async fn create_sandbox(&self, request: CreateSandbox) -> Result<Arc<dyn Sandbox>> {
        self.started.learn(&request.options);
        let config = self.started.config(&[])?;
        let described = describe(request.config.as_ref())?;
        refuse_the_hosts(&described)?;
        let host = self.started.host()?;
        let asked = &described.linux.get_or_default().cgroup_parent;
        let wanted = Wanted {
            id: request.id,
            flags: flags(&config.runsc.flags, request.netns.is_some())?,
            binary: binary(&config)?,
            netns: request.netns,
            cgroup_parent: parent(asked, host.namespace.as_str()),
            config: described,
        };
        let mut place = self.pod();
        if let Some(pod) = &*place {
            let why = format!("this shim has the sandbox {} already", pod.id());
            return Err(Error::new(Kind::AlreadyExists, why));
        }
        let pod = Arc::new(Pod::make(wanted, host)?);
        *place = Some(Arc::clone(&pod));
        Ok(Arc::new(GvisorSandbox(pod)))
    }
}

fn runtime(config: &Config, root: PathBuf, flags: Vec<String>) -> Result<OciRuntime> {
    OciRuntime::find(&binary(config)?, root, flags).context("runsc.path of the configuration")
}

fn binary(config: &Config) -> Result<String> {
    let path = config.runsc.path.to_str();
    path.map(str::to_owned).ok_or_else(|| Error::invalid("runsc.path: it is not UTF-8"))
}

/// runsc's flags by the configuration's. A pod without a network namespace has no network, and the host's
/// only if the administrator says so.
fn flags(chosen: &BTreeMap<String, String>, has_network: bool) -> Result<Vec<String>> {
    if let Some(name) = OURS.iter().find(|name| chosen.contains_key(**name)) {
        return Err(Error::invalid(format!("runsc.flags.{name}: the shim gives it")));
    }
    let is_flag = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if let Some(name) = chosen.keys().find(|name| !is_flag(name)) {
        return Err(Error::invalid(format!("runsc.flags.{name:?}: no flag is called so")));
    }
    let network = if has_network { "sandbox" } else { "none" };
    let usual = (!chosen.contains_key("network")).then(|| format!("--network={network}"));
    let chosen = chosen.iter().map(|(name, value)| format!("--{name}={value}"));
    Ok(chosen.chain(usual).collect())
}

fn names_a_network(spec: &Value) -> bool {
    let namespaces = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    namespaces.into_iter().flatten().any(|one| {
        one["type"] == "network" && one["path"].as_str().is_some_and(|path| !path.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)], has_network: bool) -> Result<Vec<String>> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        flags(&pairs.iter().map(own).collect(), has_network)
    }

    #[test]
    fn a_network_is_the_pods_or_none_unless_it_is_chosen() {
        assert_eq!(of(&[], true).unwrap(), ["--network=sandbox"]);
        let chosen = [("platform", "systrap")];
        assert_eq!(of(&chosen, false).unwrap(), ["--platform=systrap", "--network=none"]);
        assert_eq!(of(&[("network", "host")], true).unwrap(), ["--network=host"]);
    }

    #[test]
    fn a_flag_that_is_ours_or_none_is_named() {
        for name in ["root", "log", "a b", ""] {
            assert!(of(&[(name, "x")], true).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
