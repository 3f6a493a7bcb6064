//! The network of a lane whose pods have addresses, and nobody else's business.
//!
//! The lane has a network namespace of its own ([`isolation::with_own_network`]). In it CNI's plugins
//! make a bridge at the first pod, which goes with the lane, and a pair of links a pod, which go
//! with the pod. What they keep in files stays below [`isolation::DIR`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::debs::{Deb, Store};
use crate::isolation;

/// Where libcni keeps what it has added. The place is compiled in, and below it the machine has its
/// own files, so in a lane they are covered.
const STATE: &str = "/var/lib";

/// How each address of a pod begins.
pub const SUBNET: &str = "10.88.7.";

/// Readies the lane for pods: its loopback, and CNI's configuration.
///
/// # Errors
/// When a mount is refused, or a program missing.
pub fn prepare(store: &Store) -> Result<()> {
    let busybox = store.unpacked(Deb::BUSYBOX)?.join("bin/busybox");
    let status = Command::new(busybox).args(["ip", "link", "set", "lo", "up"]).status()?;
    ensure!(status.success(), "ip link set lo up: {status}");

    let (upper, work) = (dir().join("state"), dir().join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir(&work)?;
    let options =
        format!("lowerdir={STATE},upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("cni"), STATE, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("cover the machine's /var/lib")?;

    let range = format!("{SUBNET}0/24");
    let ipam = json!({
        "type": "host-local", "ranges": [[{ "subnet": range }]], "routes": [{ "dst": "0.0.0.0/0" }],
        "dataDir": dir().join("addresses"),
    });
    // Nobody has to be reached from here, so nothing is masqueraded, and no firewall rule made.
    let bridge = json!({ "type": "bridge", "bridge": "it0", "isGateway": true, "ipam": ipam });
    let network = json!({ "cniVersion": "0.4.0", "name": "it", "plugins": [bridge] });
    fs::create_dir(networks())?;
    fs::write(networks().join("10-it.conflist"), network.to_string())?;
    Ok(())
}

/// CNI's folder of configuration.
#[must_use]
pub fn networks() -> PathBuf {
    dir().join("net.d")
}

/// CNI's folder of programs.
///
/// # Errors
/// When the package has not been fetched.
pub fn plugins(store: &Store) -> Result<PathBuf> {
    Ok(store.unpacked(Deb::CNI)?.join("usr/lib/cni"))
}

/// The network interfaces of this namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn links() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev").context("read the list of interfaces")?;
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.collect())
}

fn dir() -> PathBuf {
    Path::new(isolation::DIR).join("cni")
}
