//! Makes the guest the pod that it is to be.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
    unistd::sethostname,
};
use shim_core::{Context, Error, Result};
use shim_protos::guest::SetupRequest;

use super::{Ground, net, places::Places};

/// The longest host name the kernel takes.
const HOSTNAME_LIMIT: usize = 64;

/// Does all that is asked for. What it can check it checks before it changes anything.
pub(super) async fn set_up(places: &Places, request: &SetupRequest, ground: Ground) -> Result<()> {
    if request.hostname.len() > HOSTNAME_LIMIT {
        return Err(Error::invalid(format!("the host name {:?} is too long", request.hostname)));
    }
    let sysctls: Vec<_> = request
        .sysctls
        .iter()
        .map(|(name, value)| Ok((name, sysctl(name)?, value)))
        .collect::<Result<_>>()?;
    request.files.keys().try_for_each(|name| check_file(name))?;
    let network = net::Network::parse(request)?;

    if request.time != 0 {
        set_time(request.time, ground)?;
    }
    if !request.hostname.is_empty() {
        sethostname(&request.hostname).context("set the host name")?;
    }
    if !request.share_tag.is_empty() {
        let (share, tag) = (places.share(), request.share_tag.as_str());
        mount(Some(tag), &share, Some("virtiofs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount the share {tag:?}"))?;
    }
    if request.shm > 0 {
        let (shm, options) = (places.shm(), format!("mode=1777,size={}", request.shm));
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some("shm"), &shm, Some("tmpfs"), flags, Some(options.as_str()))
            .context("mount the pod's /dev/shm")?;
    }
    for (name, content) in &request.files {
        let path = places.file(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    network.make().await?;
    // Some are there for each interface: they come after those.
    for (name, path, value) in sysctls {
        fs::write(&path, value).with_context(|| format!("set {name} to {value:?}"))?;
    }
    Ok(())
}

/// Sets the clock, to nanoseconds since 1970.
pub(super) fn set_time(time: i64, ground: Ground) -> Result<()> {
    let since = u64::try_from(time).map_err(|_| Error::invalid(format!("{time} is no time")))?;
    match ground {
        Ground::Machine => {
            let time = TimeSpec::from_duration(Duration::from_nanos(since));
            clock_settime(ClockId::CLOCK_REALTIME, time).context("set the clock")
        }
        Ground::Process => Ok(()),
    }
}

/// The file of a setting: one of those that CRI lets a pod have, which are all of the pod's own namespaces.
fn sysctl(name: &str) -> Result<PathBuf> {
    let is_pods = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || name == "kernel.sem";
    let path = name.replace('.', "/");
    let is_path = path.split('/').all(|part| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        !part.is_empty() && part.bytes().all(plain)
    });
    if !is_pods || !is_path {
        return Err(Error::invalid(format!("a pod can't have the sysctl {name:?}")));
    }
    Ok(Path::new("/proc/sys").join(path))
}

fn check_file(name: &str) -> Result<()> {
    let is_name = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_name { Ok(()) } else { Err(Error::invalid(format!("{name:?} is no file's name"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctls_are_those_of_a_pod() {
        let path = sysctl("net.ipv4.ip_unprivileged_port_start").unwrap();
        assert_eq!(path, Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start"));
        for good in ["kernel.shmmax", "kernel.msgmnb", "kernel.sem", "fs.mqueue.msg_max"] {
            assert!(sysctl(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "kernel.core_pattern",
            "kernel.semaphore",
            "net.",
            "net...kernel.core_pattern",
            "net./../kernel/core_pattern",
            "vm.swappiness",
            "fs.mqueue./",
        ] {
            assert!(sysctl(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_have_plain_names() {
        for good in ["hosts", "resolv.conf", "a_b-c"] {
            assert!(check_file(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "a b", &"x".repeat(65)] {
            assert!(check_file(bad).is_err(), "{bad}");
        }
    }
}
