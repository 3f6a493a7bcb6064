//! The shim is killed; containerd cleans up with the shim's own `delete`.

use anyhow::{Result, ensure};
use integration::container::Container;
use integration::lane::Lane;
use integration::procs;
use integration::wait::{self, SOON};
use nix::sys::signal::Signal;

integration::tests![
    nothing_is_left_of_a_container_whose_shim_was_killed,
    nothing_is_left_of_a_paused_container_whose_shim_was_killed,
    nothing_is_left_of_a_pod_whose_shim_was_killed,
    a_container_is_deleted_while_its_shim_is_dead,
    a_shim_killed_while_containerd_is_down_is_cleaned_up_after,
];

/// Kills the shim, and waits until containerd has noticed and the init process is gone.
fn kill_shim(containers: &[&Container]) -> Result<()> {
    let pids = containers.iter().map(|c| c.pid()).collect::<Result<Vec<_>>>()?;
    procs::signal(containers[0].shim()?, Signal::SIGKILL)?;
    wait::until("the end of the container", SOON, || {
        ensure!(!pids.iter().any(|&pid| procs::runs(pid)), "{pids:?} run");
        Ok(())
    })
}

fn nothing_is_left_of_a_container_whose_shim_was_killed(lane: &Lane) -> Result<()> {
    let container = lane.start(&["--null-io"], &["sh", "-c", "sleep 2000 & sleep 1000"])?;
    container.exec_in_background(&["sleep", "3000"])?;
    kill_shim(&[&container])?;
    container.forget()
}

fn nothing_is_left_of_a_paused_container_whose_shim_was_killed(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    container.task(&["pause"])?;
    kill_shim(&[&container])?;
    container.forget()
}

fn nothing_is_left_of_a_pod_whose_shim_was_killed(lane: &Lane) -> Result<()> {
    let pod = format!("io.kubernetes.cri.sandbox-id={}", lane.name());
    let flags = ["--annotation", pod.as_str()];
    let first = lane.sleeper(&flags)?;
    let second = lane.sleeper(&flags)?;
    kill_shim(&[&first, &second])?;
    first.forget()?;
    second.forget()
}

fn a_container_is_deleted_while_its_shim_is_dead(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    procs::signal(container.shim()?, Signal::SIGKILL)?;
    // At once, whether containerd has noticed or not.
    wait::until("the deletion", SOON, || {
        // Its answer depends on who is first; that it gets there does not.
        let _ = lane.ctr().run(&["task", "delete", "--force", container.id()])?;
        container.delete()
    })
}

fn a_shim_killed_while_containerd_is_down_is_cleaned_up_after(lane: &Lane) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let container = lane.start_on(daemon.ctr(), &["--null-io"], &["sleep", "1000"])?;
    let shim = container.shim()?;
    daemon.kill();
    procs::signal(shim, Signal::SIGKILL)?;
    daemon.start_again()?;
    container.forget()
}
