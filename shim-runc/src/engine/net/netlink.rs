//! The little of rtnetlink(7) that moving an interface takes.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
        socket,
    },
};
use shim_core::{Context, Error, Result};

// Messages of linux/netlink.h and linux/rtnetlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

// Attributes of linux/if_link.h and linux/if_addr.h.
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const ADDRESS_LABEL: u16 = 3;
const ADDRESS_CACHE: u16 = 6;

const PERMANENT: u8 = 0x80;
const UNIVERSE: u8 = 0;
const UP: u32 = 1;

/// The length of `struct nlmsghdr`, of `struct ifinfomsg` and of an attribute's header.
const HEADER: usize = 16;
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ATTRIBUTE: usize = 4;

/// A socket in one network namespace.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

/// An interface's address, `struct ifaddrmsg` and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    head: [u8; ADDRESS],
    attributes: Vec<u8>,
}

impl Address {
    /// Whether it is one that somebody gave the interface, for the whole world: others come by
    /// themselves.
    pub(super) fn is_kept(&self) -> bool {
        let [_, _, flags, scope, ..] = self.head;
        flags & PERMANENT != 0 && scope == UNIVERSE
    }
}

impl Netlink {
    /// Opens a socket in the namespace of this thread.
    pub(super) fn open() -> Result<Self> {
        let open = || -> nix::Result<OwnedFd> {
            let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
            let route = SockProtocol::NetlinkRoute;
            let opened = socket(family, kind, SockFlag::SOCK_CLOEXEC, route)?;
            bind(opened.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            Ok(opened)
        };
        open().map(Self).context("open a netlink socket")
    }

    /// The addresses of an interface.
    pub(super) fn addresses(&self, index: u32) -> Result<Vec<Address>> {
        self.say(GET_ADDRESS, DUMP, &[0; ADDRESS])?;
        let mut all = Vec::new();
        self.hear(|message| all.extend(address(message, index)))?;
        Ok(all)
    }

    /// Moves an interface into the namespace of a descriptor, under a name.
    pub(super) fn hand_over(&self, index: u32, name: &str, namespace: RawFd) -> Result<()> {
        let mut message = link(index, 0).to_vec();
        attribute(&mut message, LINK_NAMESPACE, &namespace.to_ne_bytes());
        attribute(&mut message, LINK_NAME, &with_end(name));
        self.ask(NEW_LINK, ACKNOWLEDGE, &message)
    }

    /// The number that an interface has here.
    pub(super) fn index(&self, name: &str) -> Result<u32> {
        let mut message = link(0, 0).to_vec();
        attribute(&mut message, LINK_NAME, &with_end(name));
        self.say(GET_LINK, ACKNOWLEDGE, &message)?;
        let mut index = None;
        self.hear(|message| {
            let number = message.get(4..8).and_then(|number| number.try_into().ok());
            index = index.or(number.map(u32::from_ne_bytes));
        })?;
        index.ok_or_else(|| Errno::ENODEV.into())
    }

    /// Gives an interface an address.
    pub(super) fn add(&self, index: u32, address: &Address) -> Result<()> {
        let mut message = address.head.to_vec();
        message[4..].copy_from_slice(&index.to_ne_bytes());
        message.extend_from_slice(&address.attributes);
        self.ask(NEW_ADDRESS, ACKNOWLEDGE | CREATE | EXCLUSIVE, &message)
    }

    /// Brings an interface up.
    pub(super) fn raise(&self, index: u32) -> Result<()> {
        self.ask(NEW_LINK, ACKNOWLEDGE, &link(index, UP))
    }

    fn ask(&self, kind: u16, flags: u16, message: &[u8]) -> Result<()> {
        self.say(kind, flags, message)?;
        self.hear(|_| ())
    }

    fn say(&self, kind: u16, flags: u16, message: &[u8]) -> Result<()> {
        let length = u32::try_from(HEADER + message.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut whole = length.to_ne_bytes().to_vec();
        whole.extend_from_slice(&kind.to_ne_bytes());
        whole.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        // The number of the message and the sender: there is one of either.
        whole.extend_from_slice(&[0; 8]);
        whole.extend_from_slice(message);
        send(self.0.as_raw_fd(), &whole, MsgFlags::empty())?;
        Ok(())
    }

    /// Hears everything that answers one message.
    fn hear(&self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let mut room = vec![0; 32 << 10];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut room, MsgFlags::empty())?;
            let mut rest = &room[..length];
            while let Some((kind, message, next)) = first(rest) {
                match kind {
                    DONE => return Ok(()),
                    ERROR => return acknowledged(message),
                    _ => each(message),
                }
                rest = next;
            }
        }
    }
}

