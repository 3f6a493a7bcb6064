//! A container's spec as the guest is to have it.
//!
//! containerd writes `config.json` for the host: its paths, namespaces, devices and policies. What the pod
//! shares is the guest's own, so namespaces by path become none; what lies on the host is shared with the
//! guest, and gets its path there; what belongs to the host alone is left out where the guest takes its
//! place, and refused where it does not: a container is never less apart than its spec says, and nothing
//! is left out that somebody counts on.

mod mounts;
mod namespaces;
mod resources;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use shim_core::{Error, Kind, Result, model::Bundle};

pub use self::mounts::Volume;

/// Where a guest has its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder of the agent's files.
    pub files: String,
    /// The cgroup below which those of containers are.
    pub cgroup: String,
}

impl Default for Places {
    fn default() -> Self {
        Self { files: "/run/shim".to_owned(), cgroup: "/shim".to_owned() }
    }
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// By itself: the pod is there for it.
    Alone,
    /// The container that is the pod, for containerds without the Sandbox API.
    Pause,
    /// One of a pod.
    Member,
}

/// A spec that has been made for the guest.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `config.json`.
    pub spec: Value,
    /// What of the host it mounts; the spec names them by their places here.
    pub volumes: Vec<Volume>,
    /// What belongs to the pod and not to the container.
    pub pod: OfPod,
}

/// What a spec says of the pod: of namespaces that the guest itself is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfPod {
    /// The name of the host.
    pub hostname: Option<String>,
    /// Parameters of the kernel, by their names with dots.
    pub sysctls: BTreeMap<String, String>,
    /// The network namespace that the pod's network is in.
    pub netns: Option<String>,
}

type Object = Map<String, Value>;

/// Reads a bundle's `config.json` as it is.
///
/// # Errors
/// `InvalidArgument` when it is missing or no JSON object.
pub fn read(bundle: &Bundle) -> Result<Value> {
    let path = bundle.path().join("config.json");
    let text = std::fs::read(&path)
        .map_err(|err| Error::invalid(format!("read {}: {err}", path.display())))?;
    let spec: Value = serde_json::from_slice(&text)
        .map_err(|err| Error::invalid(format!("parse {}: {err}", path.display())))?;
    if !spec.is_object() {
        return Err(Error::invalid(format!("{} is no JSON object", path.display())));
    }
    Ok(spec)
}

/// What a container is, by what CRI says of it.
pub fn role(spec: &Value) -> Role {
    let annotation = |name: &str| spec.pointer("/annotations").and_then(|all| all.get(name));
    match annotation("io.kubernetes.cri.container-type").and_then(Value::as_str) {
        Some("sandbox") => Role::Pause,
        Some("container") => Role::Member,
        _ => Role::Alone,
    }
}

/// What a container is prepared for.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it is in its pod.
    pub role: Role,
    /// Nobody on the host has made the pod's hosts, hostname and resolv.conf: the guest's are mounted.
    pub has_own_files: bool,
    /// Where the guest has its things.
    pub places: &'a Places,
}

/// Makes a spec for the guest.
///
/// # Errors
/// `InvalidArgument` or `FailedPrecondition` with the field that can't be had in a guest, and why.
pub fn prepare(mut spec: Value, around: Around<'_>) -> Result<Prepared> {
    let spec_object = object(&mut spec, "config.json")?;
    refuse_hooks(spec_object)?;
    let root = spec_object.entry("root").or_insert_with(|| Value::Object(Map::new()));
    object(root, "root")?.insert("path".into(), "rootfs".into());
    let mut pod = OfPod::default();
    let shared = namespaces::prepare(section(spec_object, "linux")?, &mut pod)?;
    if shared.uts
        && let Some(hostname) = spec_object.remove("hostname")
    {
        pod.hostname = hostname.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        spec_object.remove("domainname");
    }
    let linux = section(spec_object, "linux")?;
    pod.sysctls = namespaces::take_sysctls(linux, shared)?;
    if around.role == Role::Member && !pod.sysctls.is_empty() {
        let names: Vec<_> = pod.sysctls.keys().map(String::as_str).collect();
        let why = format!("linux.sysctl: {} are the pod's, not the container's", names.join(", "));
        return Err(Error::invalid(why));
    }
    resources::prepare(linux, around)?;
    if let Some(process) = spec_object.get_mut("process") {
        // The host's policies know nothing of a guest, which has none.
        let process = object(process, "process")?;
        process.remove("apparmorProfile");
        process.remove("selinuxLabel");
    }
    let volumes = mounts::prepare(spec_object, around)?;
    Ok(Prepared { spec, volumes, pod })
}

/// They are programs of the host's, and run in its namespaces: of what they would do there the guest
/// would see nothing.
fn refuse_hooks(spec: &Object) -> Result<()> {
    let Some(Value::Object(hooks)) = spec.get("hooks") else { return Ok(()) };
    let used = hooks.iter().find(|(_, list)| list.as_array().is_some_and(|list| !list.is_empty()));
    match used {
        Some((kind, _)) => {
            let why = format!("hooks.{kind}: hooks are the host's, and do not run in a guest");
            Err(Error::new(Kind::FailedPrecondition, why))
        }
        None => Ok(()),
    }
}

fn object<'a>(value: &'a mut Value, what: &str) -> Result<&'a mut Object> {
    value.as_object_mut().ok_or_else(|| Error::invalid(format!("{what} is no JSON object")))
}

fn section<'a>(parent: &'a mut Object, name: &str) -> Result<&'a mut Object> {
    object(parent.entry(name).or_insert_with(|| Value::Object(Map::new())), name)
}

/// The items of a list that may be missing.
fn list<'a>(parent: &'a mut Object, name: &str) -> Result<&'a mut Vec<Value>> {
    let value = parent.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or_else(|| Error::invalid(format!("{name} is no list")))
}

fn text<'a>(item: &'a Value, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
