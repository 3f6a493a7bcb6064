//! Reading `config.json` as this backend needs it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime::{
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespaceType,
    LinuxResources, Mount, Spec,
};
use serde_json::Value;
use shim_core::{Context, Error, Result, model::Bundle};

use crate::{
    engine::{
        plan::{self, Namespaces},
        seccomp::{Cache, Filter},
    },
    rootless,
};

const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

/// Reads a bundle's spec.
///
/// # Errors
/// As [`text`] and [`parse`].
pub(crate) fn read(bundle: &Bundle) -> Result<Box<Spec>> {
    parse(bundle, &text(bundle)?)
}

/// Reads a bundle's `config.json`.
///
/// # Errors
/// `InvalidArgument` when it can't be read.
pub(crate) fn text(bundle: &Bundle) -> Result<Vec<u8>> {
    let path = path(bundle);
    fs::read(&path).map_err(|err| Error::invalid(format!("read {}: {err}", path.display())))
}

/// Parses the text of a bundle's spec. Capabilities that have no number are left out with a warning, as
/// the OCI runtime spec asks; the parser alone would refuse them.
///
/// # Errors
/// `InvalidArgument` when it is not an OCI runtime spec.
pub(crate) fn parse(bundle: &Bundle, text: &[u8]) -> Result<Box<Spec>> {
    let invalid = |err| Error::invalid(format!("parse {}: {err}", path(bundle).display()));
    let err = match serde_json::from_slice(text) {
        Ok(spec) => return Ok(spec),
        Err(err) => err,
    };
    let Ok(mut spec) = serde_json::from_slice::<Value>(text) else { return Err(invalid(err)) };
    let unknown = spec
        .pointer_mut("/process/capabilities")
        .map(drop_unknown_capabilities)
        .unwrap_or_default();
    if unknown.is_empty() {
        return Err(invalid(err));
    }
    log::warn!("unknown capabilities are left out: {}", unknown.join(", "));
    // Through text: a second way to read all of a spec would be a part of the program that every shim
    // has in memory.
    serde_json::to_vec(&spec).and_then(|text| serde_json::from_slice(&text)).map_err(invalid)
}

fn path(bundle: &Bundle) -> PathBuf {
    bundle.path().join("config.json")
}

/// The filter of a spec's profile, if it has one.
///
/// # Errors
/// `InvalidArgument` for a profile that makes no sense.
pub(crate) fn filter(spec: &Spec, filters: &Cache) -> Result<Option<Arc<Filter>>> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    profile.map(|profile| filters.compile(profile)).transpose()
}

fn drop_unknown_capabilities(capabilities: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for set in SETS {
        let Some(names) = capabilities.get_mut(set).and_then(Value::as_array_mut) else {
            continue;
        };
        names.retain(|name| {
            let Some(name) = name.as_str() else { return true };
            let is_known = plan::is_capability(name);
            if !is_known && !unknown.iter().any(|known| known == name) {
                unknown.push(name.to_owned());
            }
            is_known
        });
    }
    unknown
}

/// Whether the container gets a pid namespace of its own, with which its processes end.
pub(crate) fn has_own_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|one| {
        one.typ() == LinuxNamespaceType::Pid
            && one.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    })
}

/// The cgroup that a spec asks for.
pub(crate) fn cgroup(spec: &Spec) -> Option<&Path> {
    spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref())
}

/// The user of the host who is to own the container's cgroup: one who sees it as a root of its own, and
/// may write to it.
///
/// # Errors
/// As [`Namespaces::of`].
pub(crate) fn cgroup_owner(spec: &Spec) -> Result<Option<u32>> {
    let may_write = |mount: &Mount| {
        let is_it = matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
        is_it && !mount.options().iter().flatten().any(|option| option == "ro")
    };
    if !spec.mounts().iter().flatten().any(may_write) {
        return Ok(None);
    }
    let namespaces = Namespaces::of(spec)?;
    let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
    let owner = namespaces.outside(spec, uid).filter(|owner| *owner != 0);
    Ok(owner.filter(|_| namespaces.is_new(libc::CLONE_NEWCGROUP)))
}

