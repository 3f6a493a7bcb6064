//! Calls about a task that is not there: not yet, no longer, or never.

use anyhow::{Context, Result, ensure};
use shim_client::CallError;
use shim_protos::task::{ConnectRequest, DeleteRequest, StateRequest};
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::{Guest, Lab};

group! { "task":
    Must not_found_before_create: "State, Start, Delete, Pids, Kill and Wait MUST answer NOT_FOUND before Create.";
    Should all_not_found_before_create: "Every call about a task SHOULD answer NOT_FOUND before Create.";
    Must not_found_after_delete: "State, Start, Delete, Pids, Kill and Wait MUST answer NOT_FOUND after Delete.";
    Should all_not_found_after_delete: "Every call about a task SHOULD answer NOT_FOUND after Delete.";
    Must connect_of_unknown: "Connect MUST answer for an id that the shim does not know, with its own pid.";
    Must unknown_beside_known: "An id that the shim does not know MUST be NOT_FOUND, whatever else it has.";
}

type Told = (&'static str, Result<String, CallError>);

/// What containerd or its clients treat as the end of a task, when it is NOT_FOUND.
async fn decisive(guest: &Guest) -> Vec<Told> {
    vec![
        ("State", told(guest.state("").await)),
        ("Start", told(guest.start("").await)),
        ("Delete", told(guest.delete("").await)),
        ("Pids", told(guest.pids().await)),
        ("Kill", told(guest.kill("", 9).await)),
        ("Wait", told(guest.wait("").await)),
    ]
}

/// The other ones.
async fn further(guest: &Guest) -> Vec<Told> {
    vec![
        ("Pause", told(guest.pause().await)),
        ("Resume", told(guest.resume().await)),
        ("Exec", told(guest.exec("e1", &["true"]).await)),
        ("Start of an exec", told(guest.start("e1").await)),
        ("State of an exec", told(guest.state("e1").await)),
        ("ResizePty", told(guest.resize("", 80, 24).await)),
        ("CloseIO", told(guest.close_stdin("").await)),
        ("Update", told(guest.update(&serde_json::json!({})).await)),
        ("Stats", told(guest.stats().await)),
        ("Checkpoint", told(guest.checkpoint("/nowhere").await)),
        ("Kill of all", told(guest.kill_all(9).await)),
    ]
}

fn told<T: std::fmt::Debug>(answer: Result<T, CallError>) -> Result<String, CallError> {
    answer.map(|answer| format!("{answer:?}"))
}

fn expect_all(answers: Vec<Told>, codes: &[Code]) -> Result<()> {
    for (call, answer) in answers {
        expect::one_of(answer, codes).context(call)?;
    }
    Ok(())
}

async fn not_found_before_create(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    expect_all(decisive(&guest).await, &[Code::NOT_FOUND])
}

async fn all_not_found_before_create(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["true"]).await?;
    expect_all(further(&guest).await, &[Code::NOT_FOUND, Code::UNIMPLEMENTED])
}

async fn not_found_after_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    expect_all(decisive(&guest).await, &[Code::NOT_FOUND])
}

async fn all_not_found_after_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    expect_all(further(&guest).await, &[Code::NOT_FOUND, Code::UNIMPLEMENTED])
}

async fn connect_of_unknown(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let request = ConnectRequest { id: "nobody".to_owned(), ..Default::default() };
    let told = guest.shim.task.connect(&request).await?.shim_pid;
    let pid = guest.shim_pid().await?;
    ensure!(told == pid, "Connect says shim pid {told} for an unknown id, and {pid} for a known");
    guest.kill_and_wait().await
}

async fn unknown_beside_known(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let id = || "nobody".to_owned();
    let state = StateRequest { id: id(), ..Default::default() };
    expect::code(guest.shim.task.state(&state).await, Code::NOT_FOUND)?;
    let delete = DeleteRequest { id: id(), ..Default::default() };
    expect::code(guest.shim.task.delete(&delete).await, Code::NOT_FOUND)?;
    guest.kill_and_wait().await
}
