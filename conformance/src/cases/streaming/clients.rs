//! Clients that go, come back, come late, or are two.

use anyhow::{Result, ensure};
use shim_client::Generation;
use shim_protos::types::Status;
use tokio::time::timeout;

use super::{create, open, piped, read_all, read_until, run, running, serving, uri};
use crate::case::group;
use crate::expect;
use crate::lab::{Ask, Io, Lab, SLEEP, SOON};

group! { "streaming":
    Must client_gone: "A client that is gone MUST NOT end the process, and the next one MUST get what follows.", since(Generation::V2_0);
    Must late_client: "A client that comes after Start MUST get what the process has printed.", since(Generation::V2_0);
    Must client_after_end: "A client that comes after the process's end MUST get the end of the stream.", since(Generation::V2_0);
    Must client_gone_at_exit: "A client that is gone MUST NOT keep the exit from being told.", since(Generation::V2_0);
    Must nobody: "A stream that nobody opens MUST NOT keep Create, Start or the exit from happening.", since(Generation::V2_0);
    Must two_clients: "Of two clients of one stream one MUST hear an error or the end.", since(Generation::V2_0);
    Must unknown_id: "A stream that no process names MUST NOT harm others.", since(Generation::V2_0);
    Must two_processes: "A second process with the same stream MUST be refused.", since(Generation::V2_0);
    Must others_address: "A stream at an address that is not the shim's MUST be refused.", since(Generation::V2_0);
    Must no_id: "A stream without an id MUST be refused.", since(Generation::V2_0);
    Must grpc: "A stream over grpc MUST be refused by a shim that serves ttrpc.", since(Generation::V2_0);
}

async fn client_gone(lab: &Lab) -> Result<()> {
    let script = "n=0; while sleep 0.01; do n=$((n + 1)); echo \"line $n\"; done";
    let guest = serving(lab, Ask::sh(script)).await?;
    let mut stdout = open(&guest, "c-out").await?;
    run(&guest, "c-out").await?;
    read_until(&mut stdout, "line 3\n").await?;
    for _ in 0..3 {
        drop(stdout);
        stdout = open(&guest, "c-out").await?;
        read_until(&mut stdout, "line ").await?;
    }
    guest.expect_status("", Status::RUNNING).await
}

async fn late_client(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::sh("echo first; exec sleep 1000")).await?;
    run(&guest, "c-out").await?;
    let mut stdout = open(&guest, "c-out").await?;
    read_until(&mut stdout, "first\n").await?;
    Ok(())
}

async fn client_after_end(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::sh("echo last; exit 7")).await?;
    run(&guest, "c-out").await?;
    guest.expect_exit("", 7).await?;
    let mut stdout = open(&guest, "c-out").await?;
    let got = read_all(&mut stdout).await?;
    ensure!(got == "last\n", "got {got:?}");
    drop(stdout);
    let got = read_all(&mut open(&guest, "c-out").await?).await?;
    ensure!(got.is_empty(), "what was read came again: {got:?}");
    guest.delete("").await?;
    Ok(())
}

async fn client_gone_at_exit(lab: &Lab) -> Result<()> {
    let (guest, mut stdin, stdout) =
        piped(lab, Ask::sh("read go; yes | head -c 1000000; exit 7")).await?;
    drop(stdout);
    stdin.write(b"go\n").await?;
    // It is held up by what it prints, and ended so.
    guest.kill("", 9).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    Ok(())
}

async fn nobody(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::sh("echo out; echo err >&2; exit 7")).await?;
    create(&guest, |request| {
        request.stdin = uri(&guest, "c-in");
        request.stdout = uri(&guest, "c-out");
        request.stderr = uri(&guest, "c-err");
    })
    .await?;
    guest.start("").await?;
    guest.expect_exit("", 7).await?;
    guest.delete("").await?;
    lab.expect_topic(&guest.id, "delete").await
}

async fn two_clients(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::sh("while sleep 0.01; do echo line; done")).await?;
    let mut first = open(&guest, "c-out").await?;
    run(&guest, "c-out").await?;
    read_until(&mut first, "line\n").await?;
    let Ok(mut second) = open(&guest, "c-out").await else {
        read_until(&mut first, "line\n").await?;
        return Ok(());
    };
    read_until(&mut second, "line\n").await?;
    let end = async { while let Ok(Some(_)) = first.read().await {} };
    ensure!(timeout(SOON, end).await.is_ok(), "both clients get the output");
    Ok(())
}

async fn unknown_id(lab: &Lab) -> Result<()> {
    let guest = running(lab).await?;
    // CRI opens streams before it creates the container: so it may be answered, or refused.
    let streams: Vec<_> = [open(&guest, "unknown").await, open(&guest, "").await].into();
    let long = open(&guest, &"x".repeat(100_000)).await;
    ensure!(guest.execute("e1").await?, "the shim does not serve Exec");
    drop((streams, long));
    ensure!(guest.execute("e2").await?, "the shim does not serve Exec");
    Ok(())
}

async fn two_processes(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::new(&SLEEP)).await?;
    run(&guest, "c-out").await?;
    let started = async {
        guest.exec_with("e", &["true"], |request| request.stdout = uri(&guest, "c-out")).await?;
        guest.start("e").await
    };
    expect::refused(started.await)?;
    guest.expect_status("", Status::RUNNING).await?;
    ensure!(guest.execute("after").await?, "the shim does not serve Exec");
    Ok(())
}

/// Create with that stdout has to be refused, and leave nothing.
async fn refused(lab: &Lab, stdout: &str) -> Result<()> {
    let io = Io::Uris(String::new(), stdout.to_owned(), String::new());
    let guest = serving(lab, Ask::new(&SLEEP).io(io)).await?;
    expect::refused(guest.create().await)?;
    ensure!(lab.topics(&guest.id).is_empty(), "events: {:?}", lab.topics(&guest.id));
    Ok(())
}

async fn others_address(lab: &Lab) -> Result<()> {
    refused(lab, "ttrpc+unix:///run/nobody.sock?streaming_id=c-out").await
}

async fn no_id(lab: &Lab) -> Result<()> {
    let guest = serving(lab, Ask::new(&SLEEP)).await?;
    let stdout = format!("ttrpc+{}", guest.shim.answer.address);
    expect::refused(guest.create_with(|request| request.stdout = stdout).await)
}

async fn grpc(lab: &Lab) -> Result<()> {
    refused(lab, "grpc+vsock://3:1024?streaming_id=c-out").await
}
