//! The bundles that runsc is given: of the pod's first container, and of containerd's over again.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use shim_core::{
    Context, Error, Result,
    model::{Bundle, ContainerId},
};

use super::pause;
use crate::host::spec;

const KIND: &str = "io.kubernetes.cri.container-type";
const POD: &str = "io.kubernetes.cri.sandbox-id";

/// Where containers have what their pod shares: a mount by its file's name in the sandbox's folder.
const SHARED: [(&str, &str); 3] =
    [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")];

/// Memory that all containers of the pod see.
const SHM: &str = "/dev/shm";

/// What a pod's first container is made of.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) folder: &'a Path,
    pub(super) id: &'a ContainerId,
    pub(super) hostname: &'a str,
    pub(super) netns: Option<&'a Path>,
    pub(super) cgroup: &'a str,
    pub(super) sysctls: &'a HashMap<String, String>,
}

/// Writes a pod's files, each for all of its containers.
///
/// # Errors
/// What could not be written.
pub(super) fn write_files(folder: &Path, files: &HashMap<String, Vec<u8>>) -> Result<()> {
    make(&folder.join("files"))?;
    make(&folder.join("shm"))?;
    for (name, bytes) in files {
        // Everybody in a container reads them.
        write(&folder.join("files").join(name), bytes, 0o644)?;
    }
    Ok(())
}

/// Writes the bundle of the pod's first container.
///
/// # Errors
/// What could not be written.
pub(super) fn write_first(ground: &Ground<'_>) -> Result<Bundle> {
    let path = ground.folder.join("pod");
    make(&path)?;
    make(&path.join("rootfs"))?;
    write(&path.join("rootfs/pause"), &pause::program(), 0o755)?;
    let spec = first(ground);
    write(&path.join("config.json"), &serde_json::to_vec(&spec)?, 0o600)?;
    Bundle::new(path)
}

/// Writes a bundle for a container of the pod, over containerd's.
///
/// # Errors
/// What containerd's has that makes no sense; what could not be written.
pub(super) fn write_member(
    folder: &Path,
    pod: &ContainerId,
    id: &ContainerId,
    theirs: &Bundle,
) -> Result<Bundle> {
    let mut spec = spec::read(theirs)?;
    prepare(&mut spec, folder, pod, theirs)?;
    let containers = folder.join("containers");
    make(&containers)?;
    sweep(&containers)?;
    let path = member(folder, id);
    make(&path)?;
    write(&path.join("config.json"), &serde_json::to_vec(&spec)?, 0o600)?;
    Bundle::new(path)
}

/// Removes the bundles of containers that have been deleted: what is left of one that has not is told by a
/// record in it. One that is being made has that before anything is waited for.
fn sweep(containers: &Path) -> Result<()> {
    for entry in fs::read_dir(containers).context("list the containers' bundles")? {
        let path = entry.context("list the containers' bundles")?.path();
        if !shim_runc::has_record(&Bundle::new(&path)?) {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Where a container's bundle is.
pub(super) fn member(folder: &Path, id: &ContainerId) -> PathBuf {
    folder.join("containers").join(id)
}

fn first(ground: &Ground<'_>) -> Value {
    let mut network = json!({ "type": "network" });
    if let Some(netns) = ground.netns {
        network["path"] = json!(netns);
    }
    let mut annotations = hints(ground.folder);
    annotations.insert(KIND.to_owned(), json!("sandbox"));
    annotations.insert(POD.to_owned(), json!(ground.id.as_str()));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/pause"], "cwd": "/", "user": { "uid": 65534, "gid": 65534 },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": ground.hostname,
        "annotations": annotations,
        "linux": {
            "namespaces":
                [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, network],
            "cgroupsPath": ground.cgroup,
            "sysctl": ground.sysctls,
        },
    })
}

/// By these runsc knows a mount that all containers of the pod share; the first has to have them.
fn hints(folder: &Path) -> Map<String, Value> {
    let hint = |key: &str, value: Value| (format!("dev.gvisor.spec.mount.shm.{key}"), value);
    let source = json!(folder.join("shm"));
    Map::from_iter([
        hint("source", source),
        hint("type", json!("tmpfs")),
        hint("share", json!("pod")),
    ])
}

fn prepare(spec: &mut Value, folder: &Path, pod: &ContainerId, theirs: &Bundle) -> Result<()> {
    let root = object(&mut spec["root"], "root")?;
    let path = root.get("path").and_then(Value::as_str).unwrap_or("rootfs");
    // What is relative is so to containerd's bundle.
    let path = json!(theirs.path().join(path));
    root.insert("path".to_owned(), path);
    let is_read_only = root.get("readonly") == Some(&Value::Bool(true));
    let annotations = object(&mut spec["annotations"], "annotations")?;
    annotations.extend(hints(folder));
    annotations.insert(KIND.to_owned(), json!("container"));
    annotations.insert(POD.to_owned(), json!(pod.as_str()));
    let linux = object(&mut spec["linux"], "linux")?;
    // The pod's process is in the pod's cgroup, and all of its containers with it.
    linux.remove("cgroupsPath");
    // What has a path is the pod's process's, which it is in anyway.
    let namespaces = list(linux.entry("namespaces").or_insert(Value::Null), "linux.namespaces")?;
    namespaces.retain(|one| one["path"].as_str().is_none_or(str::is_empty));
    let mounts = list(&mut spec["mounts"], "mounts")?;
    let bind = |source: &Path, target: &str, how: &str| json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", how] });
    for (name, target) in SHARED {
        let source = folder.join("files").join(name);
        if source.exists() && !mounts.iter().any(|mount| is_at(mount, target)) {
            mounts.push(bind(&source, target, if is_read_only { "ro" } else { "rw" }));
        }
    }
    if let Some(mount) = mounts.iter_mut().find(|mount| is_at(mount, SHM)) {
        *mount = bind(&folder.join("shm"), SHM, "rw");
    }
    Ok(())
}

fn is_at(mount: &Value, target: &str) -> bool {
    mount["destination"].as_str().is_some_and(|at| Path::new(at) == Path::new(target))
}

/// What may be missing is made.
fn object<'a>(value: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| Error::invalid(format!("{name} is no JSON object")))
}

