//! Streams as no client of containerd's speaks them.

use std::rc::Rc;

use anyhow::{Result, ensure};
use shim_client::Generation;
use shim_protos::Any;
use shim_protos::protobuf::Message;
use shim_protos::streaming::{Data, StreamInit, WindowUpdate};
use shim_protos::types::Status;
use ttrpc::proto::Request;

use super::flow::until_held;
use super::{open, run, running, serving};
use crate::case::group;
use crate::lab::{Ask, Guest, Lab, procs};
use crate::wire::{DATA, REQUEST, Wire};

group! { "streaming":
    Must data_for_nobody: "Data for a stream that is not open MUST NOT harm others.", since(Generation::V2_0);
    Must data_after_close: "Data after the end of a stream MUST NOT harm others.", since(Generation::V2_0);
    Must data_without_room: "Input that there is no room for MUST NOT be kept.", since(Generation::V2_0);
    Must long_data: "A message of 5 MiB MUST NOT grow the shim, nor harm others.", since(Generation::V2_0);
    Must nonsense: "Messages that make no sense MUST NOT harm others.", since(Generation::V2_0);
    Must no_name: "Streams that are never named MUST NOT harm others.", since(Generation::V2_0);
    Must many: "A thousand streams on one connection MUST NOT harm others.", since(Generation::V2_0);
    Must unread: "A client with many streams that reads nothing MUST NOT grow the shim.", since(Generation::V2_0);
}

const CLOSED: u8 = 1;
const OPEN: u8 = 2;
const EMPTY: u8 = 4;

fn request() -> Result<Vec<u8>> {
    let request = Request {
        service: "containerd.services.streaming.v1.Streaming".to_owned(),
        method: "Stream".to_owned(),
        ..Request::default()
    };
    Ok(request.write_to_bytes()?)
}

fn any(name: &str, message: &impl Message) -> Result<Vec<u8>> {
    let value = message.write_to_bytes()?;
    Ok(Any { type_url: name.to_owned(), value, ..Any::default() }.write_to_bytes()?)
}

fn init(id: &str) -> Result<Vec<u8>> {
    let init = StreamInit { id: id.to_owned(), ..StreamInit::default() };
    any("containerd.services.streaming.v1.StreamInit", &init)
}

fn data(bytes: usize) -> Result<Vec<u8>> {
    let data = Data { data: vec![b'x'; bytes], ..Data::default() };
    any("containerd.types.transfer.Data", &data)
}

fn update(bytes: i32) -> Result<Vec<u8>> {
    let update = WindowUpdate { update: bytes, ..WindowUpdate::default() };
    any("containerd.types.transfer.WindowUpdate", &update)
}

/// A container that runs, and a connection with a stream of that name.
async fn spoken_by_hand(lab: &Lab, id: &str) -> Result<(Rc<Guest>, Wire)> {
    let guest = running(lab).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    wire.flagged(1, REQUEST, OPEN, &request()?).await?;
    wire.flagged(1, DATA, 0, &init(id)?).await?;
    Ok((guest, wire))
}

/// The shim serves as before, streams too.
async fn expect_service(guest: &Guest) -> Result<()> {
    guest.expect_status("", Status::RUNNING).await?;
    open(guest, "after").await?;
    ensure!(guest.execute("after").await?, "the shim does not serve Exec");
    Ok(())
}

async fn data_for_nobody(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab, "h").await?;
    for stream in [3, 0, 2, u32::MAX] {
        // The connection may be closed by now.
        let _ = wire.flagged(stream, DATA, 0, &data(100)?).await;
        let _ = wire.flagged(stream, DATA, CLOSED | EMPTY, &[]).await;
    }
    expect_service(&guest).await
}

async fn data_after_close(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab, "h").await?;
    wire.flagged(1, DATA, CLOSED | EMPTY, &[]).await?;
    for _ in 0..10 {
        let _ = wire.flagged(1, DATA, 0, &update(100)?).await;
        let _ = wire.flagged(1, DATA, CLOSED | EMPTY, &[]).await;
    }
    expect_service(&guest).await
}

async fn data_without_room(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab, "h").await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    for _ in 0..512 {
        if wire.flagged(1, DATA, 0, &data(32 << 10)?).await.is_err() {
            break;
        }
    }
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 4 << 10, "the shim has grown by {grown} KiB");
    expect_service(&guest).await
}

async fn long_data(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab, "h").await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    for stream in [1, 3] {
        let _ = wire.flagged(stream, DATA, 0, &data(5 << 20)?).await;
    }
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 12 << 10, "the shim has grown by {grown} KiB");
    expect_service(&guest).await
}

async fn nonsense(lab: &Lab) -> Result<()> {
    let guest = running(lab).await?;
    let pigeon = any("what.is.This", &StreamInit::default())?;
    let messages =
        [b"\xff\xff".to_vec(), Vec::new(), pigeon, data(10)?, update(-5)?, update(i32::MAX)?];
    for is_named in [false, true] {
        for message in &messages {
            let mut wire = Wire::connect(&guest.shim.answer.address).await?;
            wire.flagged(1, REQUEST, OPEN, &request()?).await?;
            if is_named {
                wire.flagged(1, DATA, 0, &init("h")?).await?;
            }
            for flags in [0, 0, EMPTY, 0xff] {
                let _ = wire.flagged(1, DATA, flags, message).await;
            }
        }
    }
    expect_service(&guest).await
}

async fn no_name(lab: &Lab) -> Result<()> {
    let guest = running(lab).await?;
    let mut wires = Vec::new();
    for flags in [OPEN, CLOSED, OPEN | CLOSED, 0, 0xff] {
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        wire.flagged(1, REQUEST, flags, &request()?).await?;
        wires.push(wire);
    }
    expect_service(&guest).await
}

async fn many(lab: &Lab) -> Result<()> {
    let guest = running(lab).await?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    for number in 0..1000_u32 {
        let stream = 2 * number + 1;
        // It reads none of the answers, and so may be read no more.
        let opened = wire.flagged(stream, REQUEST, OPEN, &request()?).await;
        if opened.is_err()
            || wire.flagged(stream, DATA, 0, &init(&format!("m{number}"))?).await.is_err()
        {
            break;
        }
    }
    expect_service(&guest).await
}

async fn unread(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::new(&["yes", "no"])).await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    wire.flagged(1, REQUEST, OPEN, &request()?).await?;
    wire.flagged(1, DATA, 0, &init("c-out")?).await?;
    wire.flagged(1, DATA, 0, &update(i32::MAX)?).await?;
    wire.flagged(1, DATA, 0, &update(i32::MAX)?).await?;
    run(&guest, "c-out").await?;
    until_held(guest.pid().await?).await?;
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 4 << 10, "the shim has grown by {grown} KiB");
    expect_service(&guest).await
}
