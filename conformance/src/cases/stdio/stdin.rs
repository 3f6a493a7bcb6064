//! A process's input, and how it ends.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shim_client::Shape;
use shim_protos::types::Status;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use crate::case::group;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{ExecIo, Guest, Lab, SLEEP, SOON, eventually, open_fifo, procs, waiting_bytes};

group! { "stdio":
    Must close_io: "CloseIO MUST give the process the end of its input, once the client has closed it.";
    Must close_io_loses_nothing: "What was written ahead of CloseIO MUST still reach the process.";
    Must close_io_twice: "CloseIO twice, or without a stdin, MUST succeed.";
    Must close_io_after_exit: "CloseIO after the end MUST be answered, and not harm.";
    Must no_end_before_close_io: "A client that closes stdin without CloseIO MUST NOT end it: another may come.";
    Must gigabyte_in: "1 GiB of input MUST reach the process, every byte at its place.", within(300);
    Must stdin_that_nobody_reads: "Input that the process never reads MUST NOT grow the shim, nor keep it from its work.";
}

/// An added process whose stdin is a fifo.
async fn reading(lab: &Lab, guest: &Guest, script: &str) -> Result<(ExecIo, File)> {
    let io = ExecIo::open(lab, "e", Shape::Pipes)?;
    guest.exec_with("e", &["/bin/sh", "-c", script], |request| io.fill(request)).await?;
    guest.start("e").await?;
    let stdin = open_fifo(io.uris[0].as_ref())?;
    Ok((io, stdin))
}

/// Waits until the shim has taken what was written, as a client does that closes its end.
async fn taken(stdin: &File) -> Result<()> {
    let empty = || waiting_bytes(stdin) == Some(0);
    ensure!(eventually(SOON, empty).await, "the shim does not read the process's stdin");
    Ok(())
}

async fn close_io(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let (io, mut stdin) = reading(lab, &guest, "cat; exit 6").await?;
    stdin.write_all(b"hello\n")?;
    io.expect_output("hello\n").await?;
    drop(stdin);
    guest.close_stdin("e").await?;
    guest.expect_exit("e", 6).await?;
    guest.delete("e").await?;
    Ok(())
}

async fn close_io_loses_nothing(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    // The process reads when all is written and closed.
    let (io, mut stdin) = reading(lab, &guest, "sleep 0.2; wc -c").await?;
    let written = b"0123456789abcdef".repeat(3000);
    stdin.write_all(&written).context("48 KB fit into a fifo")?;
    taken(&stdin).await?;
    drop(stdin);
    guest.close_stdin("e").await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    let [counted, _] = io.finish().await;
    ensure!(counted.trim() == "48000", "of 48000 bytes the process read {counted:?}");
    Ok(())
}

async fn close_io_twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.close_stdin("").await.context("the init process has no stdin")?;
    let (_io, stdin) = reading(lab, &guest, "cat; exit 6").await?;
    guest.close_stdin("e").await?;
    guest.close_stdin("e").await.context("for the second time")?;
    drop(stdin);
    guest.expect_exit("e", 6).await
}

async fn close_io_after_exit(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let (_io, _stdin) = reading(lab, &guest, "exit 7").await?;
    guest.expect_exit("e", 7).await?;
    if let Err(error) = guest.close_stdin("e").await {
        ensure!(error.code().is_some(), "{error}");
    }
    let deleted = guest.delete("e").await?;
    ensure!(deleted.exit_status == 7, "Delete tells exit status {}", deleted.exit_status);
    Ok(())
}

async fn no_end_before_close_io(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let (io, mut stdin) = reading(lab, &guest, "cat; exit 6").await?;
    stdin.write_all(b"one\n")?;
    io.expect_output("one\n").await?;
    drop(stdin);
    // A process that got its end would be gone within this time.
    let ended = guest.waiting("e");
    let gone = eventually(Duration::from_millis(200), || ended.is_finished()).await;
    ensure!(!gone, "the process's input ended with the client");
    let mut stdin = open_fifo(io.uris[0].as_ref())?;
    stdin.write_all(b"two\n")?;
    io.expect_output("one\ntwo\n").await?;
    drop(stdin);
    guest.close_stdin("e").await?;
    ensure!(ended.await??.exit_status == 6, "cat did not end as it should");
    Ok(())
}

async fn gigabyte_in(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let line = "the quick brown fox jumps over the lazy dog 0123456789 abcde";
    let block = format!("{line}\n").repeat(1024);
    let blocks = (1 << 30) / block.len();
    let bytes = blocks * block.len();
    // The process compares as it reads: it is done as soon as it has read all.
    let compare = "cmp - /dev/fd/3 && echo the same";
    let script = format!("exec 3<&0; yes '{line}' | head -c {bytes} | {compare}");
    let (io, stdin) = reading(lab, &guest, &script).await?;
    let mut pipe = pipe::Sender::from_file(stdin.try_clone()?)?;
    for _ in 0..blocks {
        pipe.write_all(block.as_bytes()).await.context("write to stdin")?;
    }
    drop(pipe);
    taken(&stdin).await?;
    drop(stdin);
    guest.close_stdin("e").await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    let [verdict, _] = io.finish().await;
    ensure!(verdict == "the same\n", "the process says {verdict:?}");
    Ok(())
}

async fn stdin_that_nobody_reads(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let shim = guest.shim_pid().await?;
    let (_io, mut stdin) = reading(lab, &guest, "exec sleep 1000").await?;
    let before = procs::status(shim, "VmRSS")?;
    let block = [b'x'; 4096];
    let mut written = 0_usize;
    // Until nothing has been taken for a while, or 10 MiB have.
    loop {
        match stdin.write(&block) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let full = waiting_bytes(&stdin);
                let room = || waiting_bytes(&stdin) < full;
                if !eventually(Duration::from_millis(200), room).await {
                    break;
                }
            }
            Err(error) => return Err(error).context("write to stdin"),
        }
        ensure!(written < 10 << 20, "the shim took {written} bytes for who reads none");
    }
    let grown = procs::status(shim, "VmRSS")?.saturating_sub(before);
    ensure!(grown < 8 << 10, "the shim has grown by {grown} KiB");
    guest.expect_status("e", Status::RUNNING).await?;
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await?;
    guest.delete("e").await?;
    Ok(())
}
