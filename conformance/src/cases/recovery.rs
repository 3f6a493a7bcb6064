//! containerd ends and comes back: its containers have lived on, and tell what happened.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use shim_client::{Fifos, Shape, Shim};
use shim_protos::task::{ConnectRequest, WaitRequest};
use shim_protos::types::Status;

use crate::case::group;
use crate::expect::optional;
use crate::lab::{Ask, Io, Lab, SOON, eventually, procs};
use crate::wire::Wire;

group! { "recovery":
    Must container_survives: "A running container MUST survive the end of the connection to its shim.";
    Must task_is_found_again: "On a new connection, Connect, Pids and State MUST tell the same as on the old one.";
    Must end_is_told_later: "An end that nobody saw MUST be told by State, Wait and Delete on a new connection.";
    Must exec_end_is_told_later: "The end of an exec that nobody saw MUST be told on a new connection.";
    Must created_survives: "A created container MUST be startable through a new connection.";
    Must kept_address_works: "What `start` left in the bundle MUST lead to the shim.";
    Must wait_on_two_connections: "A Wait on each of two connections MUST be answered.";
    Must broken_wait_is_harmless: "A connection that ends amid a Wait MUST NOT keep others from their answer.";
    Must half_a_request_is_harmless: "A connection that ends amid a request MUST NOT harm the shim.";
    Must events_reach_the_next_daemon: "Events after a restart of containerd MUST reach its new events service.";
    Must output_outlives_its_reader: "A program that writes MUST NOT be disturbed when its reader ends, and the next one MUST read on.";
}

async fn container_survives(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let (pid, shim) = (guest.pid().await?, guest.shim_pid().await?);
    let left = lab.leave(guest).await?;
    // An answer on the next connection shows that the shim has seen the end of this one.
    let guest = lab.rejoin(left).await?;
    guest.connect().await?;
    ensure!(procs::runs(shim), "the shim has ended with its connection");
    ensure!(procs::runs(pid), "the container has ended with the connection");
    guest.kill_and_wait().await
}

async fn task_is_found_again(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let (state, pids) = (guest.state("").await?, guest.pids().await?);
    let connected = guest.connect().await?;
    let left = lab.leave(guest).await?;
    let guest = lab.rejoin(left).await?;
    let now = guest.connect().await?;
    ensure!(now == connected, "Connect says {now:?}, and said {connected:?}");
    let now = guest.pids().await?;
    ensure!(!now.processes.is_empty(), "Pids is empty: containerd would delete the task");
    ensure!(now == pids, "Pids says {now:?}, and said {pids:?}");
    let now = guest.state("").await?;
    ensure!(now == state, "State says {now:?}, and said {state:?}");
    guest.kill_and_wait().await
}

async fn end_is_told_later(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = guest.pid().await?;
    let left = lab.leave(guest).await?;
    procs::signal(pid, nix::sys::signal::Signal::SIGKILL)?;
    ensure!(eventually(SOON, || !procs::runs(pid)).await, "process {pid} survives SIGKILL");
    let guest = lab.rejoin(left).await?;
    guest.expect_exit("", 137).await?;
    guest.expect_status("", Status::STOPPED).await?;
    let state = guest.state("").await?;
    ensure!(state.exit_status == 137, "State says exit status {}", state.exit_status);
    ensure!(state.pid == pid, "State says pid {}, which was {pid}", state.pid);
    let deleted = guest.delete("").await?;
    ensure!(deleted.exit_status == 137, "Delete tells exit status {}", deleted.exit_status);
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}

async fn exec_end_is_told_later(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = optional(guest.started("e1", &["sleep", "1000"]).await)?;
    let left = lab.leave(guest).await?;
    procs::signal(pid, nix::sys::signal::Signal::SIGKILL)?;
    ensure!(eventually(SOON, || !procs::runs(pid)).await, "process {pid} survives SIGKILL");
    let guest = lab.rejoin(left).await?;
    guest.expect_exit("e1", 137).await?;
    guest.expect_status("e1", Status::STOPPED).await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.delete("e1").await?;
    guest.kill_and_wait().await
}

