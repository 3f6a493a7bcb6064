//! Namespaces of one's own, of others, and of other users.

use std::fs;

use anyhow::Result;
use integration::lane::Lane;
use integration::procs;

integration::tests![
    every_default_namespace_is_a_new_one,
    a_container_joins_the_network_of_another,
    a_container_joins_the_processes_of_another,
    the_hosts_network_can_be_kept,
    a_user_namespace_maps_root_to_an_ordinary_user,
    an_exec_enters_the_user_namespace,
];

fn namespace(pid: i32, kind: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/{pid}/ns/{kind}"))?.to_string_lossy().into_owned())
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

fn every_default_namespace_is_a_new_one(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    for kind in ["pid", "ipc", "uts", "mnt", "net"] {
        assert_ne!(namespace(container.pid()?, kind)?, namespace(own(), kind)?);
    }
    assert_eq!(namespace(container.pid()?, "user")?, namespace(own(), "user")?);
    container.remove()?;
    Ok(())
}

fn a_container_joins_the_network_of_another(lane: &Lane) -> Result<()> {
    let first = lane.sleeper(&[])?;
    let join = format!("network:/proc/{}/ns/net", first.pid()?);
    let second = lane.sleeper(&["--with-ns", &join])?;
    assert_eq!(namespace(first.pid()?, "net")?, namespace(second.pid()?, "net")?);
    assert_ne!(namespace(first.pid()?, "ipc")?, namespace(second.pid()?, "ipc")?);
    first.remove()?;
    second.wait_status("RUNNING")?;
    second.remove()?;
    Ok(())
}

fn a_container_joins_the_processes_of_another(lane: &Lane) -> Result<()> {
    let first = lane.sleeper(&[])?;
    let join = format!("pid:/proc/{}/ns/pid", first.pid()?);
    let second = lane.start(&["--null-io", "--with-ns", &join], &["sleep", "2000"])?;
    assert_eq!(namespace(first.pid()?, "pid")?, namespace(second.pid()?, "pid")?);
    let ps = || first.output(&[], &["ps", "-o", "args"]);
    assert!(ps()?.contains("sleep 2000"));
    // Nothing else ends the processes of a container without a PID namespace of its own.
    second.exec_in_background(&["sleep", "3000"])?;
    assert_eq!(second.remove()?, 137);
    assert!(!ps()?.contains("sleep 3000"));
    first.remove()?;
    Ok(())
}

fn the_hosts_network_can_be_kept(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&["--net-host"])?;
    assert_eq!(namespace(container.pid()?, "net")?, namespace(own(), "net")?);
    container.remove()?;
    Ok(())
}

const MAPS: [&str; 4] = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];

fn a_user_namespace_maps_root_to_an_ordinary_user(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&MAPS)?;
    let pid = container.pid()?;
    let ids = |key| -> Result<Vec<String>> {
        Ok(procs::status(pid, key)?.split_whitespace().map(str::to_owned).collect())
    };
    assert_eq!(ids("Uid")?, ["100000"; 4]);
    assert_eq!(ids("Gid")?, ["200000"; 4]);
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_ne!(namespace(pid, "user")?, namespace(own(), "user")?);
    container.remove()?;
    Ok(())
}

fn an_exec_enters_the_user_namespace(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&MAPS)?;
    // Root inside may write to what is the container's, and to nothing of the host's.
    let script = "id -u; touch /root/x && stat -c %u /root/x";
    assert_eq!(container.output(&[], &["sh", "-c", script])?, "0\n0\n");
    container.remove()?;
    Ok(())
}
