//! The guest's network: the interfaces of the host's half get the names, addresses and routes that the
//! pod's own have.

use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{LinkAttribute, LinkMessage},
        route::{RouteAttribute, RouteMessage, RouteScope},
    },
};
use shim_core::{Context, Error, Kind, Result};
use shim_protos::guest::{self, SetupRequest};

/// The longest name that the kernel takes.
const NAME_LIMIT: usize = 15;

/// The number of the loopback interface, in every namespace.
const LOOPBACK: u32 = 1;

/// What is asked for, read and checked.
#[derive(Debug)]
pub(super) struct Network {
    interfaces: Vec<Interface>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

#[derive(Debug)]
struct Interface {
    mac: Vec<u8>,
    name: String,
    mtu: u32,
    addresses: Vec<(IpAddr, u8)>,
}

#[derive(Debug)]
struct Route {
    message: RouteMessage,
    interface: String,
    /// As it was asked for.
    text: String,
    has_gateway: bool,
}

#[derive(Debug)]
struct Neighbour {
    address: IpAddr,
    mac: Vec<u8>,
    interface: String,
}

impl Network {
    /// Reads what the host asks for.
    ///
    /// # Errors
    /// `InvalidArgument`, with the part that makes no sense.
    pub(super) fn parse(request: &SetupRequest) -> Result<Self> {
        let neighbour = |neighbour: &guest::Neighbour| {
            Ok(Neighbour {
                address: address(&neighbour.address).context("a neighbour")?,
                mac: mac(&neighbour.mac).context("a neighbour")?,
                interface: name(&neighbour.interface)?,
            })
        };
        let interfaces = request.interfaces.iter().map(interface).collect::<Result<_>>()?;
        let mut routes: Vec<_> = request.routes.iter().map(route).collect::<Result<_>>()?;
        // By those without a gateway the kernel finds the gateways of the others.
        routes.sort_by_key(|route| route.has_gateway);
        let neighbours = request.neighbours.iter().map(neighbour).collect::<Result<_>>()?;
        Ok(Self { interfaces, routes, neighbours })
    }

    /// Makes all of it, in this network namespace.
    ///
    /// # Errors
    /// Which part the kernel refuses, and why.
    pub(super) async fn make(&self) -> Result<()> {
        let (connection, handle, _) = rtnetlink::new_connection().context("open netlink")?;
        let talking = tokio::spawn(connection);
        let made = self.make_by(&handle).await;
        talking.abort();
        made
    }

    async fn make_by(&self, handle: &Handle) -> Result<()> {
        set(handle, LinkUnspec::new_with_index(LOOPBACK).up().build())
            .await
            .context("bring the loopback up")?;
        let links = links(handle).await?;
        let mut found = Vec::new();
        for interface in &self.interfaces {
            let index = interface.find(&links)?;
            // Names may have to be exchanged: each is freed first.
            let spare = LinkUnspec::new_with_index(index).down().name(format!("shim{index}"));
            set(handle, spare.build()).await.with_context(|| format!("free {}", interface.name))?;
            found.push((interface, index));
        }
        for (interface, index) in &found {
            let made = interface.make(handle, *index).await;
            made.with_context(|| format!("set {} up", interface.name))?;
        }
        let index = |name: &str| {
            let of = found.iter().find(|(interface, _)| interface.name == name);
            let of = of.map(|(_, index)| *index);
            of.ok_or_else(|| Error::invalid(format!("no interface is to be {name:?}")))
        };
        for route in &self.routes {
            let mut message = route.message.clone();
            let output = index(&route.interface)?;
            message.attributes.push(RouteAttribute::Oif(output));
            let added = handle.route().add(message).execute().await.map_err(refused);
            added.with_context(|| format!("add the route {}", route.text))?;
        }
        for one in &self.neighbours {
            let add = handle.neighbours().add(index(&one.interface)?, one.address);
            let added = add.link_layer_address(&one.mac).replace().execute().await.map_err(refused);
            added.with_context(|| format!("add the neighbour {}", one.address))?;
        }
        Ok(())
    }
}

impl Interface {
    fn find(&self, links: &[LinkMessage]) -> Result<u32> {
        let has_mac = |link: &&LinkMessage| {
            link.attributes.iter().any(
                |attribute| matches!(attribute, LinkAttribute::Address(mac) if *mac == self.mac),
            )
        };
        let found = links.iter().find(has_mac).map(|link| link.header.index);
        found.ok_or_else(|| {
            let mac: Vec<_> = self.mac.iter().map(|byte| format!("{byte:02x}")).collect();
            let why = format!("no interface has the address {}", mac.join(":"));
            Error::new(Kind::NotFound, why)
        })
    }

