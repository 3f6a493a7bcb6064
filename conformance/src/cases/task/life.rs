//! From Create to Delete, with nothing unusual.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use shim_protos::Timestamp;
use shim_protos::protobuf::MessageField;
use shim_protos::task::StateResponse;
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect::code;
use crate::lab::{Ask, Guest, Io, Lab, SOON, eventually, procs};

group! { "task":
    Must whole_life: "Create, Start, Wait and Delete MUST take a container through its life, and agree on its end.";
    Must exit_codes: "Wait MUST tell the code that the program exited with.";
    Must end_by_signal: "A program that a signal ended MUST show status 128 + signal, real-time signals too.";
    Must pid_is_the_inits: "Create MUST answer with init's pid on the host, which does not run the program before Start.";
    Must state_tells_the_bundle: "State MUST tell id and bundle, from Create to Delete.";
    Must state_tells_the_streams: "State MUST tell the streams that the request named.";
    Must state_tells_a_terminal: "State MUST tell that there is a terminal.";
    Must state_after_the_end: "State of an ended container MUST tell pid, status and time, the same as Wait.";
    Should no_end_before_the_end: "State SHOULD leave exited_at out as long as the program runs.";
    Must short_lived: "Of a program that ends at once, State right after Start MUST tell the pid, and Wait the end.", within(240);
    Must spec_of_the_moment: "Create MUST go by config.json as it is then, whatever it was at `start`.";
    Must task_pid: "Connect MUST tell the pid of the task's init process.";
    Must pids_lists_all: "Pids MUST list every process of a container.";
    Must pids_is_not_empty: "Pids MUST NOT be empty while a container lives: containerd deletes such a task.";
}

async fn whole_life(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    let created = guest.create().await?.pid;
    ensure!(procs::runs(created), "Create says pid {created}, and no such process runs");
    let waiting = guest.waiting("");
    let started = guest.start("").await?.pid;
    ensure!(started == created, "Create says pid {created}, Start says {started}");
    let ended = waiting.await??;
    ensure!(ended.exit_status == 0, "Wait tells exit status {}, expected 0", ended.exit_status);
    let deleted = guest.delete("").await?;
    ensure!(deleted.pid == created, "Create says pid {created}, Delete says {}", deleted.pid);
    ensure!(deleted.exit_status == 0, "Delete tells exit status {}", deleted.exit_status);
    ensure!(
        deleted.exited_at == ended.exited_at && instant(&ended.exited_at) > Some((0, 0)),
        "Wait tells the end at {:?}, Delete at {:?}",
        instant(&ended.exited_at),
        instant(&deleted.exited_at)
    );
    Ok(())
}

async fn spec_of_the_moment(lab: &Lab) -> Result<()> {
    // How long after `start` a shim looks at the spec is its own business.
    for status in 3..8 {
        let guest = lab.bare(&["true"]).await?;
        code(guest.state("").await, Code::NOT_FOUND)?;
        let spec = lab.spec(&guest.id, &["sh", "-c", &format!("exit {status}")]).build();
        fs::write(guest.shim.bundle().config(), spec.to_string())?;
        guest.create().await?;
        guest.start("").await?;
        guest.expect_exit("", status).await?;
        guest.delete("").await?;
    }
    Ok(())
}

async fn exit_codes(lab: &Lab) -> Result<()> {
    for code in [0, 1, 42, 255] {
        let guest = lab.run(Ask::sh(&format!("exit {code}"))).await?;
        guest.expect_exit("", code).await?;
        let deleted = guest.delete("").await?.exit_status;
        ensure!(deleted == code, "Delete tells exit status {deleted}, expected {code}");
    }
    Ok(())
}

async fn end_by_signal(lab: &Lab) -> Result<()> {
    // To an init process with a pid namespace of its own the kernel delivers SIGKILL alone.
    for signal in [9, 10, 15, 34, 64] {
        let ask = Ask::sh("echo ready; exec sleep 1000").io(Io::Pipes).host_pid();
        let guest = lab.run(ask).await?;
        // Before that the signal could reach the runtime's own code, which may ignore it.
        guest.expect_output("ready").await?;
        guest.kill("", signal).await?;
        guest.expect_exit("", 128 + signal).await?;
    }
    Ok(())
}

async fn pid_is_the_inits(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["sleep", "1000"]).await?;
    let pid = guest.create().await?.pid;
    ensure!(is_first_of_its_namespace(pid)?, "process {pid} is not the container's process 1");
    ensure!(command(pid)? != "sleep 1000 ", "the program runs before Start");
    guest.start("").await?;
    let runs = || command(pid).is_ok_and(|command| command == "sleep 1000 ");
    ensure!(
        eventually(SOON, runs).await,
        "process {pid} executes {:?}, expected the program",
        command(pid)
    );
    guest.kill_and_wait().await
}

fn command(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/cmdline");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.replace('\0', " "))
}

fn is_first_of_its_namespace(pid: u32) -> Result<bool> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    Ok(line.is_some_and(|pids| pids.split_whitespace().next_back() == Some("1")))
}

async fn state_tells_the_bundle(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["sleep", "1000"]).await?;
    expect_place(&guest, Status::CREATED).await?;
    guest.start("").await?;
    expect_place(&guest, Status::RUNNING).await?;
    guest.kill_and_wait().await?;
    expect_place(&guest, Status::STOPPED).await
}

