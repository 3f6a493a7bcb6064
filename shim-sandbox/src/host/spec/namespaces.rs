//! Namespaces, and the parameters of the kernel that are theirs.

use std::collections::BTreeMap;

use serde_json::Value;
use shim_core::{Error, Kind, Result};

use super::{Object, OfPod, list, text};

/// Which namespaces of a container are the guest's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) network: bool,
    pub(super) ipc: bool,
    pub(super) uts: bool,
}

/// Takes out the namespaces that the pod shares; others the guest makes as it is told.
pub(super) fn prepare(linux: &mut Object, pod: &mut OfPod) -> Result<Shared> {
    let namespaces = list(linux, "namespaces")?;
    let has = |kind: &str| namespaces.iter().any(|each| text(each, "type") == kind);
    for (kind, whose) in [("mount", "mounts"), ("pid", "processes"), ("network", "network")] {
        if !has(kind) {
            let why = format!("linux.namespaces: without {kind} it would have the host's {whose}");
            return Err(Error::new(Kind::FailedPrecondition, why));
        }
    }
    if !has("ipc") {
        let why = "linux.namespaces: without ipc it would have the host's";
        return Err(Error::new(Kind::FailedPrecondition, why));
    }
    let mut shared = Shared { uts: !has("uts"), ..Shared::default() };
    let mut kept = Vec::new();
    for namespace in namespaces.drain(..) {
        let (kind, path) = (text(&namespace, "type"), text(&namespace, "path"));
        if path.is_empty() {
            kept.push(namespace);
            continue;
        }
        match kind {
            "network" => {
                shared.network = true;
                pod.netns = Some(path.to_owned());
            }
            "ipc" => shared.ipc = true,
            "uts" => shared.uts = true,
            _ => {
                let why =
                    format!("linux.namespaces: {kind} at {path} can't be shared with a guest");
                return Err(Error::new(Kind::FailedPrecondition, why));
            }
        }
    }
    *namespaces = kept;
    Ok(shared)
}

/// Takes out the parameters of namespaces that are the guest's own.
pub(super) fn take_sysctls(linux: &mut Object, shared: Shared) -> Result<BTreeMap<String, String>> {
    let mut taken = BTreeMap::new();
    let Some(Value::Object(sysctls)) = linux.get_mut("sysctl") else { return Ok(taken) };
    for (name, value) in std::mem::take(sysctls) {
        let plain = name.replace('/', ".");
        if (shared.network && plain.starts_with("net.")) || (shared.ipc && is_ipc(&plain)) {
            let Value::String(value) = value else {
                return Err(Error::invalid(format!("linux.sysctl: {name} is no text")));
            };
            taken.insert(plain, value);
        } else {
            sysctls.insert(name, value);
        }
    }
    Ok(taken)
}

/// sysctl(8) parameters that ipc_namespaces(7) lists.
fn is_ipc(name: &str) -> bool {
    ["kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."].iter().any(|p| name.starts_with(p))
}
