//! Connections: many, idle, slow, and gone too early.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shim_protos::protobuf::Message;
use shim_protos::task::{StateResponse, WaitRequest};
use shim_protos::types::Status;
use ttrpc::Code;
use ttrpc::proto::Request;

use super::{expect_service, state_of};
use crate::case::group;
use crate::lab::signals::KILL;
use crate::lab::{Lab, SLEEP, SOON, eventually, procs};
use crate::wire::{REQUEST, Wire};

group! { "wire":
    Must one_byte: "A connection that sends one byte and stays MUST NOT hold up others.";
    Must idle: "300 idle connections MUST NOT hold up others, and not stay once they are closed.";
    Must pipelined: "2,000 calls on one connection MUST all be answered, each on its stream.";
    Must out_of_order: "A call MUST be answered while an earlier one on the same connection waits.";
    Must vanishes_in_create: "A client that vanishes during Create MUST leave a container, or none, and a shim.";
    Should both_services: "Versions 2 and 3 of the task service SHOULD both be served.";
}

async fn one_byte(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        wire.send(&[0]).await?;
        wires.push(wire);
    }
    expect_service(&guest).await?;
    guest.started("e", &["true"]).await?;
    guest.expect_exit("e", 0).await
}

async fn idle(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let shim = guest.shim_pid().await?;
    let before = procs::open_files(shim)?;
    let mut wires = Vec::new();
    for _ in 0..300 {
        wires.push(Wire::connect(&guest.shim.answer.address).await?);
    }
    expect_service(&guest).await?;
    let last = wires.last_mut().context("the last connection")?;
    last.frame(1, REQUEST, &state_of(&guest)?.write_to_bytes()?).await?;
    let code = last.response().await?.1.status().code();
    ensure!(code == Code::OK, "State on the last of 300 connections: {code:?}");
    drop(wires);
    let back = || procs::open_files(shim).is_ok_and(|now| now <= before + 2);
    ensure!(
        eventually(SOON, back).await,
        "before 300 connections {before} descriptors, after their end {}",
        procs::open_files(shim)?
    );
    Ok(())
}

async fn pipelined(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    let state = state_of(&guest)?.write_to_bytes()?;
    // As many at a time as fit into the buffers of a socket in both directions.
    for batch in 0..20_u32 {
        let streams: Vec<u32> = (0..100).map(|number| (batch * 100 + number) * 2 + 1).collect();
        for stream in &streams {
            wire.frame(*stream, REQUEST, &state).await?;
        }
        let mut answered = Vec::new();
        for _ in &streams {
            let (stream, response) = wire.response().await?;
            let state = StateResponse::parse_from_bytes(&response.payload)?;
            ensure!(state.id == guest.id, "an answer about {:?}: {response:?}", state.id);
            answered.push(stream);
        }
        answered.sort_unstable();
        ensure!(answered == streams, "not every call of batch {batch} is answered");
    }
    Ok(())
}

async fn out_of_order(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    let wait = WaitRequest { id: guest.id.clone(), ..Default::default() };
    wire.call(1, guest.service(), "Wait", wait.write_to_bytes()?).await?;
    wire.frame(3, REQUEST, &state_of(&guest)?.write_to_bytes()?).await?;
    let (stream, response) = wire.response().await?;
    ensure!(stream == 3, "stream {stream} is answered first: {response:?}");
    guest.kill("", KILL).await?;
    let (stream, response) = wire.response().await?;
    ensure!(stream == 1, "then stream {stream} is answered: {response:?}");
    Ok(())
}

async fn vanishes_in_create(lab: &Lab) -> Result<()> {
    for pause in [0, 2, 20] {
        let guest = lab.bare(&SLEEP).await?;
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        let request = guest.create_request().write_to_bytes()?;
        wire.call(1, guest.service(), "Create", request).await?;
        // At various points of the work: the outcome has to be a whole one at each.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(wire);
        let mut status = None;
        for _ in 0..100 {
            match guest.state("").await {
                Ok(state) => status = Some(state.status.enum_value_or_default()),
                Err(error) => ensure!(error.is_not_found(), "State: {error}"),
            }
            if status == Some(Status::CREATED) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A Create that was broken off is containerd's to clean up, by the `delete` action.
        if status.is_some() {
            guest.start("").await?;
            guest.kill_and_wait().await?;
            guest.delete("").await?;
        }
        guest.connect().await.context("Connect afterwards")?;
    }
    Ok(())
}

async fn both_services(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    for (version, stream) in [(2, 1), (3, 3)] {
        let service = format!("containerd.task.v{version}.Task");
        let request = Request { service, ..state_of(&guest)? };
        wire.frame(stream, REQUEST, &request.write_to_bytes()?).await?;
        let (_, response) = wire.response().await?;
        let status = response.status();
        ensure!(status.code() == Code::OK, "version {version}: {:?}", status.message);
    }
    Ok(())
}
