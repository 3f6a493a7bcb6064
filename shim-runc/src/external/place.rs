//! Where the runtime has put a container: its cgroup, and whether its processes are the host's.

use std::fs;

use shim_core::model::Pid;

use crate::engine::cgroup::{Cgroup, CgroupPath};

/// The v1 hierarchies that are asked for the path, the first of them that there is.
const ASKED: [&str; 4] = ["memory", "pids", "cpu", "freezer"];

/// How gVisor's runsc calls the process in which a container runs.
const SANDBOX: &[u8] = b"runsc-sandbox";

/// The cgroup of a process that has been made for a container. None where it has stayed in one that
/// the shim is in, too: others' processes are counted there.
pub(super) fn cgroup(pid: Pid) -> Option<Cgroup> {
    let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = CgroupPath::parse(apart(&theirs, &ours)?).ok()?;
    Cgroup::at(path).ok()
}

/// Whether a process stands for others that the host's kernel does not know.
pub(super) fn is_sandbox(pid: Pid) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(SANDBOX))
}

/// The path in one `/proc/PID/cgroup` (cgroups(7)), unless it leads to the other's or above.
fn apart<'a>(theirs: &'a str, ours: &str) -> Option<&'a str> {
    let path = path(theirs)?;
    let own = path_of(ours, controllers(theirs, path)?).unwrap_or_default();
    let is_above = own
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path == "/");
    (!is_above).then_some(path)
}

fn path(text: &str) -> Option<&str> {
    let v1 = |asked: &&str| {
        let mut found = entries(text);
        found.find(|(names, _)| names.split(',').any(|name| name == *asked))
    };
    let found = ASKED.iter().find_map(v1).or_else(|| entries(text).find(|(n, _)| n.is_empty()));
    found.map(|(_, path)| path)
}

/// The hierarchy in which a path stands.
fn controllers<'a>(text: &'a str, path: &str) -> Option<&'a str> {
    entries(text).find(|(_, other)| *other == path).map(|(names, _)| names)
}

fn path_of<'a>(text: &'a str, names: &str) -> Option<&'a str> {
    entries(text).find(|(other, _)| *other == names).map(|(_, path)| path)
}

fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}
