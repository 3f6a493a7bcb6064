//! containerd goes and comes back; pods do not notice.

use std::fs;

use anyhow::{Result, ensure};
use integration::cri::container::{Container, Draft};
use integration::cri::stage::Stage;
use integration::daemon::Daemon;
use integration::engine::Engine;
use integration::messages::cri::{ContainerState, PodState};
use integration::wait::{self, SOON};

integration::pod_tests![
    a_pod_outlives_an_orderly_stop_of_containerd,
    a_pod_outlives_a_crash_of_containerd,
    an_end_while_containerd_is_away_is_told,
    a_pod_is_ended_after_containerd_came_back,
];

fn a_pod_outlives_an_orderly_stop_of_containerd(stage: &Stage<'_>) -> Result<()> {
    outlive(stage, Daemon::stop)
}

fn a_pod_outlives_a_crash_of_containerd(stage: &Stage<'_>) -> Result<()> {
    outlive(stage, |daemon| {
        daemon.kill();
        Ok(())
    })
}

fn outlive(stage: &Stage<'_>, end: fn(&mut Daemon) -> Result<()>) -> Result<()> {
    let mut stage = stage.apart()?;
    let pod = stage.pod()?;
    let address = pod.status()?.network.ip.clone();
    let ticks = "while :; do echo tick; sleep 0.05; done";
    let writer = pod.start(&Draft::new("writer", &["sh", "-c", ticks]))?;
    let sleeper = pod.sleeper("sleeper")?;
    writer.wait_line("tick")?;
    end(stage.daemon()?)?;
    stage.daemon()?.start_again()?;

    let status = pod.status()?;
    assert_eq!((status.state, &status.network.ip), (PodState::SANDBOX_READY.into(), &address));
    for container in [&writer, &sleeper] {
        assert_eq!(container.status()?.state, ContainerState::CONTAINER_RUNNING.into());
        assert_eq!(container.exec(&["echo", "well"])?, "well");
    }
    let logged = writer.log()?.len();
    wait::until("more in the log", SOON, || {
        let now = writer.log()?.len();
        ensure!(now > logged, "{now} lines");
        Ok(())
    })?;
    // One more, which finds the pod's shim again.
    assert_eq!(pod.start(&Draft::new("late", &["sh", "-c", "exit 4"]))?.wait()?.exit_code, 4);
    sleeper.stop(0)?;
    assert_eq!(sleeper.wait()?.exit_code, 137);
    pod.remove()
}

fn an_end_while_containerd_is_away_is_told(stage: &Stage<'_>) -> Result<()> {
    let mut stage = stage.apart()?;
    let volume = stage.folder()?;
    let pod = stage.pod()?;
    let sleeper = pod.sleeper("sleeper")?;
    // In the container at the path that it has outside: a shim without root file systems has it too.
    let path = volume.path().to_string_lossy();
    let script = format!("cd {path}; while [ ! -e end ]; do sleep 0.05; done; touch ended; exit 9");
    let draft = Draft::new("ending", &["sh", "-c", &script]);
    let ending = pod.start(&draft.mount(&path, &path, false))?;
    stage.daemon()?.kill();
    fs::write(volume.path().join("end"), "")?;
    wait::until("the container's last deed", SOON, || {
        ensure!(volume.path().join("ended").exists(), "it runs");
        Ok(())
    })?;
    stage.daemon()?.start_again()?;
    let status = ending.wait()?;
    // From 1.7 on containerd takes a task without a process for a leftover, and deletes it unasked.
    let codes: &[i32] = if stage.lane().engine() == Engine::V16 { &[9] } else { &[9, 255] };
    assert!(codes.contains(&status.exit_code), "{status:?}");
    runs(&sleeper)?;
    assert_eq!(pod.status()?.state, PodState::SANDBOX_READY.into());
    pod.remove()
}

fn runs(container: &Container) -> Result<()> {
    assert_eq!(container.status()?.state, ContainerState::CONTAINER_RUNNING.into());
    assert_eq!(container.exec(&["echo", "well"])?, "well");
    Ok(())
}

fn a_pod_is_ended_after_containerd_came_back(stage: &Stage<'_>) -> Result<()> {
    let mut stage = stage.apart()?;
    let (ended, left) = (stage.pod()?, stage.pod()?);
    runs(&ended.sleeper("one")?)?;
    left.sleeper("one")?;
    // Its clean-up is under way when containerd goes.
    ended.stop()?;
    stage.daemon()?.kill();
    stage.daemon()?.start_again()?;
    ended.wait_state(PodState::SANDBOX_NOTREADY)?;
    ended.remove()?;
    left.remove()
}
