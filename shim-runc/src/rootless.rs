//! Making containers without the rights of the host's root, as a user or as the root of a user namespace
//! (user_namespaces(7)).

use std::{fs, os::fd::BorrowedFd};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    unistd::{getegid, geteuid},
};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};
use shim_core::{Context, Error, Kind, Result};

use crate::engine;

/// What `/proc/self/uid_map` holds where nothing is mapped.
const ALL: [&str; 3] = ["0", "0", "4294967295"];

/// Whether we have less than the host's root.
#[must_use]
pub fn is_rootless() -> bool {
    !geteuid().is_root() || is_mapped()
}

/// Whether we are in a user namespace that is not the host's.
pub(crate) fn is_mapped() -> bool {
    // A kernel without user namespaces has no such file.
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps(&map))
}

/// Gets this process, which has one thread, the rights that a container's making takes: to copy mounts.
///
/// A user gets them in a user namespace. That is the container's own then, and no longer in the spec.
///
/// # Errors
/// `Unsupported` when the spec wants a user's namespace to have more than that user in it.
pub(crate) fn enter(spec: &mut Spec) -> Result<()> {
    if geteuid().is_root() {
        // Of the host's mounts only a namespace's owner may copy any.
        return match engine::may_copy_mounts() {
            Err(Errno::EPERM) => unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace"),
            _ => Ok(()),
        };
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    take_out(spec, uid, gid)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .context("make a user namespace")?;
    let write = |file: &str, text: String| {
        fs::write(file, &text).with_context(|| format!("write {text:?} to {file}"))
    };
    // Who may drop groups may get past permissions that deny something to a group.
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// The same for adding a process: a user goes into the user namespace of the container's init process.
///
/// # Errors
/// As [`enter`], or when the container is another user's.
pub(crate) fn follow(spec: &mut Spec, init: BorrowedFd<'_>) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    take_out(spec, geteuid().as_raw(), getegid().as_raw())?;
    setns(init, CloneFlags::CLONE_NEWUSER).context("join the container's user namespace")
}

/// Takes the user namespace out of a spec, if it is one that a user can make.
fn take_out(spec: &mut Spec, uid: u32, gid: u32) -> Result<()> {
    let unsupported = |why: String| Error::new(Kind::Unsupported, why);
    let linux = spec.linux_mut().as_mut();
    let linux = linux.ok_or_else(|| Error::invalid("the spec has no linux section"))?;
    let is_alone = |maps: &Option<Vec<LinuxIdMapping>>, id: u32| match maps.as_deref() {
        Some([map]) => (map.container_id(), map.host_id(), map.size()) == (0, id, 1),
        _ => false,
    };
    if !is_alone(linux.uid_mappings(), uid) || !is_alone(linux.gid_mappings(), gid) {
        let why = "a user can map nobody else: linux.uidMappings has to be 0";
        return Err(unsupported(format!("{why} to {uid}, and linux.gidMappings 0 to {gid}")));
    }
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let is_new = |kind: LinuxNamespaceType, path: bool| kind == LinuxNamespaceType::User && !path;
    let count = namespaces.len();
    namespaces.retain(|one| !is_new(one.typ(), one.path().is_some()));
    if namespaces.len() == count {
        return Err(unsupported("a user needs a user namespace in linux.namespaces".to_owned()));
    }
    linux.set_namespaces(Some(namespaces));
    linux.set_uid_mappings(None);
    linux.set_gid_mappings(None);
    Ok(())
}

fn maps(map: &str) -> bool {
    !map.split_whitespace().eq(ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_maps_nobody_else() {
        let spec = |host: u32, size: u32| -> Spec {
            let map = serde_json::json!([{ "containerID": 0, "hostID": host, "size": size }]);
            let spec = serde_json::json!({ "ociVersion": "1.2.0", "linux": {
                "namespaces": [{ "type": "user" }, { "type": "pid" }],
                "uidMappings": map, "gidMappings": map } });
            serde_json::from_value(spec).unwrap()
        };
        let mut own = spec(1000, 1);
        take_out(&mut own, 1000, 1000).unwrap();
        let linux = own.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 1);
        assert!(linux.uid_mappings().is_none());
        for mut other in [spec(1001, 1), spec(1000, 2), own] {
            let err = take_out(&mut other, 1000, 1000).unwrap_err();
            assert_eq!(err.kind(), Kind::Unsupported, "{err}");
        }
    }

    #[test]
    fn the_hosts_own_map_is_known() {
        assert!(!maps("         0          0 4294967295\n"));
        assert!(maps("         0       1000          1\n"));
        assert!(maps("0 1000 1\n1 100000 65536\n"));
        assert!(maps(""));
    }
}
