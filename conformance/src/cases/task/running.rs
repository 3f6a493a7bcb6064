//! What a running or paused container allows.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use shim_protos::types::Status;

use crate::case::group;
use crate::expect::{optional, refused};
use crate::lab::{Ask, Guest, Io, Lab, eventually, procs};

group! { "task":
    Must start_twice: "A second Start MUST be refused, and leave the container alone.";
    Must delete_while_running: "Delete of a running container MUST be refused, and leave it and its rootfs alone.";
    Must delete_while_paused: "Delete of a paused container MUST be refused, and leave it alone.";
    Should resume_while_running: "Resume of a running container SHOULD be refused.";
    Must pause_stops_the_program: "Pause MUST stop the program, State MUST say PAUSED, and Resume let it go on.";
    Should pause_twice: "Pause of a paused container SHOULD be refused, and it stays resumable.";
    Must kill_while_paused: "A container that is killed while paused MUST end once it is resumed.";
    Should exec_while_paused: "An exec in a paused container SHOULD be refused, or run once it is resumed.";
    Must pids_while_paused: "Pids MUST list the processes of a paused container.";
}

async fn start_twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    refused(guest.start("").await)?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}

async fn delete_while_running(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let (pid, mounts) = (guest.pid().await?, guest.mounts()?);
    refused(guest.delete("").await)?;
    guest.expect_status("", Status::RUNNING).await?;
    ensure!(procs::runs(pid), "the refused Delete ends the container");
    let now = guest.mounts()?;
    ensure!(now == mounts, "mounts were {mounts:?}, and are {now:?} after the refused Delete");
    guest.kill_and_wait().await
}

async fn delete_while_paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.pause().await)?;
    refused(guest.delete("").await)?;
    guest.expect_status("", Status::PAUSED).await?;
    guest.resume().await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill_and_wait().await
}

async fn resume_while_running(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.pause().await)?;
    guest.resume().await?;
    refused(guest.resume().await)?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill_and_wait().await
}

async fn pause_stops_the_program(lab: &Lab) -> Result<()> {
    let guest = lab.run(Ask::new(&["cat"]).io(Io::Pipes)).await?;
    optional(guest.pause().await)?;
    guest.expect_status("", Status::PAUSED).await?;
    let pid = guest.pid().await?;
    write(&guest, b"while paused\n")?;
    // A frozen process is in the state D or S, with nothing to show it: what counts is that it
    // does nothing, for as long as one takes to notice.
    let said = eventually(Duration::from_millis(100), || !guest.stdout.text().is_empty());
    ensure!(!said.await, "the paused program (process {pid}) reads and writes");
    guest.resume().await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.expect_output("while paused").await?;
    guest.kill_and_wait().await
}

fn write(guest: &Guest, bytes: &[u8]) -> Result<()> {
    let path = Path::new(&guest.uris()[0]);
    ensure!(path.exists(), "no fifo at {}", path.display());
    Ok(guest.stdin()?.write_all(bytes)?)
}

async fn pause_twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.pause().await)?;
    refused(guest.pause().await)?;
    guest.expect_status("", Status::PAUSED).await?;
    guest.resume().await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill_and_wait().await
}

async fn kill_while_paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.pause().await)?;
    guest.kill("", 9).await?;
    // Whether it ends now depends on the cgroup's version; then there is nothing to resume.
    let _ = guest.resume().await;
    guest.expect_exit("", 137).await?;
    guest.delete("").await?;
    Ok(())
}

async fn exec_while_paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.pause().await)?;
    let added = guest.exec("e1", &["true"]).await;
    guest.resume().await?;
    if added.is_ok() {
        guest.start("e1").await?;
        guest.expect_exit("e1", 0).await?;
    }
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill_and_wait().await
}

async fn pids_while_paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = guest.pid().await?;
    optional(guest.pause().await)?;
    let told: Vec<u32> = guest.pids().await?.processes.iter().map(|one| one.pid).collect();
    ensure!(told.contains(&pid), "Pids of the paused container says {told:?}, without {pid}");
    guest.resume().await?;
    guest.kill_and_wait().await
}
