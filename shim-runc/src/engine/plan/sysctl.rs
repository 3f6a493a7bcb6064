//! Kernel parameters. Only those that a namespace of the container holds may be set: the others
//! are the host's.

use std::collections::HashMap;

use shim_core::{Error, Result};

use super::{Draft, Namespaces};
use crate::engine::{step::Step, wire::Text};

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn set(
    draft: &mut Draft,
    sysctl: Option<&HashMap<String, String>>,
    namespaces: &Namespaces,
) -> Result<()> {
    let mut all: Vec<_> = sysctl.into_iter().flatten().collect();
    all.sort();
    for (key, value) in all {
        let key = dotted(key);
        let kind = namespace_of(&key)?;
        if !namespaces.has(kind) {
            let why = format!("sysctl {key} is the host's without a namespace of its kind");
            return Err(Error::invalid(why));
        }
        let file = format!("sys/{}", swapped(&key));
        if file.split('/').any(|name| name.is_empty() || name == "." || name == "..") {
            return Err(Error::invalid(format!("sysctl {key} is no name of a kernel parameter")));
        }
        draft.step(Step::SetSysctl { file: Text::new(file)?, value: Text::new(value)? });
    }
    Ok(())
}

fn namespace_of(key: &str) -> Result<i32> {
    match key {
        key if IPC.contains(&key) || key.starts_with("fs.mqueue.") => Ok(libc::CLONE_NEWIPC),
        key if key.starts_with("net.") => Ok(libc::CLONE_NEWNET),
        "kernel.domainname" => Ok(libc::CLONE_NEWUTS),
        "kernel.hostname" => Err(Error::invalid("sysctl kernel.hostname: use the spec's hostname")),
        _ => Err(Error::invalid(format!("sysctl {key} is not in a separate kernel namespace"))),
    }
}

/// The name with dots. sysctl(8) takes both kinds: the first separator tells which one parts, and
/// the other is part of a name, as in `net/ipv4/conf/eth0.100/rp_filter`.
fn dotted(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'/' => swapped(key),
        _ => key.to_owned(),
    }
}

fn swapped(key: &str) -> String {
    let swap = |char| match char {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    key.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_mean_the_same() {
        assert_eq!(dotted("net.ipv4.ip_forward"), "net.ipv4.ip_forward");
        assert_eq!(dotted("net/ipv4/conf/eth0.100/x"), "net.ipv4.conf.eth0/100.x");
        assert_eq!(swapped("net.ipv4.conf.eth0/100.x"), "net/ipv4/conf/eth0.100/x");
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        assert_eq!(namespace_of("kernel.shmmax").unwrap(), libc::CLONE_NEWIPC);
        assert_eq!(namespace_of("net.core.somaxconn").unwrap(), libc::CLONE_NEWNET);
        for host in ["kernel.panic", "vm.swappiness", "kernel.hostname", "netx"] {
            assert!(namespace_of(host).is_err(), "{host}");
        }
    }
}
