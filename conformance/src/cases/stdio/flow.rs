//! Much output, slow readers, many writers.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use shim_client::{Sinks, Streams};

use super::{fifos, uris};
use crate::case::group;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Ask, Io, Lab, SOON, eventually, open_fifo, procs};

group! { "stdio":
    Must gigabyte_out: "1 GiB of output MUST arrive, every byte at its place.", within(300);
    Must slow_reader: "A process MUST be held up by a slow reader, and the shim MUST NOT keep its output.", within(60);
    Must thousand_writers: "Lines of a thousand writers MUST all arrive, and whole.", within(60);
    Must both_at_once: "Much output on stdout MUST NOT hold up stderr, and the other way round.", within(60);
}

/// 61 characters with the line's end, a prime: what is lost or swapped in blocks shows.
const LINE: &[u8] = b"the quick brown fox jumps over the lazy dog 0123456789 abcde\n";

/// Compares what it gets with lines without end.
struct Comparing {
    /// Bytes so far, while all of them are right.
    right: Arc<AtomicU64>,
    lines: Vec<u8>,
    at: usize,
    wrong: bool,
}

impl Comparing {
    fn new() -> (Self, Arc<AtomicU64>) {
        let right = Arc::new(AtomicU64::new(0));
        let lines = LINE.repeat(2048);
        (Self { right: Arc::clone(&right), lines, at: 0, wrong: false }, right)
    }
}

impl Write for Comparing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.len().min(64 << 10);
        self.wrong |= bytes[..part] != self.lines[self.at..self.at + part];
        self.at = (self.at + part) % LINE.len();
        if !self.wrong {
            self.right.fetch_add(part as u64, Ordering::Relaxed);
        }
        Ok(part)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A script that prints that many bytes of the lines.
fn printing(bytes: u64) -> String {
    let line = String::from_utf8_lossy(LINE);
    format!("yes '{}' | head -c {bytes}", line.trim_end())
}

async fn gigabyte_out(lab: &Lab) -> Result<()> {
    const BYTES: u64 = 1 << 30;
    let fifos = fifos(lab)?;
    let (sink, right) = Comparing::new();
    let sinks = Sinks { stdout: Box::new(sink), stderr: Box::new(io::sink()) };
    let streams = Streams::open(&fifos, sinks)?;
    let guest = lab.run(Ask::sh(&printing(BYTES)).io(uris(&fifos))).await?;
    let arrived = || right.load(Ordering::Relaxed) >= BYTES;
    let pid = guest.pid().await?;
    eventually(Duration::from_secs(280), || arrived() || !procs::runs(pid)).await;
    eventually(SOON, arrived).await;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    streams.finish(SOON).await;
    let right = right.load(Ordering::Relaxed);
    ensure!(right == BYTES, "only the first {right} of {BYTES} bytes are right");
    Ok(())
}

async fn slow_reader(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    // Readers that do not read.
    let _held = [open_fifo(fifos.stdout().as_ref())?, open_fifo(fifos.stderr().as_ref())?];
    let line = String::from_utf8_lossy(LINE);
    let guest = lab.create(Ask::new(&["yes", line.trim_end()]).io(uris(&fifos))).await?;
    let shim = guest.shim_pid().await?;
    let before = procs::status(shim, "VmRSS")?;
    let pid = guest.start("").await?.pid;
    ensure!(
        eventually(SOON, || procs::written(pid) > 0).await,
        "the process does not begin to write"
    );
    // Held up: for a while nothing more is written.
    let until_held = async {
        loop {
            let now = procs::written(pid);
            if !eventually(Duration::from_millis(200), || procs::written(pid) > now).await {
                return now;
            }
        }
    };
    let Ok(held) = tokio::time::timeout(SOON, until_held).await else {
        anyhow::bail!("the process has written {} bytes that nobody reads", procs::written(pid));
    };
    ensure!(held < 4 << 20, "the process could write {held} bytes that nobody reads");
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 8 << 10, "the shim has grown by {grown} KiB");
    let (sink, right) = Comparing::new();
    let sinks = Sinks { stdout: Box::new(sink), stderr: Box::new(io::sink()) };
    let _streams = Streams::open(&fifos, sinks)?;
    let more = || right.load(Ordering::Relaxed) > held + (1 << 20);
    ensure!(eventually(SOON, more).await, "after {right:?} bytes nothing right comes any more");
    guest.kill("", KILL).await?;
    guest.expect_exit("", status_of(KILL)).await
}

async fn thousand_writers(lab: &Lab) -> Result<()> {
    let script = "
        n=0
        while [ $n -lt 1000 ]; do
            n=$((n + 1))
            (echo \"line $n of a writer that is one of a thousand\") &
            [ $((n % 50)) = 0 ] && wait
        done
        wait";
    let guest = lab.run(Ask::sh(script).io(Io::Pipes)).await?;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    eventually(SOON, || guest.stdout.text().lines().count() == 1000).await;
    let text = guest.stdout.text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut expected: Vec<String> = (1..=1000)
        .map(|number| format!("line {number} of a writer that is one of a thousand"))
        .collect();
    expected.sort_unstable();
    ensure!(lines == expected, "{} lines, some lost or torn", lines.len());
    Ok(())
}

async fn both_at_once(lab: &Lab) -> Result<()> {
    const BYTES: u64 = 8 << 20;
    let fifos = fifos(lab)?;
    let (out, right) = Comparing::new();
    let (err, wrong) = Comparing::new();
    let sinks = Sinks { stdout: Box::new(out), stderr: Box::new(err) };
    let streams = Streams::open(&fifos, sinks)?;
    let script = format!("{} & {} >&2; wait", printing(BYTES), printing(BYTES));
    let guest = lab.run(Ask::sh(&script).io(uris(&fifos))).await?;
    let counts = || [&right, &wrong].map(|count| count.load(Ordering::Relaxed));
    eventually(Duration::from_secs(30), || counts() == [BYTES; 2]).await;
    guest.expect_exit("", 0).await?;
    guest.delete("").await?;
    streams.finish(SOON).await;
    ensure!(counts() == [BYTES; 2], "of {BYTES} bytes each only {:?} are right", counts());
    Ok(())
}