async fn expect_place(guest: &Guest, expected: Status) -> Result<()> {
    let state = guest.state("").await?;
    let status = state.status.enum_value_or_default();
    let bundle = guest.shim.bundle().path().display().to_string();
    ensure!(status == expected, "State says {status:?}, expected {expected:?}");
    ensure!(state.id == guest.id, "State says id {:?}, expected {:?}", state.id, guest.id);
    ensure!(state.bundle == bundle, "State says bundle {:?}, expected {bundle:?}", state.bundle);
    ensure!(state.exec_id.is_empty(), "State says exec id {:?} of the init process", state.exec_id);
    Ok(())
}

async fn state_tells_the_streams(lab: &Lab) -> Result<()> {
    let guest = lab.create(Ask::new(&["true"]).io(Io::Pipes)).await?;
    expect_streams(&guest, &guest.state("").await?)?;
    guest.start("").await?;
    guest.wait("").await?;
    expect_streams(&guest, &guest.state("").await?)
}

fn expect_streams(guest: &Guest, state: &StateResponse) -> Result<()> {
    let told = [&state.stdin, &state.stdout, &state.stderr];
    let asked = guest.uris().each_ref();
    ensure!(told == asked, "State says the streams are {told:?}, expected {asked:?}");
    ensure!(!state.terminal, "State says that there is a terminal");
    Ok(())
}

async fn state_tells_a_terminal(lab: &Lab) -> Result<()> {
    let guest = lab.create(Ask::new(&["true"]).io(Io::Terminal)).await?;
    ensure!(guest.state("").await?.terminal, "State says that there is no terminal");
    guest.start("").await?;
    guest.wait("").await?;
    Ok(())
}

async fn state_after_the_end(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["sh", "-c", "exit 7"]).await?;
    let pid = guest.create().await?.pid;
    guest.start("").await?;
    let ended = guest.wait("").await?;
    let state = guest.state("").await?;
    let status = state.status.enum_value_or_default();
    ensure!(status == Status::STOPPED, "State says {status:?}, expected STOPPED");
    ensure!(state.pid == pid, "State says pid {}, which was {pid} before", state.pid);
    ensure!(state.exit_status == 7, "State says exit status {}, expected 7", state.exit_status);
    ensure!(
        state.exited_at == ended.exited_at && instant(&state.exited_at) > Some((0, 0)),
        "State tells the end at {:?}, Wait at {:?}",
        instant(&state.exited_at),
        instant(&ended.exited_at)
    );
    Ok(())
}

async fn no_end_before_the_end(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let at = instant(&guest.state("").await?.exited_at);
    ensure!(at.is_none(), "State tells an end at {at:?} while the program runs");
    guest.kill_and_wait().await
}

async fn short_lived(lab: &Lab) -> Result<()> {
    for turn in 0..50 {
        let guest = lab.created(&["true"]).await?;
        let started = guest.start("").await?.pid;
        let state = guest.state("").await.with_context(|| format!("turn {turn}"))?;
        if state.pid != started || started == 0 {
            bail!("turn {turn}: Start says pid {started}, State then says {}", state.pid);
        }
        guest.expect_exit("", 0).await.with_context(|| format!("turn {turn}"))?;
        guest.delete("").await?;
        // Fifty shims at a time would be hard on a small machine.
        let _ = guest.shutdown().await;
    }
    Ok(())
}

async fn task_pid(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["sleep", "1000"]).await?;
    let pid = guest.create().await?.pid;
    for phase in ["created", "started"] {
        let told = guest.connect().await?.task_pid;
        ensure!(told == pid, "{phase}: Connect says task pid {told}, expected {pid}");
        if phase == "created" {
            guest.start("").await?;
        }
    }
    guest.kill_and_wait().await
}

async fn pids_lists_all(lab: &Lab) -> Result<()> {
    let script = "sleep 1000 & sleep 1000 & echo ready; wait";
    let guest = lab.run(Ask::sh(script).io(Io::Pipes)).await?;
    guest.expect_output("ready").await?;
    let init = guest.pid().await?;
    let children = procs::descendants();
    let expected: Vec<u32> = children
        .iter()
        .filter(|process| u32::try_from(process.parent) == Ok(init))
        .filter_map(|process| u32::try_from(process.pid).ok())
        .chain([init])
        .collect();
    ensure!(expected.len() == 3, "the container has {} processes", expected.len());
    let told = pids(&guest).await?;
    for pid in expected {
        ensure!(told.contains(&pid), "Pids says {told:?}, without {pid}");
    }
    ensure!(told.len() == 3, "Pids says {told:?}, expected three");
    guest.kill_and_wait().await
}

async fn pids_is_not_empty(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["sleep", "1000"]).await?;
    let pid = guest.create().await?.pid;
    let told = pids(&guest).await?;
    ensure!(told.contains(&pid), "created: Pids says {told:?}, expected {pid} in it");
    guest.start("").await?;
    let told = pids(&guest).await?;
    ensure!(told.contains(&pid), "started: Pids says {told:?}, expected {pid} in it");
    guest.kill_and_wait().await
}

async fn pids(guest: &Guest) -> Result<Vec<u32>> {
    Ok(guest.pids().await?.processes.iter().map(|process| process.pid).collect())
}

/// Seconds and nanoseconds since 1970.
fn instant(at: &MessageField<Timestamp>) -> Option<(i64, i32)> {
    at.as_ref().map(|at| (at.seconds, at.nanos))
}