/// The resources of a container: the spec's, and the devices that every container may use. One whose spec
/// lists none may use these alone.
pub(crate) fn resources(spec: &Spec) -> Result<Option<LinuxResources>> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    let listed = asked.as_ref().and_then(|asked| asked.devices().clone()).unwrap_or_default();
    // Who is not the host's root may write no rules, and needs none: a device that was made in a user
    // namespace can't be opened there.
    if listed.is_empty() && rootless::is_rootless() {
        return Ok(asked);
    }
    let mut devices = listed;
    for (kind, major, minor, access) in ALLOWED {
        devices.push(rule(kind, major, minor, access)?);
    }
    let mut resources = asked.unwrap_or_default();
    resources.set_devices(Some(devices));
    Ok(Some(resources))
}

/// As runc: any node may be made; null, zero, full, random, urandom, tty, terminals and tun be used.
const ALLOWED: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(10), Some(200), "rwm"),
];

fn rule(
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> Result<LinuxDeviceCgroup> {
    let rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
    let rule = if let Some(major) = major { rule.major(major) } else { rule };
    let rule = if let Some(minor) = minor { rule.minor(minor) } else { rule };
    rule.build().map_err(|err| Error::other(err.to_string())).context("allow a device")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> Result<Box<Spec>> {
        super::read(&Bundle::new(dir)?)
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = serde_json::to_value(Spec::default()).unwrap();
        spec["process"]["capabilities"]["bounding"] = serde_json::json!(["CAP_KILL", "CAP_TO_FLY"]);
        fs::write(dir.path().join("config.json"), spec.to_string()).unwrap();
        let spec = read(dir.path()).unwrap();
        let process = spec.process().as_ref().unwrap();
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 1);
    }

    #[test]
    fn a_cgroup_that_may_be_written_is_its_users() {
        let owner = |options: &str, uid: u32, kind: &str| {
            let spec = serde_json::json!({
                "ociVersion": "1.2.0",
                "process": { "user": { "uid": uid, "gid": 0 }, "args": ["sh"], "cwd": "/" },
                "mounts": [{ "destination": "/sys/fs/cgroup", "type": "cgroup",
                    "options": [options] }],
                "linux": { "namespaces": [{ "type": "mount" }, { "type": "user" }, { "type": kind }],
                    "uidMappings": [{ "containerID": 0, "hostID": 5000, "size": 10 }],
                    "gidMappings": [{ "containerID": 0, "hostID": 5000, "size": 10 }] },
            });
            cgroup_owner(&serde_json::from_value(spec).unwrap()).unwrap()
        };
        assert_eq!(owner("rw", 3, "cgroup"), Some(5003));
        assert_eq!(owner("ro", 3, "cgroup"), None);
        assert_eq!(owner("rw", 3, "pid"), None);
        assert_eq!(owner("rw", 30, "cgroup"), None);
    }

    #[test]
    fn a_spec_without_devices_allows_those_of_every_container_alone() {
        let devices = |linux: Value| {
            let spec = serde_json::json!({ "ociVersion": "1.2.0", "linux": linux });
            let resources = resources(&serde_json::from_value(spec).unwrap()).unwrap();
            resources.and_then(|resources| resources.devices().clone()).unwrap_or_default()
        };
        let all = serde_json::json!([{ "allow": true, "access": "rwm" }]);
        let listed = devices(serde_json::json!({ "resources": { "devices": all } }));
        assert_eq!((listed.len(), listed[0].typ()), (1 + ALLOWED.len(), None));
        let expected = if rootless::is_rootless() { 0 } else { ALLOWED.len() };
        for none in [
            serde_json::json!({}),
            serde_json::json!({ "resources": {} }),
            serde_json::json!({ "resources": { "devices": [], "pids": { "limit": 5 } } }),
        ] {
            assert_eq!(devices(none).len(), expected);
        }
    }

    #[test]
    fn a_spec_that_makes_no_sense_is_still_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "{\"process\": 1}").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
