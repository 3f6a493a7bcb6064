//! On what a page's figures were taken, and with which peers.

use std::{fs, process::Command, thread};

use anyhow::Result;

use crate::peers::Peers;

/// One paragraph, without anything that is only this machine's name.
pub(super) fn describe(peers: &Peers) -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = release.trim().split('-').next().unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kibibytes: u64 = memory.split_whitespace().next().unwrap_or("0").parse().unwrap_or(0);
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let hierarchies = mounts.lines().filter(|line| line.contains(" cgroup ")).count();
    let version = |name: &str, flag: &str| -> Result<String> {
        Ok(version_in(&printed(peers.path(name)?.as_os_str(), flag)))
    };
    let (go, rust) = (version("engine2", "-v")?, version("rust", "-v")?);
    let (runc, crun) = (version("runc", "--version")?, version("crun", "--version")?);
    Ok(format!(
        "Linux {kernel} on {cpus} processors ({model}), {} GiB of memory, {hierarchies} cgroup \
         hierarchies of version 1. containerd and its Go shim are {go}, the Rust shim is \
         `containerd-runc-shim` {rust} of the Rust registry, both with runc {runc} and with crun \
         {crun}.",
        kibibytes.div_ceil(1 << 20),
    ))
}

/// The first value of that name in one of the kernel's lists.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn printed(program: &std::ffi::OsStr, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// The first word that looks like a version, without what a distribution adds.
fn version_in(text: &str) -> String {
    let words = text.split_whitespace();
    let mut versions = words
        .filter(|word| word.starts_with(|sign: char| sign.is_ascii_digit()) && word.contains('.'));
    let version = versions.next().unwrap_or("of an unknown version");
    version.split('+').next().unwrap_or(version).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_print() {
        assert_eq!(version_in("containerd-shim-runc-v2:\n  Version:  2.1.9+unknown\n"), "2.1.9");
        assert_eq!(version_in("runc version 1.1.5+ds1\nspec: 1.0.2"), "1.1.5");
        assert_eq!(version_in("crun version 1.28\ncommit: x"), "1.28");
        assert_eq!(version_in(""), "of an unknown version");
    }
}