/// The first message of several: its kind, what is in it, and what comes after it.
fn first(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (kind, message, length) = part(bytes, HEADER, |head| {
        let length = u32::from_ne_bytes(head[..4].try_into().ok()?);
        Some((usize::try_from(length).ok()?, u16::from_ne_bytes(head[4..6].try_into().ok()?)))
    })?;
    Some((kind, message, bytes.get(length..).unwrap_or_default()))
}

/// A piece that begins with its own length: its kind, what is in it, and its length with what fills it up.
fn part(
    bytes: &[u8],
    head: usize,
    read: impl FnOnce(&[u8]) -> Option<(usize, u16)>,
) -> Option<(u16, &[u8], usize)> {
    let (length, kind) = read(bytes.get(..head)?)?;
    let inside = bytes.get(head..length)?;
    Some((kind, inside, length.next_multiple_of(4)))
}

/// What an error says; 0 is none.
fn acknowledged(message: &[u8]) -> Result<()> {
    let number = message.get(..4).and_then(|number| number.try_into().ok());
    match number.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(Errno::from_raw(-number).into()),
        None => Err(Error::other("the kernel's answer is cut short")),
    }
}

/// An interface's address, if it is one of that interface.
fn address(message: &[u8], index: u32) -> Option<Address> {
    let (head, mut rest) = message.split_first_chunk::<ADDRESS>()?;
    if head[4..] != index.to_ne_bytes() {
        return None;
    }
    let mut attributes = Vec::new();
    while let Some((kind, inside, length)) = part(rest, ATTRIBUTE, |head| {
        let length = u16::from_ne_bytes(head[..2].try_into().ok()?);
        Some((length.into(), u16::from_ne_bytes(head[2..].try_into().ok()?)))
    }) {
        // The label has the old name in it, and of times the kernel keeps its own account.
        if kind != ADDRESS_LABEL && kind != ADDRESS_CACHE {
            attribute(&mut attributes, kind, inside);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Some(Address { head: *head, attributes })
}

/// `struct ifinfomsg`, with flags to be set.
fn link(index: u32, flags: u32) -> [u8; LINK] {
    let mut message = [0; LINK];
    message[4..8].copy_from_slice(&index.to_ne_bytes());
    message[8..12].copy_from_slice(&flags.to_ne_bytes());
    message[12..].copy_from_slice(&flags.to_ne_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, inside: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + inside.len()).expect("names and addresses are short");
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(inside);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn with_end(name: &str) -> Vec<u8> {
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_sent_as_it_came() {
        let mut message = vec![2, 24, PERMANENT, UNIVERSE];
        message.extend_from_slice(&7_u32.to_ne_bytes());
        attribute(&mut message, 1, &[10, 0, 0, 1]);
        attribute(&mut message, ADDRESS_LABEL, b"eth0\0");
        attribute(&mut message, 2, &[10, 0, 0, 1]);
        assert_eq!(address(&message, 8), None);
        let address = address(&message, 7).unwrap();
        assert!(address.is_kept());
        let mut expected = Vec::new();
        attribute(&mut expected, 1, &[10, 0, 0, 1]);
        attribute(&mut expected, 2, &[10, 0, 0, 1]);
        assert_eq!(address.attributes, expected);
    }

    #[test]
    fn what_is_cut_short_is_the_end() {
        assert!(first(&[]).is_none());
        assert!(first(&[255; HEADER]).is_none());
        // A length of less than a header.
        let mut bytes = [0; HEADER];
        bytes[0] = 3;
        assert!(first(&bytes).is_none());
        assert!(acknowledged(&[0; 3]).is_err());
        assert!(acknowledged(&[0; 4]).is_ok());
        assert_eq!(address(&[1, 2], 0), None);
    }
}
