//! What a pod's containers see: each other, the network, and the pod's own files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::cri::container::{Container, Draft};
use integration::cri::pod::HOSTNAME;
use integration::cri::stage::Stage;
use integration::messages::cri::NamespaceMode;
use integration::wait::{self, SOON};

integration::pod_tests![
    containers_of_a_pod_share_its_network_and_its_ipc,
    containers_of_a_pod_have_their_own_files_and_processes,
    containers_of_a_pod_may_share_processes,
    a_pod_is_reached_at_its_address,
    a_pod_has_the_files_that_its_configuration_asks_for,
    a_container_has_its_environment_and_its_mounts,
];

/// Serves its root, in which `etc/hostname` and others are.
const SERVER: [&str; 6] = ["httpd", "-f", "-p", "8080", "-h", "/"];

fn containers_of_a_pod_share_its_network_and_its_ipc(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let server = pod.start(&Draft::new("server", &SERVER))?;
    let client = pod.sleeper("client")?;
    server.exec(&["sh", "-c", "echo hello > /tmp/page"])?;
    wait::until("an answer on the loopback", SOON, || {
        let page = client.exec(&["wget", "-qO-", "http://127.0.0.1:8080/tmp/page"])?;
        ensure!(page == "hello", "{page:?}");
        Ok(())
    })?;
    for namespace in ["net", "ipc", "uts"] {
        assert_eq!(link(&server, namespace)?, link(&client, namespace)?);
    }
    server.exec(&["sh", "-c", "echo shared > /dev/shm/note"])?;
    assert_eq!(client.exec(&["cat", "/dev/shm/note"])?, "shared");
    pod.remove()
}

fn link(container: &Container, namespace: &str) -> Result<String> {
    container.exec(&["readlink", &format!("/proc/self/ns/{namespace}")])
}

fn containers_of_a_pod_have_their_own_files_and_processes(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let (one, two) = (pod.sleeper("one")?, pod.sleeper("two")?);
    for namespace in ["mnt", "pid"] {
        assert_ne!(link(&one, namespace)?, link(&two, namespace)?);
    }
    one.exec(&["touch", "/tmp/mine"])?;
    assert_eq!(two.exec_within(&["test", "-e", "/tmp/mine"], 0)?.status, 1);
    assert_eq!(two.exec(&["cat", "/proc/1/comm"])?, "sleep");
    pod.remove()
}

fn containers_of_a_pod_may_share_processes(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod_with(|config| {
        let linux = config.linux.mut_or_insert_default();
        let security = linux.security_context.mut_or_insert_default();
        security.namespace_options.mut_or_insert_default().pid = NamespaceMode::POD.into();
    })?;
    let (one, two) = (pod.sleeper("one")?, pod.sleeper("two")?);
    assert_eq!(link(&one, "pid")?, link(&two, "pid")?);
    let sleepers = one
        .exec(&["pgrep", "-c", "-x", "sleep"])
        .or_else(|_| one.exec(&["sh", "-c", "ps | grep -c '[s]leep 1000'"]))?;
    ensure!(sleepers.parse::<u32>()? >= 2, "{sleepers} of 2");
    assert_ne!(one.exec(&["cat", "/proc/1/comm"])?, "");
    pod.remove()
}

fn a_pod_is_reached_at_its_address(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let address = pod.status()?.network.ip.clone();
    let server = pod.start(&Draft::new("server", &SERVER))?;
    let addresses = server.exec(&["ip", "-4", "addr", "show", "dev", "eth0"])?;
    assert!(addresses.contains(&address), "{address}: {addresses}");
    server.exec(&["sh", "-c", "echo hello > /tmp/page"])?;
    let answer = wait::until("an answer at the pod's address", SOON, || page(&address))?;
    assert!(answer.ends_with("hello\n"), "{answer:?}");
    pod.remove()
}

fn page(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect((address, 8080)).context("connect to the pod")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /tmp/page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn a_pod_has_the_files_that_its_configuration_asks_for(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod_with(|config| {
        let sysctls = &mut config.linux.mut_or_insert_default().sysctls;
        sysctls.insert("net.ipv4.tcp_keepalive_time".to_owned(), "123".to_owned());
        sysctls.insert("kernel.msgmax".to_owned(), "4096".to_owned());
    })?;
    let container = pod.sleeper("one")?;
    let read = |file: &str| container.exec(&["cat", file]);
    assert_eq!(container.exec(&["hostname"])?, HOSTNAME);
    assert_eq!(read("/etc/hostname")?, HOSTNAME);
    let resolver = read("/etc/resolv.conf")?;
    let lines: Vec<_> = resolver.lines().collect();
    let expect = [
        "search default.svc.cluster.local cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5",
    ];
    assert_eq!(lines, expect);
    // The machine's, or one that the pod's maker writes: there is a loopback in each.
    assert!(read("/etc/hosts")?.contains("127.0.0.1"));
    assert_eq!(read("/proc/sys/net/ipv4/tcp_keepalive_time")?, "123");
    assert_eq!(read("/proc/sys/kernel/msgmax")?, "4096");
    let shm = container.exec(&["sh", "-c", "grep ' /dev/shm ' /proc/mounts"])?;
    assert!(shm.contains("tmpfs"), "{shm}");
    pod.remove()
}

fn a_container_has_its_environment_and_its_mounts(stage: &Stage<'_>) -> Result<()> {
    let (volume, secret) = (stage.folder()?, stage.folder()?);
    std::fs::write(secret.path().join("key"), "k")?;
    let pod = stage.pod()?;
    let draft = Draft::new("one", &["sleep", "1000"]).env("COLOUR", "blue green");
    let draft = draft.mount(&volume.path().to_string_lossy(), "/mnt/volume", false);
    let container = pod.start(&draft.mount(&secret.path().to_string_lossy(), "/secret", true))?;
    assert_eq!(container.exec(&["sh", "-c", "echo $COLOUR"])?, "blue green");
    assert_eq!(container.exec(&["cat", "/secret/key"])?, "k");
    assert_ne!(container.exec_within(&["touch", "/secret/other"], 0)?.status, 0);
    container.exec(&["sh", "-c", "echo out > /mnt/volume/file"])?;
    assert_eq!(std::fs::read_to_string(volume.path().join("file"))?, "out\n");
    pod.remove()
}
