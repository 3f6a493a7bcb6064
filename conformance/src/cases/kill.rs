//! Kill: whom a signal reaches, and whom it does not.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shim_protos::task::KillRequest;
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::signals::{self, KILL, TERM, status_of};
use crate::lab::{Ask, Io, Lab, SLEEP, SOON, eventually, procs};

group! { "kill":
    Must signal_zero: "Kill with signal 0 of a process that lives MUST succeed and do nothing.";
    Must bad_signal: "Kill with a signal that does not exist MUST be refused, and do nothing.";
    Must handled: "Kill MUST send the very signal that it names, a real-time one too.";
    Must created: "Kill of a container that was not started MUST end it, with the signal's status.";
    Must all: "Kill with `all` MUST reach execs and the children of processes.";
    Must after_exit: "Kill of a container that has ended MUST be NOT_FOUND.";
    Must all_after_exit: "Kill with `all` of a container that has ended MUST succeed or be NOT_FOUND.";
    Must one_exec: "Kill of an exec MUST reach that exec alone.";
    Must ended_exec: "Kill of an exec that has ended MUST be NOT_FOUND.";
    Must unknown: "Kill of a container that does not exist MUST be NOT_FOUND.";
    Must paused: "SIGKILL to a paused container MUST end it, at the latest when it is resumed.";
    Must host_pids_init: "Without a pid namespace, the init's end MUST end the container's other processes.";
    Must host_pids_all: "Without a pid namespace, Kill with `all` MUST reach every process.";
}

async fn signal_zero(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &SLEEP).await?;
    guest.kill("", signals::NONE).await?;
    guest.kill("e", signals::NONE).await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.expect_status("e", Status::RUNNING).await?;
    ensure!(procs::runs(pid), "the exec has ended");
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await
}

async fn bad_signal(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for signal in [65, 200, u32::MAX] {
        expect::refused(guest.kill("", signal).await)
            .with_context(|| format!("signal {signal}"))?;
    }
    guest.expect_status("", Status::RUNNING).await
}

async fn handled(lab: &Lab) -> Result<()> {
    for signal in [signals::INT, TERM, signals::USR1, signals::REAL_TIME] {
        let script =
            format!("trap 'exit {signal}' {signal}; echo ready; while :; do sleep 0.02; done");
        let guest = lab.run(Ask::sh(&script).io(Io::Pipes)).await?;
        guest.expect_output("ready").await?;
        guest.kill("", signal).await?;
        guest.expect_exit("", signal).await?;
    }
    Ok(())
}

async fn created(lab: &Lab) -> Result<()> {
    let guest = lab.created(&SLEEP).await?;
    let pid = guest.pid().await?;
    let waiting = guest.waiting("");
    guest.kill("", KILL).await?;
    let status = waiting.await??.exit_status;
    ensure!(status == status_of(KILL), "Wait tells exit status {status}");
    ensure!(!procs::runs(pid), "process {pid} still runs");
    guest.await_status("", Status::STOPPED).await?;
    guest.delete("").await?;
    Ok(())
}

async fn all(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e1", &SLEEP).await?;
    guest.started("e2", &["/bin/sh", "-c", "sleep 1000 & wait"]).await?;
    let complete = async || anyhow::Ok(guest.pids().await?.processes.len());
    let deadline = tokio::time::Instant::now() + SOON;
    while complete().await? < 4 {
        ensure!(tokio::time::Instant::now() < deadline, "Pids does not tell four processes");
        tokio::task::yield_now().await;
    }
    let all = guest.pids().await?.processes;
    let init = guest.pid().await?;
    // The init process of a pid namespace is deaf to what it does not handle; the others are not.
    guest.kill_all(TERM).await?;
    guest.expect_exit("e1", status_of(TERM)).await?;
    guest.expect_exit("e2", status_of(TERM)).await?;
    let others = || all.iter().all(|process| process.pid == init || !procs::runs(process.pid));
    ensure!(eventually(SOON, others).await, "not all of {all:?} have ended");
    guest.expect_status("", Status::RUNNING).await
}

async fn after_exit(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.kill_and_wait().await?;
    guest.await_status("", Status::STOPPED).await?;
    expect::code(guest.kill("", KILL).await, Code::NOT_FOUND)?;
    expect::code(guest.kill("", signals::NONE).await, Code::NOT_FOUND)
}

async fn all_after_exit(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.kill_and_wait().await?;
    guest.await_status("", Status::STOPPED).await?;
    match guest.kill_all(KILL).await {
        Ok(_) => {}
        answer => expect::code(answer, Code::NOT_FOUND)?,
    }
    guest.delete("").await?;
    Ok(())
}

async fn one_exec(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e1", &SLEEP).await?;
    guest.started("e2", &SLEEP).await?;
    guest.kill("e1", KILL).await?;
    guest.expect_exit("e1", status_of(KILL)).await?;
    guest.expect_status("e2", Status::RUNNING).await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill("e2", TERM).await?;
    guest.expect_exit("e2", status_of(TERM)).await
}

async fn ended_exec(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &["true"]).await?;
    guest.wait("e").await?;
    expect::code(guest.kill("e", KILL).await, Code::NOT_FOUND)?;
    guest.delete("e").await?;
    expect::code(guest.kill("e", KILL).await, Code::NOT_FOUND)?;
    guest.expect_status("", Status::RUNNING).await
}

async fn unknown(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let request = KillRequest { id: "nobody".to_owned(), signal: KILL, ..Default::default() };
    expect::code(guest.shim.task.kill(&request).await, Code::NOT_FOUND)?;
    guest.expect_status("", Status::RUNNING).await
}

async fn paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    guest.kill("", KILL).await?;
    // On cgroup v1 a frozen process cannot die.
    if guest.state("").await?.status.enum_value_or_default() == Status::PAUSED {
        let _ = guest.resume().await;
    }
    guest.expect_exit("", status_of(KILL)).await?;
    guest.await_status("", Status::STOPPED).await
}

fn without_pid_namespace(spec: &mut Value) {
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "pid");
    }
}

/// A container with the host's pids and three processes, all of which have to end by that.
async fn host_pids(lab: &Lab, all: bool) -> Result<()> {
    let script = "sleep 1000 & sleep 1000 & echo ready; exec sleep 1000";
    let ask = Ask::sh(script).io(Io::Pipes).json_with(without_pid_namespace);
    let guest = lab.run(ask).await?;
    guest.expect_output("ready").await?;
    let exec = guest.started("e", &SLEEP).await?;
    let pids: Vec<u32> =
        guest.pids().await?.processes.into_iter().map(|process| process.pid).collect();
    ensure!(pids.len() == 4 && pids.contains(&exec), "expected 4 processes, Pids tells {pids:?}");
    let waiting = guest.waiting("");
    if all { guest.kill_all(KILL).await } else { guest.kill("", KILL).await }?;
    let status = waiting.await??.exit_status;
    ensure!(status == status_of(KILL), "Wait tells exit status {status}");
    guest.expect_exit("e", status_of(KILL)).await?;
    let over = || !pids.iter().any(|pid| procs::runs(*pid));
    ensure!(eventually(SOON, over).await, "of {pids:?} some still run");
    guest.delete("").await?;
    Ok(())
}

async fn host_pids_init(lab: &Lab) -> Result<()> {
    host_pids(lab, false).await
}

async fn host_pids_all(lab: &Lab) -> Result<()> {
    host_pids(lab, true).await
}
