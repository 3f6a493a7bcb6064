//! Pause and Resume: a container that stands still, and a shim that does not.

use std::time::Duration;

use anyhow::{Result, ensure};
use shim_protos::types::Status;

use crate::case::group;
use crate::expect;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Ask, Guest, Lab, SLEEP, SOON, eventually};

group! { "pause":
    Must stands_still: "A paused container's processes MUST stand still, and go on after Resume.";
    Must execs_stand_still: "A paused container's execs MUST stand still, and go on after Resume.";
    Must states: "State MUST say PAUSED after Pause, and RUNNING after Resume.";
    Must events: "Pause and Resume MUST be told as paused and resumed, in this order.";
    Must twice: "Pause of a paused container MUST be refused, and leave it paused.";
    Must resume_running: "Resume of a running container MUST be refused, and leave it running.";
    Must created: "Pause of a container that was not started MUST be refused.";
    Must stopped: "Pause of a container that has ended MUST be refused.";
    Must delete: "Delete of a paused container MUST be refused, and leave it paused.";
    Must answers: "State, Pids and Connect MUST be answered while the container is paused.";
    Must exit_after_resume: "A container that was paused MUST end as any other.";
}

/// Ends in a file that grows for as long as somebody runs, and that the container shares.
const COUNT: &str = "while :; do echo >> /mnt/count; sleep 0.001; done";

/// The shared file has to stop growing with a Pause, and to grow again after a Resume.
async fn expect_standstill(lab: &Lab, guest: &Guest) -> Result<()> {
    let count = || std::fs::metadata(lab.folder.join("count")).map_or(0, |file| file.len());
    ensure!(eventually(SOON, || count() > 0).await, "the process does not begin to count");
    expect::optional(guest.pause().await)?;
    let paused = count();
    let grows = eventually(Duration::from_millis(150), || count() > paused).await;
    ensure!(!grows, "the process went on from {paused} to {} while paused", count());
    guest.resume().await?;
    ensure!(eventually(SOON, || count() > paused).await, "nothing goes on after Resume");
    Ok(())
}

async fn stands_still(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::sh(COUNT).sharing(&lab.folder)).await?;
    expect_standstill(lab, &guest).await
}

async fn execs_stand_still(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::new(&SLEEP).sharing(&lab.folder)).await?;
    guest.started("e", &["/bin/sh", "-c", COUNT]).await?;
    expect_standstill(lab, &guest).await?;
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await
}

async fn states(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    guest.expect_status("", Status::PAUSED).await?;
    guest.resume().await?;
    guest.expect_status("", Status::RUNNING).await
}

async fn events(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    guest.resume().await?;
    lab.expect_topics(&guest.id, &["create", "start", "paused", "resumed"]).await
}

async fn twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    expect::refused(guest.pause().await)?;
    guest.expect_status("", Status::PAUSED).await?;
    guest.resume().await?;
    guest.expect_status("", Status::RUNNING).await
}

async fn resume_running(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::refused(guest.resume().await)?;
    guest.expect_status("", Status::RUNNING).await?;
    ensure!(
        lab.count_topic(&guest.id, "resumed") == 0,
        "a resumed event: {:?}",
        lab.topics(&guest.id)
    );
    Ok(())
}

async fn created(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["/bin/sh", "-c", "exit 3"]).await?;
    expect::refused(guest.pause().await)?;
    guest.expect_status("", Status::CREATED).await?;
    guest.start("").await?;
    guest.expect_exit("", 3).await
}

async fn stopped(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.await_status("", Status::STOPPED).await?;
    expect::refused(guest.pause().await)?;
    expect::refused(guest.resume().await)?;
    guest.expect_status("", Status::STOPPED).await
}

async fn delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    expect::refused(guest.delete("").await)?;
    guest.expect_status("", Status::PAUSED).await?;
    guest.resume().await?;
    guest.expect_status("", Status::RUNNING).await
}

async fn answers(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.pid().await?;
    guest.started("e", &SLEEP).await?;
    expect::optional(guest.pause().await)?;
    ensure!(guest.pid().await? == pid, "State tells another pid");
    let pids = guest.pids().await?.processes;
    ensure!(pids.len() == 2, "expected 2 processes, Pids tells {pids:?}");
    ensure!(guest.connect().await?.task_pid == pid, "Connect tells another pid");
    guest.state("e").await?;
    guest.resume().await?;
    Ok(())
}

async fn exit_after_resume(lab: &Lab) -> Result<()> {
    let script = "until [ -e /mnt/go ]; do sleep 0.01; done; exit 8";
    let guest = lab.run(Ask::sh(script).sharing(&lab.folder)).await?;
    expect::optional(guest.pause().await)?;
    std::fs::write(lab.folder.join("go"), "")?;
    guest.resume().await?;
    guest.expect_exit("", 8).await?;
    lab.expect_topics(&guest.id, &["create", "start", "paused", "resumed", "exit"]).await?;
    guest.delete("").await?;
    Ok(())
}
