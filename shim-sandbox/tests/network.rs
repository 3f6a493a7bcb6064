//! The hand-over of a pod's network, in namespaces of its own: what is read, and frames through a tap.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shim_core::model::{ContainerId, Namespace};
use shim_sandbox::{journal, net};

/// Two namespaces and a cable between them; gone when dropped.
struct Lab {
    pod: String,
    peer: String,
}

impl Lab {
    fn new(name: &str) -> Self {
        let lab = Self { pod: format!("{name}-pod"), peer: format!("{name}-peer") };
        let (pod, peer) = (&lab.pod, &lab.peer);
        ip(&format!("netns add {pod}"));
        ip(&format!("netns add {peer}"));
        ip(&format!("-n {pod} link add eth0 mtu 1450 type veth peer name far netns {peer}"));
        ip(&format!("-n {pod} link set eth0 address 02:00:00:00:09:02 up"));
        ip(&format!("-n {peer} link set far up"));
        ip(&format!("-n {peer} addr add 10.9.0.1/24 dev far"));
        ip(&format!("-n {pod} addr add 10.9.0.2/24 dev eth0"));
        ip(&format!("-n {pod} addr add fd00:9::2/64 dev eth0 nodad"));
        ip(&format!("-n {pod} route add default via 10.9.0.1 dev eth0"));
        ip(&format!("-n {pod} route add 10.10.0.0/16 dev eth0 metric 7"));
        ip(&format!("-n {pod} neigh add 10.9.0.9 lladdr 02:00:00:00:09:09 dev eth0 nud permanent"));
        lab
    }

    fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.pod)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.pod, &self.peer] {
            let _gone = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &str) -> String {
    let made = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(made.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

#[test]
fn a_pods_network_is_read_joined_and_given_back() {
    let lab = Lab::new("shimnet1");
    let (namespace, id) = (Namespace::parse("nettest").unwrap(), ContainerId::parse("n1").unwrap());
    let journal = journal::Journal::begin(&namespace, &id).unwrap();
    let mut network = net::hand_over(&lab.netns(), &journal).unwrap();

    let [interface] = network.interfaces.as_slice() else { panic!("{network:?}") };
    assert_eq!((interface.name.as_str(), interface.mtu), ("eth0", 1450));
    assert_eq!(interface.mac, [2, 0, 0, 0, 9, 2]);
    assert_eq!(interface.addresses, ["10.9.0.2/24", "fd00:9::2/64"]);
    let routes: Vec<_> = network
        .routes
        .iter()
        .map(|route| (route.destination.as_str(), route.gateway.as_str(), route.metric))
        .collect();
    assert_eq!(routes, [("10.10.0.0/16", "", 7), ("", "10.9.0.1", 0)]);
    assert_eq!(network.neighbours.len(), 1);

    // The guest asks who has the gateway's address, and hears it from the other end of the cable.
    let tap = network.taps.pop().unwrap();
    let mut tap = File::from(tap.file);
    tap.write_all(&who_has([10, 9, 0, 1])).unwrap();
    assert!(hears_reply(&mut tap), "no answer came through the tap");

    drop((tap, network));
    assert!(!ip(&format!("-n {} link", lab.pod)).contains("shimtap"));
    assert!(tc(&lab.pod).contains("ingress"));
    drop(journal);
    journal::clean_up(&namespace, &id).unwrap();
    assert!(!tc(&lab.pod).contains("ingress"), "{}", tc(&lab.pod));
    // A second time, and without the namespace: nothing is left to do.
    journal::clean_up(&namespace, &id).unwrap();
}

#[test]
fn the_hosts_network_and_no_network_are_refused() {
    let (namespace, id) =
        (Namespace::parse("nettest2").unwrap(), ContainerId::parse("n1").unwrap());
    let journal = journal::Journal::begin(&namespace, &id).unwrap();
    let err = net::hand_over("/proc/self/ns/net".as_ref(), &journal).unwrap_err();
    assert_eq!(err.kind(), shim_core::Kind::FailedPrecondition, "{err:#}");
    let err = net::hand_over("/run/netns/there-is-none".as_ref(), &journal).unwrap_err();
    assert!(format!("{err:#}").contains("there-is-none"), "{err:#}");
    journal::clean_up(&namespace, &id).unwrap();
}

fn tc(namespace: &str) -> String {
    let shown = Command::new("tc").args(["-n", namespace, "qdisc", "show", "dev", "eth0"]).output();
    String::from_utf8(shown.unwrap().stdout).unwrap()
}

/// An ARP request of the pod's address, behind an empty header of virtio's.
fn who_has(address: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0; 10];
    frame.extend([0xff; 6]);
    frame.extend([2, 0, 0, 0, 9, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 9, 2, 10, 9, 0, 2]);
    frame.extend([0; 6]);
    frame.extend(address);
    frame
}

/// Reads frames until one is an ARP reply.
fn hears_reply(tap: &mut File) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut frame = [0; 2048];
    while Instant::now() < deadline {
        let mut ready = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(1000_u16)).unwrap() == 0 {
            continue;
        }
        let read = tap.read(&mut frame).unwrap();
        if read >= 32 && frame[22..24] == [8, 6] && frame[30..32] == [0, 2] {
            return true;
        }
    }
    false
}
