//! What becomes of an added process that is used as containerd uses it.

use anyhow::{Result, ensure};
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::signals::{self, KILL, REAL_TIME, TERM, status_of};
use crate::lab::{Lab, SLEEP};

group! { "exec":
    Must created_has_no_pid: "State of an exec that was not started MUST say CREATED, with pid 0.";
    Must running_has_its_pid: "State of a started exec MUST say RUNNING, with the pid that Start told.";
    Must stopped_keeps_its_pid: "State of an ended exec MUST say STOPPED, with its pid, status and time.";
    Must delete_tells_the_end: "Delete of an ended exec MUST tell its pid, status and time, as Wait did.";
    Must events_in_order: "Exec events MUST be exec-added, exec-started and one exit, in this order.";
    Must exit_event_names_it: "The exit event of an exec MUST have its id, pid, status and the container's id.";
    Must exit_codes: "The exit status of an exec MUST be its exit code.";
    Must exit_signals: "The exit status of an exec that a signal ended MUST be 128 and the signal's number.";
    Must delete_before_start: "Delete of an exec that was not started MUST succeed and free its id.";
    Must delete_twice: "A second Delete of an exec MUST be NOT_FOUND.";
    Must id_is_free_after_delete: "The id of a deleted exec MUST be usable again.";
    Must init_deleted_with_execs: "Delete of an ended container MUST succeed while it still has execs.";
    Must dies_with_the_container: "Execs MUST end when the container's init process ends, and tell it first.";
}

async fn created_has_no_pid(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &["true"]).await?;
    let state = guest.state("e").await?;
    guest.expect_status("e", Status::CREATED).await?;
    ensure!(state.pid == 0, "pid {} before the start", state.pid);
    guest.delete("e").await?;
    Ok(())
}

async fn running_has_its_pid(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &SLEEP).await?;
    let state = guest.state("e").await?;
    guest.expect_status("e", Status::RUNNING).await?;
    ensure!(pid != 0 && state.pid == pid, "Start tells pid {pid}, State {}", state.pid);
    let init = guest.pid().await?;
    ensure!(init != pid, "the exec has the pid of the container's init process");
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await?;
    guest.delete("e").await?;
    Ok(())
}

async fn stopped_keeps_its_pid(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &["/bin/sh", "-c", "exit 7"]).await?;
    let end = guest.wait("e").await?;
    guest.await_status("e", Status::STOPPED).await?;
    let state = guest.state("e").await?;
    ensure!(state.pid == pid, "State tells pid {}, Start told {pid}", state.pid);
    ensure!(state.exit_status == 7, "State tells exit status {}", state.exit_status);
    ensure!(
        state.exited_at.seconds > 0 && state.exited_at == end.exited_at,
        "State tells the end at {:?}, Wait at {:?}",
        state.exited_at,
        end.exited_at
    );
    guest.delete("e").await?;
    Ok(())
}

async fn delete_tells_the_end(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &["/bin/sh", "-c", "exit 9"]).await?;
    let end = guest.wait("e").await?;
    let deleted = guest.delete("e").await?;
    ensure!(deleted.pid == pid, "Delete tells pid {}, Start told {pid}", deleted.pid);
    ensure!(deleted.exit_status == 9, "Delete tells exit status {}", deleted.exit_status);
    ensure!(deleted.exited_at == end.exited_at, "Delete tells another time than Wait");
    Ok(())
}

async fn events_in_order(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &["true"]).await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    guest.kill_and_wait().await?;
    lab.expect_topic(&guest.id, "exit").await?;
    let topics = lab.topics(&guest.id);
    // Whether the Delete of an exec is told differs: containerd's own shim is silent.
    let seen: Vec<&str> =
        topics.iter().map(String::as_str).filter(|one| *one != "delete e").collect();
    let expected = ["create", "start", "exec-added e", "exec-started e", "exit e", "exit"];
    ensure!(seen == expected, "expected the events {expected:?}, got {topics:?}");
    Ok(())
}

async fn exit_event_names_it(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let pid = guest.started("e", &["/bin/sh", "-c", "exit 5"]).await?;
    lab.expect_topic(&guest.id, "exit e").await?;
    let events = lab.events();
    let exit = events
        .iter()
        .map(shim_client::Event::to_json)
        .find(|told| told["topic"] == "/tasks/exit" && told["event"]["id"] == "e");
    let told = exit.unwrap_or_default();
    let payload = &told["event"];
    ensure!(payload["container_id"] == guest.id.as_str(), "container id: {told}");
    ensure!(payload["pid"] == pid && payload["exit_status"] == 5, "expected pid {pid}: {told}");
    guest.delete("e").await?;
    Ok(())
}

async fn exit_codes(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for code in [0, 1, 127, 128, 255] {
        let exec = format!("e{code}");
        guest.started(&exec, &["/bin/sh", "-c", &format!("exit {code}")]).await?;
        guest.expect_exit(&exec, code).await?;
        guest.delete(&exec).await?;
    }
    Ok(())
}

async fn exit_signals(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for signal in [signals::INT, KILL, TERM, REAL_TIME] {
        let exec = format!("e{signal}");
        guest.started(&exec, &SLEEP).await?;
        guest.kill(&exec, signal).await?;
        guest.expect_exit(&exec, status_of(signal)).await?;
        guest.delete(&exec).await?;
    }
    Ok(())
}

async fn delete_before_start(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &["true"]).await?;
    guest.delete("e").await?;
    expect::code(guest.state("e").await, Code::NOT_FOUND)?;
    guest.started("e", &["true"]).await?;
    guest.expect_exit("e", 0).await?;
    guest.delete("e").await?;
    Ok(())
}

async fn delete_twice(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e", &["true"]).await?;
    guest.wait("e").await?;
    guest.delete("e").await?;
    expect::code(guest.delete("e").await, Code::NOT_FOUND)
}

async fn id_is_free_after_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for code in [1, 2] {
        guest.started("e", &["/bin/sh", "-c", &format!("exit {code}")]).await?;
        guest.expect_exit("e", code).await?;
        guest.delete("e").await?;
    }
    Ok(())
}

async fn init_deleted_with_execs(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("ended", &["true"]).await?;
    guest.wait("ended").await?;
    guest.exec("created", &["true"]).await?;
    guest.kill_and_wait().await?;
    let deleted = guest.delete("").await?;
    ensure!(deleted.exit_status == status_of(KILL), "exit status {}", deleted.exit_status);
    expect::code(guest.state("").await, Code::NOT_FOUND)
}

async fn dies_with_the_container(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for exec in ["e1", "e2"] {
        guest.started(exec, &SLEEP).await?;
    }
    guest.kill_and_wait().await?;
    for exec in ["e1", "e2"] {
        guest.expect_exit(exec, status_of(KILL)).await?;
    }
    lab.expect_topic(&guest.id, "exit").await?;
    let topics = lab.topics(&guest.id);
    let of_init = topics.iter().position(|topic| topic == "exit");
    for exec in ["exit e1", "exit e2"] {
        let at = topics.iter().position(|topic| topic == exec);
        ensure!(at.is_some() && at < of_init, "no {exec} ahead of the init's: {topics:?}");
    }
    Ok(())
}
