//! The shim was killed, and its container was not.

use std::fs;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use shim_client::execute;
use shim_protos::protobuf::Message;
use shim_protos::task::DeleteResponse;

use super::{clean_up, forget_socket};
use crate::case::group;
use crate::expect::optional;
use crate::lab::{Ask, Guest, Io, Lab, SOON, eventually, leaks, procs};

group! { "cleanup":
    Must ends_the_container: "After the shim was killed, `delete` MUST kill the container and unmount its rootfs.";
    Must tells_the_end: "DeleteResponse MUST tell status 137 and a time that is now.";
    Should tells_the_pid: "DeleteResponse SHOULD tell the pid of the container.";
    Must answer_is_one_message: "`delete` MUST print a DeleteResponse and nothing else to stdout.";
    Must ends_execs_too: "`delete` MUST kill the execs, too.";
    Must ends_a_paused_one: "`delete` MUST kill a container that is paused.";
    Must ends_a_created_one: "`delete` MUST remove a container that was never started.";
    Must ends_all_in_the_hosts_pids: "`delete` MUST kill every process of a container that has the host's pids.";
    Must cleans_up_an_ended_one: "`delete` MUST clean up a container that ended by itself, before or after its shim.";
    Must works_twice: "`delete` MUST succeed when it has been executed before.";
    Should removes_the_socket: "`delete` SHOULD remove the socket of the killed shim.";
    Should removes_the_cgroup: "`delete` SHOULD remove the container's cgroup.";
    Should another_can_start: "After `delete`, `start` and Create of the same id SHOULD work again.";
}

/// A container without a shim.
async fn orphaned(lab: &Lab) -> Result<(Rc<Guest>, u32)> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = guest.pid().await?;
    guest.kill_shim().await?;
    Ok((guest, pid))
}

/// `delete` has to leave none of these processes, and no mount.
async fn expect_clean_up(lab: &Lab, guest: &Guest, pids: &[u32]) -> Result<DeleteResponse> {
    let told = clean_up(lab, guest).await?;
    for pid in pids {
        ensure!(
            eventually(SOON, || !procs::runs(*pid)).await,
            "`delete` succeeds, and process {pid} of the container still runs"
        );
    }
    let mounts = guest.mounts()?;
    ensure!(mounts.is_empty(), "`delete` succeeds, and leaves mounts: {mounts:?}");
    Ok(told)
}

async fn ends_the_container(lab: &Lab) -> Result<()> {
    let (guest, pid) = orphaned(lab).await?;
    expect_clean_up(lab, &guest, &[pid]).await?;
    Ok(())
}

async fn tells_the_end(lab: &Lab) -> Result<()> {
    let (guest, _) = orphaned(lab).await?;
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let told = clean_up(lab, &guest).await?;
    ensure!(told.exit_status == 137, "exit status {}, expected 137", told.exit_status);
    let at = u64::try_from(told.exited_at.seconds).unwrap_or(0);
    ensure!((before - 1..before + 10).contains(&at), "it ended at {at}, and it is {before}");
    Ok(())
}

async fn tells_the_pid(lab: &Lab) -> Result<()> {
    let (guest, pid) = orphaned(lab).await?;
    let told = clean_up(lab, &guest).await?.pid;
    ensure!(told == pid, "pid {told}, expected {pid}");
    Ok(())
}

async fn answer_is_one_message(lab: &Lab) -> Result<()> {
    let (guest, _) = orphaned(lab).await?;
    let bundle = guest.shim.bundle();
    let path = bundle.path().to_str().context("a path in UTF-8")?;
    let action = ["-bundle", path, "delete"];
    let daemon = lab.daemon();
    let delete = execute::raw(&daemon, &lab.subject.binary, bundle, &action, None);
    let output = procs::while_reaping(delete).await?;
    forget_socket(&guest);
    ensure!(output.status.success(), "{}: {}", output.status, output.stderr_text());
    let told = DeleteResponse::parse_from_bytes(&output.stdout).context("decode the answer")?;
    let unknown = told.special_fields.unknown_fields().iter().count();
    ensure!(unknown == 0, "DeleteResponse has {unknown} fields that there are not");
    let own = told.write_to_bytes()?.len();
    let all = output.stdout.len();
    ensure!(own == all, "{all} bytes on stdout, of which DeleteResponse is {own}");
    Ok(())
}

async fn ends_execs_too(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let init = guest.pid().await?;
    let exec = optional(guest.started("e1", &["sleep", "1000"]).await)?;
    guest.kill_shim().await?;
    expect_clean_up(lab, &guest, &[init, exec]).await?;
    Ok(())
}

async fn ends_a_paused_one(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = guest.pid().await?;
    guest.shim_pid().await?;
    optional(guest.pause().await)?;
    guest.kill_shim().await?;
    expect_clean_up(lab, &guest, &[pid]).await?;
    Ok(())
}

async fn ends_a_created_one(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["sleep", "1000"]).await?;
    let pid = guest.pid().await?;
    guest.kill_shim().await?;
    expect_clean_up(lab, &guest, &[pid]).await?;
    Ok(())
}

async fn ends_all_in_the_hosts_pids(lab: &Lab) -> Result<()> {
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    let guest = lab.run(Ask::sh(script).io(Io::Pipes).host_pid()).await?;
    guest.expect_output("ready").await?;
    let pids: Vec<u32> = guest.pids().await?.processes.iter().map(|one| one.pid).collect();
    ensure!(pids.len() == 3, "Pids says {pids:?}, expected three");
    guest.kill_shim().await?;
    expect_clean_up(lab, &guest, &pids).await?;
    Ok(())
}

async fn cleans_up_an_ended_one(lab: &Lab) -> Result<()> {
    let before = lab.running(&["true"]).await?;
    before.wait("").await?;
    before.kill_shim().await?;
    expect_clean_up(lab, &before, &[]).await?;

    let (after, pid) = orphaned(lab).await?;
    procs::signal(pid, nix::sys::signal::Signal::SIGKILL)?;
    expect_clean_up(lab, &after, &[pid]).await?;
    Ok(())
}

async fn works_twice(lab: &Lab) -> Result<()> {
    let (guest, pid) = orphaned(lab).await?;
    for _ in 0..3 {
        expect_clean_up(lab, &guest, &[pid]).await?;
    }
    Ok(())
}

async fn removes_the_socket(lab: &Lab) -> Result<()> {
    let (guest, _) = orphaned(lab).await?;
    lab.clean_up(guest.shim.bundle()).await?;
    let address = &guest.shim.answer.address;
    let path = address.strip_prefix("unix://").unwrap_or(address);
    ensure!(!fs::exists(path)?, "the socket is still there: {path}");
    Ok(())
}

async fn removes_the_cgroup(lab: &Lab) -> Result<()> {
    let (guest, _) = orphaned(lab).await?;
    clean_up(lab, &guest).await?;
    let left = leaks::cgroups(&lab.daemon().namespace);
    ensure!(left.is_empty(), "`delete` leaves cgroups: {left:?}");
    Ok(())
}

async fn another_can_start(lab: &Lab) -> Result<()> {
    let (guest, _) = orphaned(lab).await?;
    let id = guest.id.clone();
    clean_up(lab, &guest).await?;
    guest.shim.bundle().remove()?;
    fs::remove_dir_all(lab.folder.join("rootfs").join(&id))?;
    let another = lab.run(Ask::new(&["true"]).id(&id)).await?;
    another.expect_exit("", 0).await?;
    another.delete("").await?;
    another.shut_down().await
}
