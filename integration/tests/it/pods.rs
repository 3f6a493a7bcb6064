//! Containers of one pod share a shim.

use anyhow::Result;
use integration::lane::Lane;
use integration::{procs, shim};

integration::tests![
    containers_of_a_pod_share_a_shim,
    a_shim_lives_until_the_last_container_of_its_pod_is_gone,
];

fn annotation(pod: &str) -> String {
    format!("io.kubernetes.cri.sandbox-id={pod}")
}

fn containers_of_a_pod_share_a_shim(lane: &Lane) -> Result<()> {
    let pod = annotation(&lane.name());
    let flags = ["--annotation", pod.as_str()];
    let first = lane.sleeper(&flags)?;
    let second = lane.sleeper(&flags)?;
    let other = lane.sleeper(&[])?;
    assert_eq!(first.shim()?, second.shim()?);
    assert_ne!(first.shim()?, other.shim()?);
    assert_eq!(shim::sockets()?.len(), 2);
    for container in [first, second, other] {
        assert_eq!(container.remove()?, 137);
    }
    Ok(())
}

fn a_shim_lives_until_the_last_container_of_its_pod_is_gone(lane: &Lane) -> Result<()> {
    let pod = annotation(&lane.name());
    let flags = ["--annotation", pod.as_str()];
    let first = lane.sleeper(&flags)?;
    let second = lane.sleeper(&flags)?;
    let shim = first.shim()?;
    first.remove()?;
    assert!(procs::runs(shim));
    second.wait_status("RUNNING")?;
    assert_eq!(second.exec(&["sh", "-c", "exit 4"])?.status, 4);
    // A latecomer joins.
    let third = lane.sleeper(&flags)?;
    assert_eq!(third.shim()?, shim);
    second.remove()?;
    third.remove()?;
    Ok(())
}
