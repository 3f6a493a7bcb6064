//! What a created container, not yet started, allows.

use anyhow::{Result, ensure};
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect::{code, refused};
use crate::lab::{Lab, SOON, eventually, procs};

group! { "task":
    Must pause_before_start: "Pause and Resume before Start MUST be refused, and change nothing.";
    Must delete_before_start: "Delete before Start MUST either be refused or end the container whole.";
    Must kill_before_start: "Kill MUST end a container that was not started, and Wait tell of it.";
    Must create_twice: "A second Create MUST be refused, and leave the first container and its mounts alone.";
    Should create_twice_says_so: "A second Create SHOULD be refused with ALREADY_EXISTS.";
    Must exec_before_start: "An Exec before Start MUST be refused, or be startable once the container runs.";
}

async fn pause_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["true"]).await?;
    refused(guest.pause().await)?;
    refused(guest.resume().await)?;
    guest.expect_status("", Status::CREATED).await?;
    guest.start("").await?;
    guest.expect_exit("", 0).await
}

async fn delete_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let pid = guest.create().await?.pid;
    if guest.delete("").await.is_err() {
        guest.expect_status("", Status::CREATED).await?;
        guest.start("").await?;
        return guest.expect_exit("", 0).await;
    }
    code(guest.state("").await, Code::NOT_FOUND)?;
    ensure!(
        eventually(SOON, || !procs::runs(pid)).await,
        "Delete succeeded, and process {pid} of the container still runs"
    );
    Ok(())
}

async fn kill_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let pid = guest.create().await?.pid;
    guest.kill("", 9).await?;
    guest.expect_exit("", 137).await?;
    ensure!(!procs::runs(pid), "Wait tells the end of process {pid}, which runs");
    guest.delete("").await?;
    Ok(())
}

async fn create_twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let (pid, mounts) = (guest.pid().await?, guest.mounts()?);
    ensure!(!mounts.is_empty(), "the rootfs is not mounted in the bundle");
    refused(guest.create().await)?;
    guest.expect_status("", Status::RUNNING).await?;
    ensure!(guest.pid().await? == pid, "the second Create changes the pid");
    ensure!(procs::runs(pid), "the second Create ends the container");
    let now = guest.mounts()?;
    ensure!(now == mounts, "mounts of the first container were {mounts:?}, and are {now:?}");
    guest.kill_and_wait().await
}

async fn create_twice_says_so(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["true"]).await?;
    code(guest.create().await, Code::ALREADY_EXISTS)
}

async fn exec_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["sleep", "1000"]).await?;
    let added = guest.exec("e1", &["true"]).await;
    guest.start("").await?;
    if added.is_ok() {
        guest.start("e1").await?;
        guest.expect_exit("e1", 0).await?;
    }
    guest.kill_and_wait().await
}
