//! containerd goes and comes back; containers do not notice.

use std::fs;

use anyhow::{Result, ensure};
use integration::container::{Container, PROMPT};
use integration::daemon::Daemon;
use integration::engine::Engine;
use integration::lane::Lane;
use integration::procs;
use integration::wait::{self, SOON};
use nix::sys::signal::Signal;

integration::tests![
    containers_outlive_an_orderly_stop_of_containerd,
    containers_outlive_a_crash_of_containerd,
    an_exit_while_containerd_is_down_is_found_with_its_code,
    an_exec_outlives_containerd,
    a_pod_is_found_again_with_all_its_containers,
];

/// Writes on and on, and ends with 7 on USR1.
const TICKS: &str = "trap 'exit 7' USR1; while :; do echo tick; sleep 0.05; done";

fn containers_outlive_an_orderly_stop_of_containerd(lane: &Lane) -> Result<()> {
    outlive(lane, Daemon::stop)
}

fn containers_outlive_a_crash_of_containerd(lane: &Lane) -> Result<()> {
    outlive(lane, |daemon| {
        daemon.kill();
        Ok(())
    })
}

fn outlive(lane: &Lane, end: fn(&mut Daemon) -> Result<()>) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let folder = lane.folder()?;
    let log = folder.join("log");
    let uri = format!("file://{log}");
    let container = lane.start_on(daemon.ctr(), &["--log-uri", &uri], &["sh", "-c", TICKS])?;
    let (pid, shim) = (container.pid()?, container.shim()?);
    end(&mut daemon)?;
    assert!(procs::runs(pid) && procs::runs(shim));
    grows(&log)?;
    daemon.start_again()?;
    container.wait_status("RUNNING")?;
    assert_eq!((container.pid()?, container.shim()?), (pid, shim));
    grows(&log)?;
    assert_eq!(container.exec(&["sh", "-c", "exit 4"])?.status, 4);
    assert_eq!(container.remove()?, 137);
    Ok(())
}

fn an_exit_while_containerd_is_down_is_found_with_its_code(lane: &Lane) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let folder = lane.folder()?;
    let log = folder.join("log");
    let uri = format!("file://{log}");
    let container = lane.start_on(daemon.ctr(), &["--log-uri", &uri], &["sh", "-c", TICKS])?;
    grows(&log)?;
    let pid = container.pid()?;
    daemon.kill();
    procs::signal(pid, Signal::SIGUSR1)?;
    wait::until("the end of init", SOON, || {
        ensure!(!procs::runs(pid));
        Ok(())
    })?;
    daemon.start_again()?;
    // From 1.7 on containerd takes a shim without a process for a leftover, and deletes the task.
    if lane.engine() == Engine::V16 || container.status()?.is_some() {
        assert_eq!(container.delete_task()?, 7);
    }
    container.delete()
}

fn an_exec_outlives_containerd(lane: &Lane) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let container = lane.start_on(daemon.ctr(), &["--null-io"], &["sleep", "1000"])?;
    container.exec_in_background(&["sleep", "2000"])?;
    let before = container.task(&["ps"])?;
    daemon.kill();
    daemon.start_again()?;
    assert_eq!(container.task(&["ps"])?, before);
    container.remove()?;
    Ok(())
}

fn a_pod_is_found_again_with_all_its_containers(lane: &Lane) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let pod = format!("io.kubernetes.cri.sandbox-id={}", lane.name());
    let flags = ["--null-io", "--annotation", &pod];
    let start = |_| lane.start_on(daemon.ctr(), &flags, &["sleep", "1000"]);
    let containers = (0..3).map(start).collect::<Result<Vec<Container>>>()?;
    let shim = containers[0].shim()?;
    daemon.kill();
    daemon.start_again()?;
    for container in &containers {
        container.wait_status("RUNNING")?;
        assert_eq!(container.shim()?, shim);
        assert_eq!(container.exec(&["sh", "-c", "exit 4"])?.status, 4);
    }
    for container in &containers {
        assert_eq!(container.remove()?, 137);
    }
    Ok(())
}

fn grows(log: &str) -> Result<()> {
    let size = || fs::metadata(log).map_or(0, |file| file.len());
    let before = size();
    wait::until("more output", PROMPT, || {
        ensure!(size() > before);
        Ok(())
    })
}
