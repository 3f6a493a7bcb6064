//! Network interfaces of the host that move into a container's network namespace (`linux.netDevices` of
//! the OCI runtime spec): under another name where one is given, with the addresses that they have, and
//! up.
//!
//! When the namespace ends, the kernel gives a hardware's interface back to the host and removes others.

mod netlink;

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};
use oci_spec::runtime::Linux;
use shim_core::{Context, Error, Result, model::Pid};

use self::netlink::Netlink;

/// The longest name that the kernel takes, `IFNAMSIZ` without its end.
const LONGEST: usize = 15;

/// Interfaces, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moves {
    interfaces: Vec<Move>,
    /// The namespace, where it is not the process's own.
    namespace: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    /// Its name on the host.
    from: String,
    /// Its name in the container.
    to: String,
}

impl Moves {
    /// Reads what a spec wants to move into a namespace: a new one, or the one at a path.
    ///
    /// # Errors
    /// `InvalidArgument` for names that no interface can have, or two of which are the same.
    pub(crate) fn of(linux: &Linux, namespace: Option<PathBuf>) -> Result<Option<Self>> {
        let mut interfaces = Vec::new();
        for (from, device) in linux.net_devices().iter().flatten() {
            let to = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(from);
            for name in [from.as_str(), to] {
                if !is_name(name) {
                    let why = format!("linux.netDevices: {name:?} is no interface's name");
                    return Err(Error::invalid(why));
                }
            }
            interfaces.push(Move { from: from.clone(), to: to.to_owned() });
        }
        // The spec has them in no order; errors are to be the same each time.
        interfaces.sort_by(|one, other| one.to.cmp(&other.to));
        if let Some(two) = interfaces.windows(2).find(|two| two[0].to == two[1].to) {
            let why = format!("linux.netDevices: two interfaces are to be {}", two[0].to);
            return Err(Error::invalid(why));
        }
        Ok((!interfaces.is_empty()).then_some(Self { interfaces, namespace }))
    }

    /// Moves them, for a process that is in its new namespace if it has one.
    ///
    /// # Errors
    /// Which interface, and the kernel's reason.
    pub(crate) fn make(&self, pid: Pid) -> Result<()> {
        let path = self.namespace.clone();
        let path = path.unwrap_or_else(|| PathBuf::from(format!("/proc/{pid}/ns/net")));
        let target = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let (here, there) = (Netlink::open()?, open_in(target.as_fd())?);
        self.interfaces.iter().try_for_each(|one| {
            let moved = one.make(&here, &there, target.as_fd());
            moved.with_context(|| format!("move network interface {} to {}", one.from, one.to))
        })
    }
}

impl Move {
    fn make(&self, here: &Netlink, there: &Netlink, target: BorrowedFd<'_>) -> Result<()> {
        let index = if_nametoindex(self.from.as_str())?;
        let addresses = here.addresses(index).context("list its addresses")?;
        here.hand_over(index, &self.to, target.as_raw_fd())?;
        let index = there.index(&self.to).context("find it in the container")?;
        for address in addresses.iter().filter(|address| address.is_kept()) {
            there.add(index, address).context("give it its address")?;
        }
        there.raise(index).context("bring it up")
    }
}

/// Opens a socket in another namespace. Only a thread can go there, and this one has to stay.
fn open_in(namespace: BorrowedFd<'_>) -> Result<Netlink> {
    let opened = std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
            Netlink::open()
        });
        there.join()
    });
    opened.map_err(|_| Error::other("the thread in the network namespace has died"))?
}

/// As the kernel's `dev_valid_name` has it; it takes `%` for a number that it chooses.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..=LONGEST).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn moves(devices: Value) -> Result<Option<Moves>> {
        let linux = serde_json::from_value(json!({ "netDevices": devices })).unwrap();
        Moves::of(&linux, None)
    }

    #[test]
    fn interfaces_keep_their_names_unless_told() {
        let moves = moves(json!({ "eth1": { "name": "uplink" }, "eth0": {} })).unwrap().unwrap();
        let names: Vec<_> =
            moves.interfaces.iter().map(|one| (one.from.as_str(), one.to.as_str())).collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "uplink")]);
    }

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        assert!(moves(json!({})).unwrap().is_none());
        for bad in ["", "sixteen-and-more", "..", "a/b", "a b", "eth%d", "eth0:1"] {
            assert!(moves(json!({ bad: {} })).is_err(), "{bad}");
            assert!(bad.is_empty() || moves(json!({ "eth0": { "name": bad } })).is_err(), "{bad}");
        }
        let twice = json!({ "a": { "name": "x" }, "b": { "name": "x" } });
        assert!(moves(twice).unwrap_err().to_string().contains("are to be x"));
    }
}