    async fn make(&self, handle: &Handle, index: u32) -> Result<()> {
        let mut link = LinkUnspec::new_with_index(index).name(self.name.clone());
        if self.mtu > 0 {
            link = link.mtu(self.mtu);
        }
        set(handle, link.build()).await?;
        set(handle, LinkUnspec::new_with_index(index).up().build()).await?;
        for (address, prefix) in &self.addresses {
            let mut add = handle.address().add(index, *address, *prefix);
            if address.is_ipv6() {
                // The host has made sure that it is nobody else's; to look again costs a second.
                let flags = AddressAttribute::Flags(AddressFlags::Nodad);
                add.message_mut().attributes.push(flags);
            }
            let added = add.execute().await.map_err(refused);
            added.with_context(|| format!("add the address {address}/{prefix}"))?;
        }
        Ok(())
    }
}

async fn set(handle: &Handle, link: LinkMessage) -> Result<()> {
    handle.link().set(link).execute().await.map_err(refused)
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>> {
    let links: Vec<_> =
        handle.link().get().execute().try_collect().await.map_err(refused).context("list links")?;
    Ok(links)
}

/// What the kernel says against it.
fn refused(err: rtnetlink::Error) -> Error {
    match err {
        rtnetlink::Error::NetlinkError(said) => said.to_io().into(),
        other => Error::other(other.to_string()),
    }
}

fn interface(asked: &guest::Interface) -> Result<Interface> {
    let name = name(&asked.name)?;
    let addresses = asked.addresses.iter().map(|text| prefixed(text)).collect::<Result<_>>();
    Ok(Interface {
        mac: mac(&asked.mac).with_context(|| format!("interface {name}"))?,
        addresses: addresses.with_context(|| format!("interface {name}"))?,
        mtu: asked.mtu,
        name,
    })
}

fn route(asked: &guest::Route) -> Result<Route> {
    let gateway = (!asked.gateway.is_empty()).then(|| address(&asked.gateway)).transpose()?;
    let destination = match (asked.destination.is_empty(), gateway) {
        (false, _) => prefixed(&asked.destination)?,
        (true, Some(gateway)) => (unspecified(gateway), 0),
        (true, None) => return Err(Error::invalid("a route has neither destination nor gateway")),
    };
    let text = match gateway {
        Some(gateway) => format!("{}/{} by {gateway}", destination.0, destination.1),
        None => format!("{}/{}", destination.0, destination.1),
    };
    let scope = u8::try_from(asked.scope)
        .map_err(|_| Error::invalid(format!("route {text}: {} is no scope", asked.scope)))?;
    let source = (!asked.source.is_empty()).then(|| address(&asked.source)).transpose();
    let source = source.with_context(|| format!("route {text}"))?;
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .scope(RouteScope::from(scope))
        .destination_prefix(destination.0, destination.1)
        .map_err(|err| mixed(&text, &err))?;
    if let Some(gateway) = gateway {
        builder = builder.gateway(gateway).map_err(|err| mixed(&text, &err))?;
    }
    if let Some(source) = source {
        builder = builder.pref_source(source).map_err(|err| mixed(&text, &err))?;
    }
    if asked.on_link {
        builder = builder.onlink();
    }
    if asked.metric > 0 {
        builder = builder.priority(asked.metric);
    }
    let interface = name(&asked.interface).with_context(|| format!("route {text}"))?;
    Ok(Route { message: builder.build(), interface, has_gateway: gateway.is_some(), text })
}

/// Addresses of two families in one route.
fn mixed(route: &str, err: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("route {route}: {err}"))
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("{text:?} is no address")))
}

fn prefixed(text: &str) -> Result<(IpAddr, u8)> {
    let invalid = || Error::invalid(format!("{text:?} is no address with a prefix"));
    let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(invalid)?;
    Ok((address, prefix))
}

fn mac(bytes: &[u8]) -> Result<Vec<u8>> {
    match bytes.len() {
        6 => Ok(bytes.to_vec()),
        length => Err(Error::invalid(format!("a hardware address of {length} bytes"))),
    }
}

fn name(name: &str) -> Result<String> {
    let is_name = (1..=NAME_LIMIT).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
    is_name
        .then(|| name.to_owned())
        .ok_or_else(|| Error::invalid(format!("{name:?} is no interface's name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> SetupRequest {
        SetupRequest {
            interfaces: vec![guest::Interface {
                mac: vec![2, 0, 0, 0, 0, 1],
                name: "eth0".into(),
                mtu: 1450,
                addresses: vec!["10.1.0.2/24".into(), "fd00::2/64".into()],
                ..Default::default()
            }],
            routes: vec![guest::Route {
                gateway: "10.1.0.1".into(),
                interface: "eth0".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        Network::parse(&asked()).unwrap();
        let refused = |change: fn(&mut SetupRequest)| {
            let mut request = asked();
            change(&mut request);
            format!("{:#}", Network::parse(&request).unwrap_err())
        };
        let said = refused(|it| it.interfaces[0].addresses[0] = "10.1.0.2/33".into());
        assert!(said.contains("eth0") && said.contains("10.1.0.2/33"), "{said}");
        for said in [
            refused(|it| it.interfaces[0].mac = vec![1]),
            refused(|it| it.interfaces[0].name = "a/b".into()),
            refused(|it| it.routes[0].gateway = "10.1".into()),
            refused(|it| it.routes[0].gateway.clear()),
            refused(|it| it.routes[0].source = "x".into()),
            refused(|it| it.routes[0].source = "fd00::1".into()),
            refused(|it| it.routes[0].scope = 300),
            refused(|it| it.routes[0].interface.clear()),
        ] {
            assert!(!said.is_empty());
        }
    }

    #[test]
    fn gateways_come_after_the_routes_to_them() {
        let mut request = asked();
        let to = |destination: &str| guest::Route {
            destination: destination.into(),
            interface: "eth0".into(),
            scope: 253,
            ..Default::default()
        };
        request.routes.push(to("10.1.0.1/32"));
        let network = Network::parse(&request).unwrap();
        let texts: Vec<_> = network.routes.iter().map(|route| route.text.as_str()).collect();
        assert_eq!(texts, ["10.1.0.1/32", "0.0.0.0/0 by 10.1.0.1"]);
    }
}
