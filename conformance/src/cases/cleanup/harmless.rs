//! There is little to clean up, or something that must not be touched.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use shim_client::Bundle;
use shim_protos::types::Status;

use super::clean_up;
use crate::case::group;
use crate::expect::skip;
use crate::lab::{Ask, Lab, SOON, eventually, procs};

group! { "cleanup":
    Must after_a_normal_end: "`delete` MUST succeed after an ordinary end: containerd executes it each time.";
    Should of_what_never_was: "`delete` SHOULD succeed for a container that was never created.";
    Should of_an_empty_bundle: "`delete` SHOULD succeed in an empty bundle.";
    Should with_files_missing: "`delete` SHOULD succeed with any file of the bundle missing.", within(60);
    Must stale_pid_is_not_killed: "`delete` MUST NOT kill a stranger whose pid is in a stale init.pid.";
    Must others_of_the_group_live: "`delete` of one container of a group MUST leave the others alone.";
    Should shim_survives_delete: "`delete` of a running container SHOULD end it, and leave its shim serving.";
    Should failed_start_is_cleaned_up: "`delete` SHOULD succeed after a `start` without any Create.";
}

async fn after_a_normal_end(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    guest.shut_down().await?;
    lab.clean_up(guest.shim.bundle()).await?;
    Ok(())
}

async fn of_what_never_was(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("c", Some(&lab.spec("c", &["true"]).build()))?;
    expect_answer(lab, &bundle).await
}

/// containerd makes an event of what it is told, so that something has to be told.
async fn expect_answer(lab: &Lab, bundle: &Bundle) -> Result<()> {
    let told = lab.clean_up(bundle).await?;
    ensure!(told.exited_at.is_some(), "DeleteResponse tells no time");
    Ok(())
}

async fn of_an_empty_bundle(lab: &Lab) -> Result<()> {
    let bundle = lab.bundle("c", None)?;
    fs::remove_dir(bundle.rootfs()).context("remove the rootfs")?;
    fs::remove_file(bundle.log()).context("remove the log")?;
    expect_answer(lab, &bundle).await
}

async fn with_files_missing(lab: &Lab) -> Result<()> {
    for number in 0.. {
        let guest = lab.running(&["true"]).await?;
        guest.wait("").await?;
        guest.delete("").await?;
        guest.kill_shim().await?;
        let bundle = guest.shim.bundle();
        let mut files = Vec::new();
        for entry in fs::read_dir(bundle.path())? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                files.push(entry.path());
            }
        }
        files.sort();
        let Some(file) = files.get(number) else {
            clean_up(lab, &guest).await?;
            break;
        };
        let name = file.file_name().unwrap_or_default().display().to_string();
        fs::remove_file(file).with_context(|| format!("remove {name}"))?;
        clean_up(lab, &guest).await.with_context(|| format!("without {name}"))?;
    }
    Ok(())
}

/// A process that is none of the shim's business, for as long as the value lives.
struct Stranger(Child);

impl Stranger {
    fn start() -> Result<Self> {
        let mut command = Command::new("sleep");
        command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("start a stranger")?))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // One that was killed already makes no difference here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn stale_pid_is_not_killed(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.kill_shim().await?;
    let stranger = Stranger::start()?;
    let pid = stranger.0.id();
    fs::write(guest.shim.bundle().path().join("init.pid"), pid.to_string())?;
    clean_up(lab, &guest).await?;
    ensure!(procs::runs(pid), "`delete` has killed process {pid}, which is a stranger");

    let never = lab.bundle("never", Some(&lab.spec("never", &["true"]).build()))?;
    fs::write(never.path().join("init.pid"), pid.to_string())?;
    // Whether that succeeds is a case of its own.
    let _ = lab.clean_up(&never).await;
    ensure!(procs::runs(pid), "`delete` has killed process {pid}, which is a stranger");
    Ok(())
}

async fn others_of_the_group_live(lab: &Lab) -> Result<()> {
    let stays = lab.run(Ask::new(&["sleep", "1000"]).group("g").id("g")).await?;
    let goes = lab.run(Ask::new(&["sleep", "1000"]).group("g")).await?;
    if stays.shim.answer != goes.shim.answer {
        return skip("the shim does not group containers");
    }
    let (pid, mounts) = (stays.pid().await?, stays.mounts()?);
    goes.kill_and_wait().await?;
    goes.delete("").await?;
    lab.clean_up(goes.shim.bundle()).await?;
    stays.expect_status("", Status::RUNNING).await?;
    ensure!(procs::runs(pid), "process {pid} of the other container has ended");
    ensure!(stays.mounts()? == mounts, "the other container's mounts were {mounts:?}");
    stays.execute("e1").await?;
    stays.kill_and_wait().await
}

async fn shim_survives_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = guest.pid().await?;
    let shim = guest.shim_pid().await?;
    lab.clean_up(guest.shim.bundle()).await?;
    ensure!(eventually(SOON, || !procs::runs(pid)).await, "the container, {pid}, still runs");
    ensure!(procs::runs(shim), "the shim, process {shim}, has ended");
    guest.expect_exit("", 137).await?;
    guest.await_status("", Status::STOPPED).await
}

async fn failed_start_is_cleaned_up(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    guest.kill_shim().await?;
    clean_up(lab, &guest).await?;
    Ok(())
}
