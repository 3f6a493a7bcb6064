//! Readers that come late, go, come again, or never: as with a containerd that restarts.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use shim_client::Shape;
use shim_protos::task::DeleteRequest;

use super::{fifos, read, uris};
use crate::case::group;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Ask, ExecIo, Guest, Io, Lab, SLEEP, SOON, eventually};

group! { "stdio":
    Should reader_comes_late: "Create SHOULD NOT wait for a reader, and output SHOULD wait for one.";
    Must reader_comes_again: "Output written while nobody reads MUST reach the next reader, and end nobody.";
    Should nobody_reads: "A container's whole life SHOULD NOT wait for a reader of its output.", within(60);
    Must reader_has_gone: "Delete MUST finish although the reader has gone, and the fifo is full.", within(60);
    Must tail: "All output MUST have arrived after the exit and Delete.", within(90);
    Must child_keeps_stdout: "An exec's exit MUST be told, and Delete finish, while a child keeps its stdout.", within(60);
}

async fn reader_comes_late(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    let guest = lab.run(Ask::sh("echo early; exit 3").io(uris(&fifos))).await?;
    guest.expect_exit("", 3).await?;
    let (stdout, _, _streams) = read(&fifos)?;
    ensure!(eventually(SOON, || stdout.text() == "early\n").await, "got {:?}", stdout.text());
    guest.delete("").await?;
    Ok(())
}

async fn reader_comes_again(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    let script = "
        echo one; read word; echo two; echo two >&2; touch /mnt/two; read word; echo three; exit 4";
    let (first, _, streams) = read(&fifos)?;
    let guest = lab.run(Ask::sh(script).sharing(&lab.folder).io(uris(&fifos))).await?;
    ensure!(eventually(SOON, || first.text() == "one\n").await, "got {:?}", first.text());
    // There is no end to wait for; the reader's threads need a moment to go.
    streams.finish(Duration::from_millis(100)).await;
    let mut stdin = guest.stdin()?;
    stdin.write_all(b"1\n")?;
    let written = || lab.folder.join("two").exists();
    ensure!(eventually(SOON, written).await, "the process does not go on without a reader");
    let (second, errors, _streams) = read(&fifos)?;
    stdin.write_all(b"2\n")?;
    guest.expect_exit("", 4).await?;
    let rest = || second.text() == "two\nthree\n" && errors.text() == "two\n";
    ensure!(
        eventually(SOON, rest).await,
        "expected two and three, and two, got {:?} and {:?}, and the first reader {:?}",
        second.text(),
        errors.text(),
        first.text()
    );
    Ok(())
}

async fn nobody_reads(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    let begun = Instant::now();
    let guest = lab.run(Ask::sh("echo out; echo err >&2; exit 3").io(uris(&fifos))).await?;
    guest.expect_exit("", 3).await?;
    let ended = begun.elapsed();
    ensure!(ended < SOON, "Create, Start and the exit took {ended:?}");
    delete_in_time(&guest, "").await
}

/// Delete has to answer before containerd's clients lose their patience.
async fn delete_in_time(guest: &Guest, exec: &str) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(15);
    let request =
        DeleteRequest { id: guest.id.clone(), exec_id: exec.to_owned(), ..Default::default() };
    match tokio::time::timeout(LIMIT, guest.shim.task.delete(&request)).await {
        Ok(answer) => answer.map(drop).map_err(Into::into),
        Err(_) => bail!("Delete has not answered within {LIMIT:?}"),
    }
}

async fn reader_has_gone(lab: &Lab) -> Result<()> {
    let fifos = fifos(lab)?;
    let (stdout, _, streams) = read(&fifos)?;
    let guest = lab.run(Ask::new(&["yes", "too much"]).io(uris(&fifos))).await?;
    ensure!(eventually(SOON, || !stdout.bytes().is_empty()).await, "no output");
    drop(streams);
    guest.kill("", KILL).await?;
    guest.expect_exit("", status_of(KILL)).await?;
    delete_in_time(&guest, "").await
}

async fn tail(lab: &Lab) -> Result<()> {
    let expected: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    let printer = ["seq", "1", "3000"];
    for run in 0..8 {
        let guest = lab.run(Ask::new(&printer).io(Io::Pipes)).await?;
        guest.expect_exit("", 0).await?;
        guest.delete("").await?;
        let whole = || guest.stdout.bytes().len() == expected.len();
        eventually(SOON, whole).await;
        let got = guest.stdout.text();
        ensure!(got == expected, "run {run}: {} of {} bytes", got.len(), expected.len());
    }
    let guest = lab.running(&SLEEP).await?;
    for run in 0..42 {
        let exec = format!("e{run}");
        let io = ExecIo::open(lab, &exec, Shape::Pipes)?;
        guest.exec_with(&exec, &printer, |request| io.fill(request)).await?;
        guest.start(&exec).await?;
        guest.expect_exit(&exec, 0).await?;
        guest.delete(&exec).await?;
        let [got, _] = io.finish().await;
        ensure!(got == expected, "exec {run}: {} of {} bytes", got.len(), expected.len());
    }
    Ok(())
}

async fn child_keeps_stdout(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let io = ExecIo::open(lab, "e", Shape::Pipes)?;
    let script = "sleep 1000 & echo done";
    guest.exec_with("e", &["/bin/sh", "-c", script], |request| io.fill(request)).await?;
    guest.start("e").await?;
    guest.expect_exit("e", 0).await?;
    lab.expect_topic(&guest.id, "exit e").await?;
    io.expect_output("done\n").await?;
    delete_in_time(&guest, "e").await?;
    guest.started("after", &["true"]).await?;
    guest.expect_exit("after", 0).await
}
