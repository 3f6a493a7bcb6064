//! Mounts: filesystems of the kernel are the guest's, files of the host are shared with it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shim_core::{Context, Error, Kind, Result};

use super::{Around, Object, Role, list, text};

/// A file or folder of the host's that is shared with the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Without links.
    pub source: PathBuf,
    /// Enforced on the host.
    pub read_only: bool,
}

/// Filesystems that a guest's kernel makes by itself.
const KERNELS: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// Folders that are no files but the host's kernel.
const HOSTS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What every container of a pod has of it, if nobody on the host has made it.
const POD_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Makes the mounts the guest's. What they name on the host is returned, numbered by its place.
pub(super) fn prepare(spec: &mut Object, around: Around<'_>) -> Result<Vec<Volume>> {
    let files = &around.places.files;
    let mounts = list(spec, "mounts")?;
    let mut volumes = Vec::new();
    for mount in mounts.iter_mut() {
        prepare_one(mount, around, &mut volumes)
            .with_context(|| format!("mounts: {}", text(mount, "destination")))?;
    }
    if around.has_own_files && around.role == Role::Member {
        for name in POD_FILES {
            let destination = format!("/etc/{name}");
            if !mounts.iter().any(|mount| text(mount, "destination") == destination) {
                mounts.push(bind(&format!("{files}/files/{name}"), &destination, "rw"));
            }
        }
        mounts.retain(|mount| text(mount, "destination") != "/dev/shm");
        mounts.push(bind(&format!("{files}/shm"), "/dev/shm", "rw"));
    }
    Ok(volumes)
}

fn prepare_one(mount: &mut Value, around: Around<'_>, volumes: &mut Vec<Volume>) -> Result<()> {
    let files = &around.places.files;
    let has = |option: &str| {
        let options = mount.get("options").and_then(Value::as_array).into_iter().flatten();
        options.filter_map(Value::as_str).any(|each| each == option)
    };
    let kind = text(mount, "type");
    if kind != "bind" && !has("bind") && !has("rbind") {
        if KERNELS.contains(&kind) {
            return Ok(());
        }
        let why = format!("a guest has no mount of type {kind:?}");
        return Err(Error::new(Kind::FailedPrecondition, why));
    }
    if text(mount, "destination") == "/dev/shm" {
        mount["source"] = json!(format!("{files}/shm"));
        return Ok(());
    }
    let source = Path::new(text(mount, "source"));
    let source = source.canonicalize().with_context(|| format!("find {}", source.display()))?;
    refuse_kernel(&source)?;
    let read_only = has("ro") || has("rro");
    mount["source"] = json!(format!("{files}/share/{}/v{}", around.id, volumes.len()));
    volumes.push(Volume { source, read_only });
    Ok(())
}

/// By its path without links: a link to `/proc` is `/proc`.
fn refuse_kernel(source: &Path) -> Result<()> {
    let is_kernel = source == Path::new("/") || HOSTS.iter().any(|host| source.starts_with(host));
    if is_kernel {
        let why = format!("{} is the host itself: a guest can't have it", source.display());
        return Err(Error::new(Kind::FailedPrecondition, why));
    }
    Ok(())
}

fn bind(source: &str, destination: &str, access: &str) -> Value {
    json!({
        "type": "bind",
        "source": source,
        "destination": destination,
        "options": ["bind", access],
    })
}