async fn created_survives(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["sh", "-c", "exit 6"]).await?;
    let left = lab.leave(guest).await?;
    let guest = lab.rejoin(left).await?;
    guest.expect_status("", Status::CREATED).await?;
    guest.start("").await?;
    guest.expect_exit("", 6).await
}

async fn kept_address_works(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let kept = guest.shim.bundle().kept_answer()?;
    let (daemon, binary) = (lab.daemon(), &lab.subject.binary);
    let shim = Shim::connect(&daemon, binary, guest.shim.bundle(), kept).await?;
    let request = ConnectRequest { id: guest.id.clone(), ..Default::default() };
    let told = shim.task.connect(&request).await?.shim_pid;
    let pid = guest.shim_pid().await?;
    ensure!(told == pid, "it leads to the shim {told}, expected {pid}");
    shim.leave().await;
    guest.kill_and_wait().await
}

async fn wait_on_two_connections(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let second = lab.second_connection(&guest).await?;
    let (task, id) = (second.task.clone(), guest.id.clone());
    let request = WaitRequest { id, ..Default::default() };
    let elsewhere = tokio::spawn(async move { task.wait(&request).await });
    let here = guest.waiting("");
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill("", 9).await?;
    for answer in [here.await??, elsewhere.await??] {
        ensure!(answer.exit_status == 137, "Wait tells exit status {}", answer.exit_status);
    }
    second.leave().await;
    Ok(())
}

async fn broken_wait_is_harmless(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let waiting: Vec<_> = (0..10).map(|_| guest.waiting("")).collect();
    guest.expect_status("", Status::RUNNING).await?;
    let left = lab.leave(guest).await?;
    for one in waiting {
        // Tasks that still wait hold the connection, too.
        one.abort();
        let _ = one.await;
    }
    let guest = lab.rejoin(left).await?;
    let waiting = guest.waiting("");
    guest.kill("", 9).await?;
    let status = waiting.await??.exit_status;
    ensure!(status == 137, "Wait tells exit status {status}, expected 137");
    guest.delete("").await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}

async fn half_a_request_is_harmless(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    for length in [1, 5, 10, 14] {
        let mut wire = Wire::connect(&guest.shim.answer.address).await?;
        let whole = [&crate::wire::head(100, 1, crate::wire::REQUEST)[..], &[0x0a; 4]].concat();
        wire.send(&whole[..length]).await?;
        drop(wire);
        guest.expect_status("", Status::RUNNING).await?;
    }
    guest.kill_and_wait().await
}

async fn events_reach_the_next_daemon(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    lab.expect_topics(&guest.id, &["create", "start"]).await?;
    let left = lab.leave(guest).await?;
    lab.stop_events().await;
    lab.resume_events().await?;
    let guest = lab.rejoin(left).await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}

/// Opens a fifo for reading, without a writer or with one.
fn reader(path: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(Path::new(path)).with_context(|| format!("open {path}"))
}

/// Reads until that text has come.
async fn expect_text(reader: &mut File, expected: &str) -> Result<()> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    let found = eventually(SOON, || {
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        String::from_utf8_lossy(&text).contains(expected)
    });
    if found.await {
        return Ok(());
    }
    bail!("expected {expected:?}, got {:?}", String::from_utf8_lossy(&text))
}

async fn output_outlives_its_reader(lab: &Lab) -> Result<()> {
    let fifos = Fifos::create(&lab.folder.join("fifos"), Shape::Pipes)?;
    let io = Io::Uris(fifos.stdin(), fifos.stdout(), fifos.stderr());
    let mut first = reader(&fifos.stdout())?;
    let _errors = reader(&fifos.stderr())?;
    let script = "while read line; do echo \"got $line\"; done";
    let guest = lab.run(Ask::sh(script).io(io)).await?;
    let mut stdin = guest.stdin()?;
    std::io::Write::write_all(&mut stdin, b"one\n")?;
    expect_text(&mut first, "got one").await?;
    drop(first);
    std::io::Write::write_all(&mut stdin, b"two\n")?;
    guest.expect_status("", Status::RUNNING).await?;
    let mut second = reader(&fifos.stdout())?;
    expect_text(&mut second, "got two").await?;
    std::io::Write::write_all(&mut stdin, b"three\n")?;
    expect_text(&mut second, "got three").await?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.kill_and_wait().await
}