fn list<'a>(value: &'a mut Value, name: &str) -> Result<&'a mut Vec<Value>> {
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or_else(|| Error::invalid(format!("{name} is no JSON array")))
}

fn make(path: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o711).recursive(true).create(path);
    made.with_context(|| format!("make {}", path.display()))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    let written = || {
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(mode).open(path)?;
        // Whatever the shim's umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)
    };
    written().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(mut spec: Value) -> Result<Value> {
        let dir = tempfile::tempdir().unwrap();
        let files = HashMap::from([("hosts".to_owned(), b"127.0.0.1\tlocalhost\n".to_vec())]);
        write_files(dir.path(), &files).unwrap();
        let theirs = Bundle::new("/b").unwrap();
        let pod = ContainerId::parse("p").unwrap();
        prepare(&mut spec, dir.path(), &pod, &theirs)?;
        let text = serde_json::to_string(&spec)?.replace(dir.path().to_str().unwrap(), "/f");
        Ok(serde_json::from_str(&text)?)
    }

    #[test]
    fn a_container_is_in_its_pod_and_over_containerds_bundle() {
        let spec = prepared(json!({
            "root": { "path": "rootfs", "readonly": true },
            "mounts": [{ "destination": "/dev/shm", "type": "tmpfs", "source": "shm" }],
            "linux": {
                "cgroupsPath": "a.slice:cri:c",
                "namespaces": [{ "type": "pid" }, { "type": "network", "path": "/proc/1/ns/net" }],
            },
        }))
        .unwrap();
        assert_eq!(spec["root"], json!({ "path": "/b/rootfs", "readonly": true }));
        assert_eq!(spec["annotations"][KIND], "container");
        assert_eq!(spec["annotations"][POD], "p");
        assert_eq!(spec["linux"], json!({ "namespaces": [{ "type": "pid" }] }));
        let mounts = json!([
            { "destination": "/dev/shm", "type": "bind", "source": "/f/shm", "options": ["rbind", "rw"] },
            { "destination": "/etc/hosts", "type": "bind", "source": "/f/files/hosts",
              "options": ["rbind", "ro"] },
        ]);
        assert_eq!(spec["mounts"], mounts);
    }

    #[test]
    fn what_a_container_has_of_its_own_stays() {
        let own = json!([{ "destination": "/etc/hosts/", "type": "bind", "source": "/mine" }]);
        let spec = prepared(json!({ "mounts": own.clone() })).unwrap();
        assert_eq!(spec["mounts"], own);
        assert_eq!(spec["root"]["path"], "/b/rootfs");
    }

    #[test]
    fn what_is_of_another_kind_is_named() {
        for (spec, name) in [
            (json!({ "mounts": {} }), "mounts"),
            (json!({ "root": 1 }), "root"),
            (json!({ "linux": { "namespaces": "x" } }), "linux.namespaces"),
        ] {
            assert!(prepared(spec).unwrap_err().to_string().contains(name), "{name}");
        }
    }
}
