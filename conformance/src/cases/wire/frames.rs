//! Frames as no client of containerd's writes them.

use std::rc::Rc;

use anyhow::{Result, ensure};
use shim_protos::protobuf::Message;
use ttrpc::Code;
use ttrpc::proto::{KeyValue, Request};

use super::{expect_service, state_of};
use crate::case::group;
use crate::lab::{Guest, Lab, SLEEP, procs};
use crate::wire::{LARGEST, REQUEST, RESPONSE, Wire, head};

group! { "wire":
    Must truncated: "A connection that ends within a frame MUST NOT harm others.";
    Must no_data: "A request without data MUST be refused, or its connection closed.";
    Must oversized: "A frame over 4 MiB MUST be refused or its connection closed, and not be kept.";
    Must endless: "A frame that claims 4 GiB MUST NOT make the shim grow, nor end it.";
    Must largest: "A frame of 4 MiB MUST NOT end the shim, nor its service to others.";
    Must even_stream: "A request on a stream of the server's own MUST NOT harm others.";
    Should even_stream_is_refused: "A request on an even stream SHOULD be refused, or its connection closed.";
    Must stream_twice: "A second request on a stream MUST NOT harm others.";
    Must response_frame: "A response that nobody asked for MUST NOT harm others.";
    Must unknown_frame: "A frame of a type that does not exist MUST NOT harm others.";
    Must noise: "Noise in place of frames MUST NOT harm others.";
    Must odd_timeouts: "A call with a timeout that makes no sense MUST be answered or refused.";
    Must metadata: "The namespace MUST be that of the shim's start, whatever a call's metadata says.";
}

/// A container that runs, and a connection to its shim that is spoken by hand.
async fn spoken_by_hand(lab: &Lab) -> Result<(Rc<Guest>, Wire)> {
    let guest = lab.running(&SLEEP).await?;
    let wire = Wire::connect(&guest.shim.answer.address).await?;
    Ok((guest, wire))
}

async fn truncated(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    wire.send(&head(100, 1, REQUEST)).await?;
    wire.send(b"a part").await?;
    drop(wire);
    let mut wire = Wire::connect(&guest.shim.answer.address).await?;
    wire.send(&head(100, 1, REQUEST)[..4]).await?;
    drop(wire);
    expect_service(&guest).await
}

/// What was sent must have no success.
async fn expect_no_success(wire: &mut Wire, what: &str) -> Result<()> {
    // An error is a connection that has ended.
    if let Ok((_, response)) = wire.response().await {
        ensure!(response.status().code() != Code::OK, "{what} succeeds");
        return Ok(());
    }
    ensure!(wire.is_closed().await?, "{what} is neither answered nor the connection closed");
    Ok(())
}

async fn no_data(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    wire.frame(1, REQUEST, &[]).await?;
    expect_no_success(&mut wire, "a request without data").await?;
    expect_service(&guest).await
}

/// Sends a frame with that length in its head, as far as the shim takes it.
async fn send_large(wire: &mut Wire, claimed: u32, sent: usize) -> Result<()> {
    wire.send(&head(claimed, 1, REQUEST)).await?;
    let block = vec![0xff; 64 << 10];
    for _ in 0..sent.div_ceil(block.len()) {
        if wire.send(&block).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The shim must not have grown by more than this, in KiB.
fn expect_growth(shim: u32, before: u64, limit: u64) -> Result<()> {
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < limit, "the shim has grown by {grown} KiB");
    Ok(())
}

async fn oversized(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    let length = LARGEST + (1 << 20);
    send_large(&mut wire, length, length as usize).await?;
    expect_no_success(&mut wire, "a frame of 5 MiB").await?;
    expect_growth(shim, before, 12 << 10)?;
    expect_service(&guest).await
}

async fn endless(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    send_large(&mut wire, u32::MAX, 32 << 20).await?;
    expect_growth(shim, before, 12 << 10)?;
    expect_service(&guest).await
}

async fn largest(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    send_large(&mut wire, LARGEST, LARGEST as usize).await?;
    expect_no_success(&mut wire, "a frame of noise").await?;
    expect_service(&guest).await
}

async fn even_stream(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    for stream in [2, 0] {
        wire.frame(stream, REQUEST, &state_of(&guest)?.write_to_bytes()?).await?;
    }
    expect_service(&guest).await
}

async fn even_stream_is_refused(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    wire.frame(2, REQUEST, &state_of(&guest)?.write_to_bytes()?).await?;
    expect_no_success(&mut wire, "a request on stream 2").await
}

async fn stream_twice(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    let state = state_of(&guest)?.write_to_bytes()?;
    for stream in [5, 5, 3] {
        // The connection may be closed after the second.
        let _ = wire.frame(stream, REQUEST, &state).await;
    }
    let (stream, response) = wire.response().await?;
    ensure!(stream == 5, "the first answer is on stream {stream}: {response:?}");
    expect_service(&guest).await
}

async fn response_frame(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    wire.frame(1, RESPONSE, &[]).await?;
    // The connection may be closed by now.
    let _ = wire.frame(7, RESPONSE, b"\xff\xff").await;
    expect_service(&guest).await
}

async fn unknown_frame(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    wire.frame(1, 0x7f, b"what is this").await?;
    let _ = wire.frame(3, 0, &[]).await;
    expect_service(&guest).await
}

async fn noise(lab: &Lab) -> Result<()> {
    let (guest, _) = spoken_by_hand(lab).await?;
    let mut state = 0x2545_f491_u32;
    for _ in 0..20 {
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        let bytes: Vec<u8> = (0..4096)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_be_bytes()[0]
            })
            .collect();
        // A shim may close the connection at the first byte that makes no sense.
        let _ = wire.send(&bytes).await;
    }
    expect_service(&guest).await
}

async fn odd_timeouts(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    let mut stream = 1;
    for timeout_nano in [-1, i64::MIN, i64::MAX, 0] {
        let request = Request { timeout_nano, ..state_of(&guest)? };
        wire.frame(stream, REQUEST, &request.write_to_bytes()?).await?;
        let (_, response) = wire.response().await?;
        let is_usual = timeout_nano >= 0;
        let code = response.status().code();
        ensure!(!is_usual || code == Code::OK, "State within {timeout_nano} ns: {response:?}");
        stream += 2;
    }
    expect_service(&guest).await
}

async fn metadata(lab: &Lab) -> Result<()> {
    let (guest, mut wire) = spoken_by_hand(lab).await?;
    let mut request = state_of(&guest)?;
    request.metadata.push(KeyValue {
        key: "containerd-namespace-ttrpc".to_owned(),
        value: "somebody-elses".to_owned(),
        ..KeyValue::default()
    });
    wire.frame(1, REQUEST, &request.write_to_bytes()?).await?;
    let (_, response) = wire.response().await?;
    ensure!(response.status().code() == Code::OK, "State is refused: {response:?}");
    Ok(())
}
