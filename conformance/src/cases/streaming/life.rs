//! What a stream is from its opening to its end.

use anyhow::{Result, ensure};
use serde_json::Value;
use shim_client::Generation;
use tokio::time::timeout;

use super::{create, open, piped, read_all, read_until, run, running, serving, uri};
use crate::case::group;
use crate::lab::{Ask, Lab, SOON, eventually};

group! { "streaming":
    Must init: "The init process's streams MUST be those that the client has opened, and end with it.", since(Generation::V2_0);
    Must exec: "An exec's streams MUST be those that the client has opened, and end with it.", since(Generation::V2_0);
    Must terminal: "A terminal MUST be one stream in and one out.", since(Generation::V2_0);
    Must closed_input: "A client that closes its side of stdin MUST end the process's input, with nothing lost.", since(Generation::V2_0);
    Must close_io: "CloseIO MUST end the process's input once the client's connection has ended.", since(Generation::V2_0);
    Must no_end_without_close: "A connection that breaks MUST NOT end the process's input.", since(Generation::V2_0);
    Must exit_after_output: "The exit MUST be told when the client has read the output.", since(Generation::V2_0);
    Must one_stream_for_both: "One stream for stdout and stderr MUST get both, in their order.", since(Generation::V2_0);
}

async fn init(lab: &Lab) -> Result<()> {
    let script = "read word; echo \"out $word\"; echo \"err $word\" >&2; exit 3";
    let guest = serving(lab, Ask::sh(script)).await?;
    let (mut stdin, mut stdout, mut stderr) =
        (open(&guest, "c-in").await?, open(&guest, "c-out").await?, open(&guest, "c-err").await?);
    create(&guest, |request| {
        request.stdin = uri(&guest, "c-in");
        request.stdout = uri(&guest, "c-out");
        request.stderr = uri(&guest, "c-err");
    })
    .await?;
    guest.start("").await?;
    stdin.write(b"word\n").await?;
    let (out, err) = (read_all(&mut stdout).await?, read_all(&mut stderr).await?);
    ensure!((&*out, &*err) == ("out word\n", "err word\n"), "got {out:?} and {err:?}");
    drop((stdin, stdout, stderr));
    guest.expect_exit("", 3).await?;
    guest.delete("").await?;
    Ok(())
}

async fn exec(lab: &Lab) -> Result<()> {
    let guest = running(lab).await?;
    for round in 0..3 {
        let name = format!("e{round}");
        let (mut stdin, mut stdout) = (open(&guest, "e-in").await?, open(&guest, "e-out").await?);
        let script = "read word; echo \"out $word\"; exit 4";
        guest
            .exec_with(&name, &["/bin/sh", "-c", script], |request| {
                request.stdin = uri(&guest, "e-in");
                request.stdout = uri(&guest, "e-out");
            })
            .await?;
        guest.start(&name).await?;
        stdin.write(format!("word{round}\n").as_bytes()).await?;
        let out = read_all(&mut stdout).await?;
        ensure!(out == format!("out word{round}\n"), "got {out:?}");
        drop((stdin, stdout));
        guest.expect_exit(&name, 4).await?;
        guest.delete(&name).await?;
    }
    Ok(())
}

async fn terminal(lab: &Lab) -> Result<()> {
    let script = "[ -t 0 ] && [ -t 1 ] && echo ready; read word; echo \"out $word\"; exit 5";
    let ask = Ask::sh(script).json_with(|spec| spec["process"]["terminal"] = Value::Bool(true));
    let guest = serving(lab, ask).await?;
    let (mut stdin, mut stdout) = (open(&guest, "t-in").await?, open(&guest, "t-out").await?);
    create(&guest, |request| {
        request.terminal = true;
        request.stdin = uri(&guest, "t-in");
        request.stdout = uri(&guest, "t-out");
    })
    .await?;
    guest.start("").await?;
    read_until(&mut stdout, "ready\r\n").await?;
    stdin.write(b"word\n").await?;
    let out = read_all(&mut stdout).await?;
    ensure!(out == "word\r\nout word\r\n", "got {out:?}");
    drop((stdin, stdout));
    guest.expect_exit("", 5).await
}

async fn closed_input(lab: &Lab) -> Result<()> {
    let (guest, mut stdin, mut stdout) = piped(lab, Ask::sh("sleep 0.2; wc -c; exit 6")).await?;
    stdin.write(&b"0123456789abcdef".repeat(3000)).await?;
    stdin.close().await?;
    // As CRI does it: the connection ends at once.
    drop(stdin);
    guest.close_stdin("").await?;
    let counted = read_all(&mut stdout).await?;
    ensure!(counted.trim() == "48000", "of 48000 bytes the process read {counted:?}");
    drop(stdout);
    guest.expect_exit("", 6).await
}

async fn close_io(lab: &Lab) -> Result<()> {
    let (guest, mut stdin, mut stdout) = piped(lab, Ask::sh("cat; exit 6")).await?;
    stdin.write(b"one\n").await?;
    read_until(&mut stdout, "one\n").await?;
    drop(stdin);
    guest.close_stdin("").await?;
    let rest = read_all(&mut stdout).await?;
    ensure!(rest.is_empty(), "after the end of its input cat says {rest:?}");
    drop(stdout);
    guest.expect_exit("", 6).await
}

async fn no_end_without_close(lab: &Lab) -> Result<()> {
    let (guest, mut stdin, mut stdout) = piped(lab, Ask::sh("cat; exit 6")).await?;
    stdin.write(b"one\n").await?;
    read_until(&mut stdout, "one\n").await?;
    drop(stdin);
    let mut stdin = open(&guest, "c-in").await?;
    timeout(SOON, stdin.write(b"two\n")).await??;
    read_until(&mut stdout, "two\n").await?;
    stdin.close().await?;
    read_all(&mut stdout).await?;
    drop(stdout);
    guest.expect_exit("", 6).await
}

async fn exit_after_output(lab: &Lab) -> Result<()> {
    const BYTES: usize = 1 << 20;
    let guest = serving(lab, Ask::sh(&format!("yes | head -c {BYTES}"))).await?;
    let mut stdout = open(&guest, "c-out").await?;
    run(&guest, "c-out").await?;
    let mut read = 0;
    let mut told_after = None;
    let mut note = |read: usize| {
        if told_after.is_none() && lab.count_topic(&guest.id, "exit") > 0 {
            told_after = Some(read);
        }
    };
    while let Some(bytes) = timeout(SOON, stdout.read()).await?? {
        note(read);
        read += bytes.len();
    }
    ensure!(read == BYTES, "of {BYTES} bytes {read} came");
    drop(stdout);
    let told = || lab.count_topic(&guest.id, "exit") > 0;
    ensure!(eventually(SOON, told).await, "the exit is not told");
    ensure!(told_after.is_none(), "the exit was told when {told_after:?} bytes were read");
    guest.expect_exit("", 0).await
}

async fn one_stream_for_both(lab: &Lab) -> Result<()> {
    let script = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done";
    let guest = serving(lab, Ask::sh(script)).await?;
    let mut both = open(&guest, "c-both").await?;
    create(&guest, |request| {
        request.stdout = uri(&guest, "c-both");
        request.stderr = uri(&guest, "c-both");
    })
    .await?;
    guest.start("").await?;
    let got = read_all(&mut both).await?;
    let expected: String = (1..=5).map(|n| format!("out {n}\nerr {n}\n")).collect();
    ensure!(got == expected, "got {got:?}");
    drop(both);
    guest.expect_exit("", 0).await
}
