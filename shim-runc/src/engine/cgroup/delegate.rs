//! Handing a cgroup of v2 to the container's user, who may divide it then (the OCI runtime spec's
//! `config-linux.md`, "Cgroup ownership").

use std::{fs, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    unistd::{Uid, fchownat},
};
use shim_core::{Context, Result};

use super::{Cgroup, dir::Dir};

/// Lists the files whose owner may change with the directory's: no limit is among them.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// Those, where the kernel has no list.
const FILES: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";

/// Hands the container's directory of v2 to a user; v1 is the host's alone.
pub(super) fn give(cgroup: &Cgroup, uid: u32) -> Result<()> {
    let Some(unified) = &cgroup.hierarchies.unified else { return Ok(()) };
    let path = unified.root.join(cgroup.path.relative());
    let named = || format!("give {} to user {uid}", path.display());
    let dir = Dir::open(&path).with_context(named)?;
    let list = fs::read_to_string(LIST).unwrap_or_else(|_| FILES.to_owned());
    let own =
        |file: &str, flags| fchownat(dir.as_fd(), file, Some(Uid::from_raw(uid)), None, flags);
    own("", AtFlags::AT_EMPTY_PATH).with_context(named)?;
    for file in list.lines().filter(|file| !file.is_empty() && !file.contains('/')) {
        match own(file, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // The list is of all that there may be; memory.oom.group belongs to a controller.
            Err(Errno::ENOENT) => {}
            given => given.with_context(|| format!("{}, {file}", named()))?,
        }
    }
    Ok(())
}
