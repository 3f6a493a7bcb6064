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
    let v1 = |asked: &&str| {
        entries(theirs).find(|(names, _)| names.split(',').any(|name| name == *asked))
    };
    let unified = || entries(theirs).find(|(names, _)| names.is_empty());
    let (hierarchy, path) = ASKED.iter().find_map(v1).or_else(unified)?;
    let own = entries(ours).find(|(names, _)| *names == hierarchy)?.1;
    let is_above = path == "/"
        || own.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    (!is_above).then_some(path)
}

/// The controllers and the path of each line.
fn entries(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_the_containers_own_or_none() {
        let ours = "2:cpu,cpuacct:/a\n1:memory:/a/shim\n0::/\n";
        for (theirs, expected) in [
            ("2:cpu,cpuacct:/b\n1:memory:/ns/c1\n0::/\n", Some("/ns/c1")),
            ("2:cpu,cpuacct:/b\n0::/\n", Some("/b")),
            // The shim's own, one above it, the root: others live there.
            ("1:memory:/a/shim\n", None),
            ("1:memory:/a\n", None),
            ("1:memory:/\n", None),
            ("1:memory:/a/sh\n", Some("/a/sh")),
            ("1:memory:/a/shim/c1\n", Some("/a/shim/c1")),
            ("1:memory:/with:colon\n", Some("/with:colon")),
            ("9:net_cls:/x\n", None),
            ("", None),
        ] {
            assert_eq!(apart(theirs, ours), expected, "{theirs}");
        }
        assert_eq!(apart("0::/slice/c1.scope\n", "0::/system.slice/c\n"), Some("/slice/c1.scope"));
        assert_eq!(apart("0::/system.slice\n", "0::/system.slice/c\n"), None);
    }

    #[test]
    fn a_plain_process_is_no_sandbox() {
        let own = Pid::new(std::process::id().cast_signed()).unwrap();
        assert!(!is_sandbox(own));
    }
}
