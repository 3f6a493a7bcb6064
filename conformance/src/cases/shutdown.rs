//! The end of the shim: when it is told to, and not before.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use shim_client::Reason;
use shim_protos::task::ShutdownRequest;
use shim_protos::types::Status;

use crate::case::group;
use crate::lab::{Guest, Lab, SOON, eventually, procs};
use crate::wire::Wire;

group! { "shutdown":
    Must ends_without_a_task: "Shutdown before any Create MUST end the shim.";
    Must ends_after_the_last: "Shutdown after the last Delete MUST end the shim.";
    Must removes_its_socket: "A shim that ends MUST remove its socket.";
    Must closes_connections: "A shim that ends MUST close its connections: containerd waits for that.";
    Must stays_for_a_created: "Shutdown MUST NOT end a shim with a created container.";
    Must stays_for_a_running: "Shutdown MUST NOT end a shim with a running container, nor harm that.";
    Must stays_for_an_ended: "Shutdown MUST NOT end a shim with a container that is not deleted: its end would be lost.";
    Must many_at_once: "Several Shutdowns at once MUST end the shim as one does.";
    Should answers_first: "Shutdown SHOULD be answered before the connection ends.";
    Should sigterm_ends_in_order: "SIGTERM SHOULD end a shim without containers, and its socket with it.";
    Must sigterm_can_be_cleaned_up: "After SIGTERM, `delete` MUST clean up what the shim has left.";
    Must events_come_first: "A shim MUST NOT end before containerd has its events.";
}

fn socket(guest: &Guest) -> PathBuf {
    let address = &guest.shim.answer.address;
    Path::new(address.strip_prefix("unix://").unwrap_or(address)).to_owned()
}

async fn ends_without_a_task(lab: &Lab) -> Result<()> {
    lab.bare(&["true"]).await?.shut_down().await
}

/// A container's whole life.
async fn lived(lab: &Lab) -> Result<std::rc::Rc<Guest>> {
    let guest = lab.running(&["true"]).await?;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    Ok(guest)
}

async fn ends_after_the_last(lab: &Lab) -> Result<()> {
    lived(lab).await?.shut_down().await
}

async fn removes_its_socket(lab: &Lab) -> Result<()> {
    let guest = lived(lab).await?;
    let path = socket(&guest);
    guest.shut_down().await?;
    ensure!(!path.exists(), "the shim has ended, and {} is still there", path.display());
    Ok(())
}

async fn closes_connections(lab: &Lab) -> Result<()> {
    let guest = lived(lab).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    guest.shut_down().await?;
    ensure!(wire.is_closed().await?, "the shim has ended, and a connection has not");
    Ok(())
}

/// Shutdown has to change nothing.
async fn expect_stay(guest: &Guest, status: Status) -> Result<()> {
    let pid = guest.shim_pid().await?;
    guest.shutdown().await?;
    // What an ending shim does not do is answer on a new connection.
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    guest.expect_status("", status).await?;
    ensure!(procs::runs(pid), "the shim, process {pid}, has ended");
    wire.call(1, "containerd.task.v2.Task", "Connect", Vec::new()).await?;
    let (stream, _) = wire.response().await?;
    ensure!(stream == 1, "an answer on stream {stream}, expected 1");
    Ok(())
}

async fn stays_for_a_created(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["true"]).await?;
    expect_stay(&guest, Status::CREATED).await?;
    guest.start("").await?;
    guest.expect_exit("", 0).await
}

async fn stays_for_a_running(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    expect_stay(&guest, Status::RUNNING).await?;
    guest.execute("e1").await?;
    guest.kill_and_wait().await
}

async fn stays_for_an_ended(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sh", "-c", "exit 4"]).await?;
    guest.expect_exit("", 4).await?;
    expect_stay(&guest, Status::STOPPED).await?;
    guest.expect_exit("", 4).await
}

async fn many_at_once(lab: &Lab) -> Result<()> {
    let guest = lived(lab).await?;
    guest.shim_pid().await?;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let task = guest.shim.task.clone();
            let request = ShutdownRequest { id: guest.id.clone(), ..Default::default() };
            tokio::spawn(async move { task.shutdown(&request).await })
        })
        .collect();
    for call in calls {
        match call.await? {
            Ok(_) => {}
            Err(error) if error.reason == Reason::Gone => {}
            Err(error) => return Err(error.into()),
        }
    }
    guest.expect_shim_ends().await
}

async fn answers_first(lab: &Lab) -> Result<()> {
    let guest = lived(lab).await?;
    guest.shim_pid().await?;
    guest.shutdown().await?;
    guest.expect_shim_ends().await
}

async fn sigterm_ends_in_order(lab: &Lab) -> Result<()> {
    let guest = lived(lab).await?;
    let path = socket(&guest);
    procs::signal(guest.shim_pid().await?, Signal::SIGTERM)?;
    guest.expect_shim_ends().await?;
    ensure!(!path.exists(), "the shim has ended, and {} is still there", path.display());
    Ok(())
}

async fn sigterm_can_be_cleaned_up(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let (pid, shim) = (guest.pid().await?, guest.shim_pid().await?);
    procs::signal(shim, Signal::SIGTERM)?;
    // One that stays for its container is as good as one that goes.
    eventually(SOON / 5, || !procs::runs(shim)).await;
    lab.clean_up(guest.shim.bundle()).await?;
    ensure!(eventually(SOON, || !procs::runs(pid)).await, "the container, {pid}, still runs");
    Ok(())
}

async fn events_come_first(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.shim_pid().await?;
    guest.wait("").await?;
    guest.delete("").await?;
    guest.shut_down().await?;
    // What was sent is there; nothing more can come.
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}
