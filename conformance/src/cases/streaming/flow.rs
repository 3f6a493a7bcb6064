//! Much output and input, and sides that are slow.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use shim_client::Generation;
use shim_protos::types::Status;
use tokio::time::timeout;

use super::{open, piped, read_until, run, running, serving, uri};
use crate::case::group;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Ask, Lab, SOON, eventually, procs};

group! { "streaming":
    Must much_output: "64 MiB of output MUST arrive, every byte at its place.", since(Generation::V2_0), within(120);
    Must much_input: "64 MiB of input MUST reach the process, every byte at its place.", since(Generation::V2_0), within(120);
    Must no_more_than_room: "A shim MUST NOT send more than it was given room for.", since(Generation::V2_0);
    Must slow_reader: "A process MUST be held up by a slow client, and the shim MUST NOT keep its output.", since(Generation::V2_0), within(60);
    Must input_that_nobody_reads: "Input that the process does not read MUST be held up, and not grow the shim.", since(Generation::V2_0);
    Must input_after_end: "A client MUST NOT be held up by input for a process that has closed it.", since(Generation::V2_0);
}

const BYTES: usize = 64 << 20;

/// 61 characters with the line's end, a prime: what is lost or swapped in blocks shows.
const LINE: &str = "the quick brown fox jumps over the lazy dog 0123456789 abcde";

async fn much_output(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::sh(&format!("yes '{LINE}' | head -c {BYTES}"))).await?;
    let mut stdout = open(&guest, "c-out").await?;
    run(&guest, "c-out").await?;
    let lines = format!("{LINE}\n").repeat(2048);
    let (mut read, mut at) = (0, 0);
    while let Some(bytes) = timeout(SOON, stdout.read()).await?? {
        ensure!(bytes == lines.as_bytes()[at..at + bytes.len()], "wrong bytes after {read}");
        read += bytes.len();
        at = (at + bytes.len()) % (LINE.len() + 1);
    }
    ensure!(read == BYTES, "of {BYTES} bytes {read} came");
    drop(stdout);
    guest.expect_exit("", 0).await
}

async fn much_input(lab: &Lab) -> Result<()> {
    let compare = "cmp - /dev/fd/3 && echo the same";
    let script = format!("exec 3<&0; yes '{LINE}' | head -c {BYTES} | {compare}");
    let (guest, mut stdin, mut stdout) = piped(lab, Ask::sh(&script)).await?;
    let lines = format!("{LINE}\n").repeat(4096);
    let mut left = BYTES;
    while left > 0 {
        let part = left.min(lines.len());
        timeout(SOON, stdin.write(&lines.as_bytes()[..part])).await??;
        left -= part;
    }
    stdin.close().await?;
    drop(stdin);
    read_until(&mut stdout, "the same\n").await?;
    drop(stdout);
    guest.expect_exit("", 0).await
}

async fn no_more_than_room(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::sh("yes | head -c 100000; exec sleep 1000")).await?;
    let mut stdout = open(&guest, "c-out").await?;
    run(&guest, "c-out").await?;
    stdout.grant(1000).await?;
    let mut read = 0;
    // Without `read`'s own room: it gives some when there is less than a window.
    while read < 1000 {
        read += timeout(SOON, stdout.receive_data()).await??.map_or(0, |bytes| bytes.len());
    }
    ensure!(read == 1000, "with room for 1000 bytes {read} came");
    let more = timeout(Duration::from_millis(200), stdout.receive_data()).await;
    ensure!(more.is_err(), "more came than there was room for: {more:?}");
    stdout.grant(10).await?;
    let more = timeout(SOON, stdout.receive_data()).await??.unwrap_or_default();
    ensure!(more.len() <= 10, "with room for 10 bytes {} came", more.len());
    Ok(())
}

/// Waits until a process that writes is held up, and tells how much it has written.
pub(super) async fn until_held(pid: u32) -> Result<u64> {
    ensure!(
        eventually(SOON, || procs::written(pid) > 0).await,
        "the process does not begin to write"
    );
    let held = async {
        loop {
            let now = procs::written(pid);
            if !eventually(Duration::from_millis(200), || procs::written(pid) > now).await {
                return now;
            }
        }
    };
    match timeout(SOON, held).await {
        Ok(written) => Ok(written),
        Err(_) => bail!("the process has written {} bytes unread", procs::written(pid)),
    }
}

async fn slow_reader(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::new(&["yes", LINE])).await?;
    let mut stdout = open(&guest, "c-out").await?;
    run(&guest, "c-out").await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    // Room for much, and nobody reads it.
    stdout.grant(1 << 30).await?;
    let pid = guest.pid().await?;
    let held = until_held(pid).await?;
    ensure!(held < 4 << 20, "the process could write {held} bytes that nobody reads");
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 4 << 10, "the shim has grown by {grown} KiB");
    guest.expect_status("", Status::RUNNING).await?;
    let mut read = 0;
    while read < 2 * (4 << 20) {
        read += timeout(SOON, stdout.receive_data()).await??.map_or(0, |bytes| bytes.len());
    }
    guest.kill("", KILL).await?;
    guest.expect_exit("", status_of(KILL)).await
}

async fn input_that_nobody_reads(lab: &Lab) -> Result<()> {
    let guest = running(lab).await?;
    let shim = guest.shim_pid().await?;
    let mut stdin = open(&guest, "e-in").await?;
    guest.exec_with("e", &["sleep", "1000"], |request| request.stdin = uri(&guest, "e-in")).await?;
    guest.start("e").await?;
    let before = procs::status(shim, "VmRSS")?;
    let all = vec![b'x'; 10 << 20];
    let written = timeout(Duration::from_millis(500), stdin.write(&all)).await;
    ensure!(written.is_err(), "the shim took 10 MiB for who reads none: {written:?}");
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 4 << 10, "the shim has grown by {grown} KiB");
    guest.expect_status("e", Status::RUNNING).await?;
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await
}

async fn input_after_end(lab: &Lab) -> Result<()> {
    let (guest, mut stdin, mut stdout) =
        piped(lab, Ask::sh("exec <&-; echo closed; exec sleep 1000")).await?;
    read_until(&mut stdout, "closed\n").await?;
    // An error tells the client as well; only a wait without end does not.
    let written = timeout(SOON, stdin.write(&vec![b'x'; 1 << 20])).await;
    ensure!(written.is_ok(), "the client waits for room that never comes");
    guest.expect_status("", Status::RUNNING).await
}
