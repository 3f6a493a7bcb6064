//! From the first call to the last, and how containers end.

use anyhow::{Result, ensure};
use integration::client::refusal;
use integration::cri::container::{Container, Draft};
use integration::cri::network;
use integration::cri::stage::Stage;
use integration::grpc::Code;
use integration::messages::cri::{ContainerState, PodState};
use integration::procs;
use nix::sys::signal::Signal;

integration::pod_tests![
    a_pod_and_its_containers_come_and_go,
    a_container_tells_how_it_ended,
    a_program_that_is_missing_is_named,
    a_container_is_asked_to_end_before_it_is_killed,
    an_ended_container_leaves_its_pod_ready_for_the_next,
    a_pod_ends_with_containers_in_it,
    a_pod_without_containers_ends,
    stopping_and_removing_again_is_no_error,
    a_container_that_was_never_started_is_removed,
    a_pod_whose_shim_is_killed_is_told_and_removed,
];

fn a_pod_and_its_containers_come_and_go(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let status = pod.status()?;
    assert_eq!(status.state, PodState::SANDBOX_READY.into());
    assert!(status.network.ip.starts_with(network::SUBNET), "{status:?}");
    let (one, two) = (pod.sleeper("one")?, pod.sleeper("two")?);
    assert_eq!(states(stage, pod.id())?, [ContainerState::CONTAINER_RUNNING; 2]);
    for container in [one, two] {
        container.stop(0)?;
        assert_eq!(container.wait()?.exit_code, 137);
        container.remove()?;
    }
    assert_eq!(states(stage, pod.id())?, []);
    assert_eq!(pod.status()?.state, PodState::SANDBOX_READY.into());
    pod.remove()
}

fn states(stage: &Stage<'_>, pod: &str) -> Result<Vec<ContainerState>> {
    let containers = stage.cri().containers(pod)?;
    Ok(containers.iter().map(|container| container.state.enum_value_or_default()).collect())
}

fn a_container_tells_how_it_ended(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    for (code, reason) in [(0, "Completed"), (7, "Error")] {
        let exit = format!("exit {code}");
        let container = pod.start(&Draft::new(&exit.replace(' ', "-"), &["sh", "-c", &exit]))?;
        let status = container.wait()?;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason));
        // Their order is not told: containerd notes the start once the shim has answered.
        ensure!(status.finished_at > 0 && status.started_at > 0, "{status:?}");
    }
    pod.remove()
}

fn a_program_that_is_missing_is_named(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let container = Container::create(&pod, &Draft::new("lost", &["/nowhere"]))?;
    let error = container.start().expect_err("there is no such program");
    assert!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    let status = container.status()?;
    assert_eq!(status.state, ContainerState::CONTAINER_EXITED.into());
    assert_eq!(status.reason, "StartError");
    assert_eq!(pod.sleeper("next")?.exec(&["echo", "well"])?, "well");
    pod.remove()
}

/// Says that it is ready to be asked, and then does with SIGTERM what it is told.
fn asked(stage: &Stage<'_>, trap: &str) -> Result<i32> {
    let pod = stage.pod()?;
    let script = format!("trap '{trap}' TERM; echo ready; while :; do sleep 0.05; done");
    let container = pod.start(&Draft::new("asked", &["sh", "-c", &script]))?;
    container.wait_line("ready")?;
    container.stop(1)?;
    let status = container.wait()?;
    pod.remove()?;
    Ok(status.exit_code)
}

fn a_container_is_asked_to_end_before_it_is_killed(stage: &Stage<'_>) -> Result<()> {
    assert_eq!(asked(stage, "exit 5")?, 5);
    assert_eq!(asked(stage, "")?, 137);
    Ok(())
}

fn an_ended_container_leaves_its_pod_ready_for_the_next(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let neighbour = pod.sleeper("neighbour")?;
    for number in 0..3 {
        let container = pod.start(&Draft::new(&format!("life{number}"), &["false"]))?;
        assert_eq!(container.wait()?.exit_code, 1);
        assert_eq!(pod.status()?.state, PodState::SANDBOX_READY.into());
        container.remove()?;
    }
    assert_eq!(neighbour.status()?.state, ContainerState::CONTAINER_RUNNING.into());
    pod.remove()
}

fn a_pod_ends_with_containers_in_it(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let (one, two) = (pod.sleeper("one")?, pod.sleeper("two")?);
    pod.stop()?;
    for container in [one, two] {
        assert_eq!(container.wait()?.exit_code, 137);
    }
    pod.wait_state(PodState::SANDBOX_NOTREADY)?;
    let late = pod.sleeper("late").expect_err("the pod has ended");
    assert!(format!("{late:#}").contains("sandbox"), "{late:#}");
    pod.remove()
}

fn a_pod_without_containers_ends(stage: &Stage<'_>) -> Result<()> {
    stage.pod()?.remove()
}

fn stopping_and_removing_again_is_no_error(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let container = pod.sleeper("one")?;
    for _ in 0..2 {
        container.stop(0)?;
    }
    for _ in 0..2 {
        container.remove()?;
    }
    for _ in 0..2 {
        pod.stop()?;
    }
    for _ in 0..2 {
        pod.forget()?;
    }
    assert_eq!(refusal(pod.status())?, Code::NotFound);
    pod.is_gone()
}

fn a_container_that_was_never_started_is_removed(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let container = Container::create(&pod, &Draft::new("idle", &["true"]))?;
    assert_eq!(container.status()?.state, ContainerState::CONTAINER_CREATED.into());
    container.remove()?;
    Container::create(&pod, &Draft::new("idle", &["true"]))?;
    pod.remove()
}

fn a_pod_whose_shim_is_killed_is_told_and_removed(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let container = pod.sleeper("one")?;
    procs::signal(pod.shim()?, Signal::SIGKILL)?;
    pod.wait_state(PodState::SANDBOX_NOTREADY)?;
    assert_ne!(container.wait()?.exit_code, 0);
    pod.remove()
}
