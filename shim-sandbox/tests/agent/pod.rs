//! The pod around the containers.

use std::{
    collections::HashMap,
    fs,
    process::{Command, Output},
};

use serde_json::json;
use shim_core::{Container, Kind};
use shim_protos::guest::{Interface, Neighbour, Route, SetupRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{World, run};

/// Runs a program in the agent's namespaces.
fn inside(world: &World, args: &[&str]) -> Output {
    let pid = world.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--net", "--uts", "--ipc", "--mount"]);
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: Output) -> String {
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_guest_says_what_it_is() {
    run(async |world| {
        let hello = &world.hello;
        assert!(hello.memory > 0 && hello.processors > 0 && !hello.kernel.is_empty());
        assert_eq!(hello.root, world.path("").to_string_lossy().trim_end_matches('/'));
        let usage = world.agent.usage().await.unwrap();
        assert!(usage.cpu > 0 && usage.memory > 0 && usage.memory < hello.memory);
        let online = world.agent.online(1).await.unwrap();
        assert_eq!(online.processors, hello.processors);
        world.agent.set_time(1).await.unwrap();
        assert_eq!(world.agent.set_time(-1).await.unwrap_err().kind(), Kind::InvalidArgument);
    });
}

/// A pod with all there is to ask for.
fn whole_pod() -> SetupRequest {
    SetupRequest {
        hostname: "pod-1".into(),
        files: HashMap::from([("hosts".into(), b"127.0.0.1 localhost\n".to_vec())]),
        sysctls: HashMap::from([
            ("kernel.shm_rmid_forced".into(), "1".into()),
            ("net.ipv4.ip_unprivileged_port_start".into(), "77".into()),
        ]),
        interfaces: vec![Interface {
            mac: vec![2, 0, 0, 0, 0, 1],
            name: "eth0".into(),
            mtu: 1400,
            addresses: vec!["10.9.0.2/24".into(), "fd09::2/64".into()],
            ..Default::default()
        }],
        routes: vec![
            Route { gateway: "10.9.1.1".into(), ..on_eth0() },
            Route { destination: "10.9.1.1/32".into(), scope: 253, metric: 7, ..on_eth0() },
            Route { gateway: "fd09::1".into(), source: "fd09::2".into(), ..on_eth0() },
        ],
        neighbours: vec![Neighbour {
            address: "10.9.1.1".into(),
            mac: vec![2, 0, 0, 0, 0, 9],
            interface: "eth0".into(),
            ..Default::default()
        }],
        shm: 1 << 20,
        ..Default::default()
    }
}

#[test]
fn a_pod_is_set_up_once() {
    run(async |world| {
        inside(world, &["ip", "link", "add", "x0", "type", "veth", "peer", "name", "x1"]);
        inside(world, &["ip", "link", "set", "x1", "up"]);
        inside(world, &["ip", "link", "set", "x0", "address", "02:00:00:00:00:01"]);
        let request = whole_pod();
        world.agent.setup(request.clone()).await.unwrap();
        let again = world.agent.setup(request).await.unwrap_err();
        assert_eq!(again.kind(), Kind::FailedPrecondition);

        assert_eq!(text(inside(world, &["hostname"])).trim(), "pod-1");
        assert_eq!(fs::read(world.path("files/hosts")).unwrap(), b"127.0.0.1 localhost\n");
        let setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(text(inside(world, &["cat", setting])).trim(), "77");
        let shm = world.path("shm").display().to_string();
        assert!(text(inside(world, &["stat", "-f", "-c", "%T", &shm])).contains("tmpfs"));
        let link = text(inside(world, &["ip", "addr", "show", "eth0"]));
        for word in ["mtu 1400", "10.9.0.2/24", "fd09::2/64", "UP"] {
            assert!(link.contains(word), "{word}: {link}");
        }
        let routes = text(inside(world, &["ip", "route"]));
        for word in ["default via 10.9.1.1 dev eth0", "10.9.1.1 dev eth0", "metric 7"] {
            assert!(routes.contains(word), "{word}: {routes}");
        }
        let routes = text(inside(world, &["ip", "-6", "route"]));
        assert!(
            routes.contains("default via fd09::1 dev eth0 proto static src fd09::2"),
            "{routes}"
        );
        let neighbours = text(inside(world, &["ip", "neigh"]));
        assert!(neighbours.contains("02:00:00:00:00:09 PERMANENT"), "{neighbours}");

        // A container without namespaces of its own is in the pod's.
        let (id, mut spec) = world.script("hostname; ip addr show eth0 | grep -c 10.9.0.2");
        spec["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }]);
        spec.as_object_mut().unwrap().remove("hostname");
        let mut running = world.create((id, spec)).await;
        running.container.start().await.unwrap();
        assert_eq!(running.output().await, "pod-1\n1\n");
        running.exit().await;
        running.container.delete().await.unwrap();
    });
}

fn on_eth0() -> Route {
    Route { interface: "eth0".into(), ..Default::default() }
}

#[test]
fn a_setup_that_makes_no_sense_says_why() {
    run(async |world| {
        let sysctls = HashMap::from([("kernel.core_pattern".into(), "|/x".into())]);
        let request = SetupRequest { sysctls, ..Default::default() };
        let err = world.agent.setup(request).await.unwrap_err();
        assert_eq!(err.kind(), Kind::InvalidArgument);
        assert!(err.to_string().contains("kernel.core_pattern"), "{err:#}");
    });
}

#[test]
fn a_port_of_the_loopback_is_reached() {
    run(async |world| {
        world.agent.setup(SetupRequest::default()).await.unwrap();
        let refused = world.agent.dial(9).await.unwrap_err();
        assert!(refused.to_string().contains("port 9"), "{refused:#}");
        let (id, mut spec) =
            world.script("echo ready; exec /bin/busybox nc -l -p 8080 -e /bin/cat");
        spec["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }]);
        spec.as_object_mut().unwrap().remove("hostname");
        let mut running = world.create((id, spec)).await;
        running.container.start().await.unwrap();
        running.line().await;
        let mut stream = loop {
            // It listens a moment after it has said that it will.
            match world.agent.dial(8080).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(b"there and back").await.unwrap();
        let mut back = [0; 14];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"there and back");
        drop(stream);
        running.remove().await;
    });
}

#[test]
fn nothing_is_made_outside_of_its_place() {
    run(async |world| {
        let (id, spec) = world.script("true");
        let streams = || {
            let null = crate::world::null;
            shim_core::Streams::Pipes { stdin: null(), stdout: null(), stderr: null() }
        };
        for path in ["..", "../bundles", "/etc", ""] {
            let wanted = shim_sandbox::host::container::Wanted {
                id: id.clone(),
                spec: spec.to_string().into_bytes(),
                rootfs: Some(shim_sandbox::host::container::Rootfs::Shared(path.into())),
                streams: streams(),
                machine: world.pid(),
            };
            let made = shim_sandbox::host::container::create(&world.agent, wanted).await;
            assert_eq!(made.err().unwrap().kind(), Kind::InvalidArgument, "{path:?}");
        }
    });
}
