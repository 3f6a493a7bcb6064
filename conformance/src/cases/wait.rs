//! Wait: everybody who asks learns how a process ended, once it has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shim_protos::protobuf::Message;
use shim_protos::task::{WaitRequest, WaitResponse};
use tokio::time::timeout;
use ttrpc::Code;
use ttrpc::proto::Request;

use crate::case::group;
use crate::expect;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Guest, Lab, SLEEP, SOON, eventually, procs};
use crate::wire::{REQUEST, Wire};

group! { "wait":
    Must before_start: "Wait MUST be answered when it is sent before the container is started.";
    Must exec_before_start: "Wait MUST be answered when it is sent before an exec is started.";
    Must after_exit: "Wait MUST be answered after the end, with the same status and time each time.";
    Must two_hundred: "Wait MUST be answered to everybody who waits, with the same status.";
    Must survives_delete: "A pending Wait MUST be answered although the container is deleted at once.";
    Must after_delete: "Wait for an exec that has been deleted MUST be NOT_FOUND.";
    Must unknown: "Wait for what does not exist MUST be NOT_FOUND, and not hang.";
    Must failed_start: "Wait for an exec whose Start fails MUST be answered.";
    Should deleted_before_start: "Wait for an exec that is deleted before its start SHOULD be answered.";
    Should deadline: "A Wait SHOULD be answered with DEADLINE_EXCEEDED when the caller's time is over.";
    Must abandoned: "Waits of a client that has gone MUST NOT stay: neither descriptors nor threads.";
}

async fn before_start(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["/bin/sh", "-c", "exit 4"]).await?;
    let waiting = guest.waiting("");
    // The connection keeps no order, but State's answer shows that the shim reads on.
    guest.state("").await?;
    ensure!(!waiting.is_finished(), "Wait is answered before the start");
    guest.start("").await?;
    let status = waiting.await??.exit_status;
    ensure!(status == 4, "Wait tells exit status {status}, expected 4");
    Ok(())
}

async fn exec_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &["/bin/sh", "-c", "exit 5"]).await?;
    let waiting = guest.waiting("e");
    guest.state("e").await?;
    ensure!(!waiting.is_finished(), "Wait is answered before the start");
    guest.start("e").await?;
    let status = waiting.await??.exit_status;
    ensure!(status == 5, "Wait tells exit status {status}, expected 5");
    guest.delete("e").await?;
    Ok(())
}

async fn after_exit(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["/bin/sh", "-c", "exit 6"]).await?;
    let first = guest.wait("").await?;
    ensure!(first.exit_status == 6, "Wait tells exit status {}, expected 6", first.exit_status);
    ensure!(first.exited_at.seconds > 0, "Wait tells no time: {first:?}");
    for _ in 0..3 {
        let again = guest.wait("").await?;
        ensure!(again == first, "Wait answered {first:?}, now {again:?}");
    }
    Ok(())
}

async fn two_hundred(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wires = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        for number in 0..50 {
            wire.frame(2 * number + 1, REQUEST, &wait_frame(&guest, Duration::ZERO)?).await?;
        }
        wires.push(wire);
    }
    guest.kill_and_wait().await?;
    for wire in &mut wires {
        let mut streams = Vec::new();
        for _ in 0..50 {
            let (stream, response) = wire.response().await?;
            let code = response.status().code();
            ensure!(code == Code::OK, "a Wait is refused: {response:?}");
            let answer = WaitResponse::parse_from_bytes(&response.payload)?;
            let status = answer.exit_status;
            ensure!(status == status_of(KILL), "Wait tells exit status {status}");
            streams.push(stream);
        }
        streams.sort_unstable();
        let expected: Vec<u32> = (0..50).map(|number| 2 * number + 1).collect();
        ensure!(streams == expected, "not every Wait is answered: {streams:?}");
    }
    Ok(())
}

async fn survives_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let waits: Vec<_> = (0..20).map(|_| guest.waiting("")).collect();
    guest.state("").await?;
    guest.kill("", KILL).await?;
    // As soon as the shim allows it.
    let deadline = tokio::time::Instant::now() + SOON;
    while let Err(error) = guest.delete("").await {
        ensure!(tokio::time::Instant::now() < deadline, "{error}");
    }
    for wait in waits {
        let status = wait.await??.exit_status;
        ensure!(status == status_of(KILL), "Wait tells exit status {status}");
    }
    Ok(())
}

async fn after_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &["true"]).await?;
    guest.wait("e").await?;
    guest.delete("e").await?;
    expect::code(guest.wait("e").await, Code::NOT_FOUND)
}

async fn unknown(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::code(guest.wait("nobody").await, Code::NOT_FOUND)?;
    let request = WaitRequest { id: "nobody".to_owned(), ..Default::default() };
    let answer = timeout(SOON, guest.shim.task.wait(&request)).await.context("no answer")?;
    expect::code(answer, Code::NOT_FOUND)
}

async fn failed_start(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &["/no/such/program"]).await?;
    let waiting = guest.waiting("e");
    guest.state("e").await?;
    expect::refused(guest.start("e").await)?;
    answered(waiting.await?)?;
    guest.delete("e").await?;
    Ok(())
}

async fn deleted_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &["true"]).await?;
    let waiting = guest.waiting("e");
    guest.state("e").await?;
    guest.delete("e").await?;
    answered(waiting.await?)
}

/// Whatever the answer says, it has to come.
fn answered<T>(answer: Result<T, shim_client::CallError>) -> Result<()> {
    match answer {
        Err(error) if error.code().is_none() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The frame of a Wait for the container's init process.
fn wait_frame(guest: &Guest, limit: Duration) -> Result<Vec<u8>> {
    let request = WaitRequest { id: guest.id.clone(), ..Default::default() };
    let request = Request {
        service: guest.service().to_owned(),
        method: "Wait".to_owned(),
        payload: request.write_to_bytes()?,
        timeout_nano: i64::try_from(limit.as_nanos())?,
        ..Request::default()
    };
    Ok(request.write_to_bytes()?)
}

async fn deadline(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    wire.frame(1, REQUEST, &wait_frame(&guest, Duration::from_millis(200))?).await?;
    let (_, response) = wire.response().await?;
    let code = response.status().code();
    ensure!(code == Code::DEADLINE_EXCEEDED, "expected DEADLINE_EXCEEDED, got {response:?}");
    Ok(())
}

async fn abandoned(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let shim = guest.shim_pid().await?;
    let kept = guest.waiting("");
    guest.state("").await?;
    let (files, threads) = (procs::open_files(shim)?, procs::threads(shim)?);
    for _ in 0..20 {
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        for number in 0..50 {
            wire.frame(2 * number + 1, REQUEST, &wait_frame(&guest, Duration::ZERO)?).await?;
        }
    }
    guest.state("").await?;
    let back = || {
        procs::open_files(shim).is_ok_and(|now| now <= files + 2)
            && procs::threads(shim).is_ok_and(|now| now <= threads + 8)
    };
    ensure!(
        eventually(SOON, back).await,
        "before 1000 abandoned Waits {files} descriptors and {threads} threads, now {} and {}",
        procs::open_files(shim)?,
        procs::threads(shim)?
    );
    guest.kill("", KILL).await?;
    let status = kept.await??.exit_status;
    ensure!(status == status_of(KILL), "the Wait that was kept tells exit status {status}");
    Ok(())
}
