//! What is in a network namespace.

use std::{collections::HashMap, net::IpAddr};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{
            RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
            RouteType,
        },
    },
};
use shim_core::{Context, Result};
use shim_protos::guest;

use super::{Network, Tap, refused};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) links: Vec<Link>,
    routes: Vec<guest::Route>,
    neighbours: Vec<guest::Neighbour>,
}

/// An interface that the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// ADDRESS/PREFIX, each.
    addresses: Vec<String>,
}

impl Found {
    pub(super) fn into_network(self, taps: Vec<Tap>) -> Network {
        let interfaces = self.links.into_iter().map(|link| guest::Interface {
            mac: link.mac.to_vec(),
            name: link.name,
            mtu: link.mtu,
            addresses: link.addresses,
            ..Default::default()
        });
        let (routes, neighbours) = (self.routes, self.neighbours);
        Network { taps, interfaces: interfaces.collect(), routes, neighbours }
    }
}

/// Reads links that are up, and what is configured on them; the loopback is every guest's own.
pub(super) async fn scan(handle: &Handle) -> Result<Found> {
    let links = handle.link().get().execute().try_collect::<Vec<_>>().await;
    let mut links: Vec<Link> =
        links.map_err(refused).context("list the links")?.iter().filter_map(link).collect();
    links.sort_by_key(|link| link.index);
    let mut addresses = handle.address().get().execute();
    while let Some(address) =
        addresses.try_next().await.map_err(refused).context("list addresses")?
    {
        let link = links.iter_mut().find(|link| link.index == address.header.index);
        if let Some((link, address)) = link.zip(kept(&address)) {
            link.addresses.push(address);
        }
    }
    let names: HashMap<u32, String> =
        links.iter().map(|link| (link.index, link.name.clone())).collect();
    let mut routes = Vec::new();
    for all in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let mut found = handle.route().get(all).execute();
        while let Some(found) =
            found.try_next().await.map_err(refused).context("list the routes")?
        {
            routes.extend(route(&found, &names));
        }
    }
    // A gateway has to be reachable before routes over it are made.
    routes.sort_by_key(|route| !route.gateway.is_empty());
    let mut found = handle.neighbours().get().execute();
    let mut neighbours = Vec::new();
    while let Some(found) =
        found.try_next().await.map_err(refused).context("list the neighbours")?
    {
        neighbours.extend(neighbour(&found, &names));
    }
    Ok(Found { links, routes, neighbours })
}

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    if flags.contains(LinkFlags::Loopback) || !flags.contains(LinkFlags::Up) {
        return None;
    }
    let (mut name, mut mac, mut mtu) = (None, None, 1500);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found.clone()),
            LinkAttribute::Address(found) => mac = <[u8; 6]>::try_from(found.as_slice()).ok(),
            LinkAttribute::Mtu(found) => mtu = *found,
            _ => {}
        }
    }
    // One without a hardware address is a tunnel's end: it is no guest's.
    Some(Link { index: message.header.index, name: name?, mac: mac?, mtu, addresses: Vec::new() })
}

/// An address that somebody gave the interface: a link's own each kernel makes for itself.
fn kept(message: &AddressMessage) -> Option<String> {
    if message.header.scope == AddressScope::Link {
        return None;
    }
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            // The peer's, where the interface has one; the local one comes apart then.
            AddressAttribute::Address(found) => address = address.or(Some(*found)),
            AddressAttribute::Local(found) => address = Some(*found),
            _ => {}
        }
    }
    Some(format!("{}/{}", address?, message.header.prefix_len))
}

fn route(message: &RouteMessage, names: &HashMap<u32, String>) -> Option<guest::Route> {
    let header = &message.header;
    // The kernel makes those of addresses by itself.
    if header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
        || header.protocol == RouteProtocol::Kernel
    {
        return None;
    }
    let mut route = guest::Route {
        scope: u8::from(header.scope).into(),
        on_link: header.flags.contains(RouteFlags::Onlink),
        ..Default::default()
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => {
                route.destination =
                    format!("{}/{}", address(found)?, header.destination_prefix_length);
            }
            RouteAttribute::Gateway(found) => route.gateway = address(found)?.to_string(),
            RouteAttribute::PrefSource(found) => route.source = address(found)?.to_string(),
            RouteAttribute::Oif(index) => route.interface = names.get(index)?.clone(),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    if route.destination.is_empty() && route.gateway.is_empty() {
        // Of which family it is, only the header says.
        let is_six = header.address_family == rtnetlink::packet_route::AddressFamily::Inet6;
        route.destination = if is_six { "::/0" } else { "0.0.0.0/0" }.to_owned();
    }
    (!route.interface.is_empty()).then_some(route)
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Those that somebody has set for good; others are found by asking.
fn neighbour(message: &NeighbourMessage, names: &HashMap<u32, String>) -> Option<guest::Neighbour> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let mut neighbour = guest::Neighbour {
        interface: names.get(&message.header.ifindex)?.clone(),
        ..Default::default()
    };
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                neighbour.address = found.to_string();
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                neighbour.address = found.to_string();
            }
            NeighbourAttribute::LinkLayerAddress(found) => neighbour.mac.clone_from(found),
            _ => {}
        }
    }
    (!neighbour.address.is_empty() && neighbour.mac.len() == 6).then_some(neighbour)
}
