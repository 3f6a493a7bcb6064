//! The pod's network, handed over to the guest.
//!
//! CNI has made it: a namespace, and in it interfaces with addresses and routes. Each gets a tap beside
//! it, and what comes in at one goes out at the other; the guest's interface takes the hardware address
//! of the pod's, and all that was configured there (`scan` reads it, the guest sets it). The tap goes to
//! the machine as an open file: the machine itself has no network at all.
//!
//! ```text
//! host ── veth ── eth0 ⇄ tap0 ── file ── machine ── eth0 in the guest
//!                 └─ the pod's namespace ─┘
//! ```

mod join;
mod scan;

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use serde::{Deserialize, Serialize};
use shim_core::{Context, Error, Kind, Result};
use shim_protos::guest;

use crate::journal::{Effect, Journal};

/// The pod's network as the guest is to have it.
#[derive(Debug, Default)]
pub struct Network {
    /// One for each interface.
    pub taps: Vec<Tap>,
    /// What the guest sets.
    pub interfaces: Vec<guest::Interface>,
    /// What the guest sets, in this order.
    pub routes: Vec<guest::Route>,
    /// What somebody has set for good.
    pub neighbours: Vec<guest::Neighbour>,
}

/// The machine's end of an interface.
#[derive(Debug)]
pub struct Tap {
    /// Frames behind virtio's header.
    pub file: OwnedFd,
    /// The hardware address of the guest's interface.
    pub mac: [u8; 6],
}

/// What is made in a pod's namespace: taps go with their files, filters stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    netns: PathBuf,
    interfaces: Vec<String>,
}

/// Reads a namespace and joins each of its interfaces with a tap.
///
/// # Errors
/// `FailedPrecondition` when the namespace is the host's own, whose interfaces nobody may take; else what
/// could not be read or made.
pub fn hand_over(netns: &Path, journal: &Journal) -> Result<Network> {
    refuse_own(netns)?;
    within(netns, async |handle| {
        let found = scan::scan(handle).await?;
        let interfaces = found.links.iter().map(|link| link.name.clone()).collect();
        journal.note(&Effect::Network(Trace { netns: netns.to_owned(), interfaces }))?;
        let mut taps = Vec::new();
        for (number, link) in found.links.iter().enumerate() {
            let file = join::join(handle, link, number)
                .await
                .with_context(|| format!("join {} with a tap", link.name))?;
            taps.push(Tap { file, mac: link.mac });
        }
        Ok(found.into_network(taps))
    })
    .with_context(|| format!("the pod's network in {}", netns.display()))
}

/// Reads what is configured in a namespace, and makes nothing there.
///
/// # Errors
/// As [`hand_over`].
pub fn look(netns: &Path) -> Result<Vec<guest::Interface>> {
    refuse_own(netns)?;
    within(netns, async |handle| Ok(scan::scan(handle).await?.into_network(Vec::new()).interfaces))
        .with_context(|| format!("the pod's network in {}", netns.display()))
}

impl Trace {
    /// Takes the filters away. A namespace that is gone has taken them with it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn undo(&self) -> Result<()> {
        if !self.netns.exists() {
            return Ok(());
        }
        within(&self.netns, async |handle| join::part(handle, &self.interfaces).await)
            .with_context(|| format!("the pod's network in {}", self.netns.display()))
    }
}

fn refuse_own(netns: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let look = |path: &Path| {
        let meta = path.metadata().with_context(|| format!("find {}", path.display()))?;
        Ok::<_, Error>((meta.dev(), meta.ino()))
    };
    if look(netns)? == look(Path::new("/proc/self/ns/net"))? {
        let why = "the host's own network can't be handed over to a guest";
        return Err(Error::new(Kind::FailedPrecondition, why));
    }
    Ok(())
}

/// Runs something in a network namespace, on a thread of its own: a thread is in one at a time, and
/// others are not to be.
fn within<T: Send>(netns: &Path, work: impl AsyncFnOnce(&Handle) -> Result<T> + Send) -> Result<T> {
    let file = File::open(netns).with_context(|| format!("open {}", netns.display()))?;
    let run = || {
        setns(&file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("enter {}", netns.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("make a runtime")?.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("open netlink")?;
            tokio::spawn(connection);
            work(&handle).await
        })
    };
    thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err(Error::other("the thread in the network namespace died")))
}

/// A refusal of the kernel's, as an error of ours.
fn refused(err: rtnetlink::Error) -> Error {
    match &err {
        rtnetlink::Error::NetlinkError(message) => {
            Error::from(io::Error::from_raw_os_error(-message.raw_code()))
        }
        _ => Error::other(err.to_string()),
    }
}
