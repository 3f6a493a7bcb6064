//! Joining an interface with a tap: what comes in at one goes out at the other.

use std::{os::fd::OwnedFd, time::Duration};

use futures::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::{Handle, LinkUnspec, packet_route::tc::TcHandle};
use shim_core::{Context, Error, Result};

use super::{refused, scan::Link};

/// How often a filter is tried that the kernel is busy with, and how long the first pause is; each is
/// twice the one before.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(2);

/// Every kind of frame: linux/if_ether.h.
const ALL: u16 = 0x0003_u16.to_be();

/// Makes a tap for a link and joins the two.
pub(super) async fn join(handle: &Handle, link: &Link, number: usize) -> Result<OwnedFd> {
    let name = format!("shimtap{number}");
    let file = shim_runc::open_tap(&name)?;
    let tap = index(handle, &name).await?;
    let set = LinkUnspec::new_with_index(tap).mtu(link.mtu).up().build();
    handle.link().set(set).execute().await.map_err(refused).context("raise the tap")?;
    redirect(handle, link.index, tap).await.with_context(|| format!("from {}", link.name))?;
    redirect(handle, tap, link.index).await.context("from the tap")?;
    Ok(file)
}

/// Takes the filters of interfaces away; their taps are gone with their files, or go now.
pub(super) async fn part(handle: &Handle, interfaces: &[String]) -> Result<()> {
    for name in interfaces {
        let Ok(index) = index(handle, name).await else { continue };
        let mut request = handle.qdisc().del(ifindex(index)?);
        request.message_mut().header.parent = TcHandle::INGRESS;
        match request.execute().await.map_err(errno) {
            // There is none: EINVAL of older kernels, too.
            Ok(()) | Err(Some(Errno::ENOENT | Errno::EINVAL)) => {}
            Err(err) => {
                let err = err.map_or_else(|| Error::other("netlink failed"), Error::from);
                return Err(err.context(format!("take the filter of {name} away")));
            }
        }
    }
    Ok(())
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<()> {
    let added = handle.qdisc().add(ifindex(from)?).ingress().execute().await;
    added.map_err(refused).context("add an ingress queue")?;
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match filter(handle, from, to).await {
            Err(rtnetlink::Error::NetlinkError(err)) if -err.raw_code() == libc_busy() => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done.map_err(refused).context("add a filter"),
        }
    }
    filter(handle, from, to).await.map_err(refused).context("add a filter")
}

/// u32 matches any frame where the kernel has no filter of its own for that.
async fn filter(handle: &Handle, from: u32, to: u32) -> std::result::Result<(), rtnetlink::Error> {
    let from = i32::try_from(from).map_err(|_| rtnetlink::Error::RequestFailed)?;
    let filter = handle.traffic_filter(from).add().parent(0xffff_0000).priority(1).protocol(ALL);
    filter.redirect(to)?.execute().await
}

fn libc_busy() -> i32 {
    Errno::EBUSY as i32
}

async fn index(handle: &Handle, name: &str) -> Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.map_err(refused);
    let link = link.with_context(|| format!("find the link {name}"))?;
    link.map(|link| link.header.index)
        .ok_or_else(|| Error::not_found(format!("there is no link {name}")))
}

fn ifindex(index: u32) -> Result<i32> {
    i32::try_from(index).map_err(|_| Error::other(format!("{index} is no link's index")))
}

fn errno(err: rtnetlink::Error) -> Option<Errno> {
    match err {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw(-message.raw_code())),
        _ => None,
    }
}
