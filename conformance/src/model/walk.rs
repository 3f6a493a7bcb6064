//! Takes a shim through a sequence, and holds every answer against the model.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use shim_client::CallError;
use shim_protos::types::Status;
use ttrpc::Code;

use super::life::{ExecPhase, Expected, Life, Phase, name};
use super::op::{Op, Sequence};
use crate::lab::{Ask, Guest, Lab, SOON, eventually};

/// Runs the calls in a container of their own.
pub(crate) async fn walk(lab: &Lab, ops: &[Op]) -> Result<()> {
    let guest = lab.prepare(Ask::new(&["sleep", "1000"])).await?;
    let mut life = Life::default();
    for (index, op) in ops.iter().enumerate() {
        step(&guest, &mut life, *op)
            .await
            .with_context(|| format!("after {}", Sequence(&ops[..index])))?;
    }
    // That an exec was deleted may be told or not.
    let of_exec = |topic: &String| topic.starts_with("delete ");
    let topics = || -> Vec<String> {
        lab.topics(&guest.id).into_iter().filter(|topic| !of_exec(topic)).collect()
    };
    // One too many will not go away again.
    let come = || life.is_told_by(&topics()) || topics().len() > life.count_told();
    ensure!(
        eventually(SOON, come).await && life.is_told_by(&topics()),
        "the events of {} were {:?}",
        Sequence(ops),
        topics()
    );
    Ok(())
}

async fn step(guest: &Guest, life: &mut Life, op: Op) -> Result<()> {
    let expected = life.expect(op);
    if expected == Expected::Open {
        return Ok(());
    }
    let answer = call(guest, op).await;
    hold(op, expected, &answer)?;
    if answer.is_ok() {
        if matches!(op, Op::Kill | Op::KillExec(_)) {
            settle(guest, life, op).await?;
        }
        life.follow(op);
    }
    look(guest, life).await.with_context(|| format!("then {op:?}"))
}

fn hold(op: Op, expected: Expected, answer: &Result<(), CallError>) -> Result<()> {
    let code = answer.as_ref().err().map(CallError::code);
    let fits = match (expected, code) {
        (Expected::Success, None) => true,
        (Expected::Refusal, Some(Some(_))) => true,
        (Expected::NotFound, Some(Some(code))) => code == Code::NOT_FOUND,
        (Expected::Taken, Some(Some(code))) => code == Code::ALREADY_EXISTS,
        _ => false,
    };
    match answer {
        _ if fits => Ok(()),
        Ok(()) => bail!("{op:?} succeeded, expected {expected:?}"),
        Err(error) => bail!("{op:?} answered {error}, expected {expected:?}"),
    }
}

async fn call(guest: &Guest, op: Op) -> Result<(), CallError> {
    match op {
        Op::Create => guest.create().await.map(drop),
        Op::Start => guest.start("").await.map(drop),
        Op::State => guest.state("").await.map(drop),
        Op::Kill => guest.kill("", 9).await.map(drop),
        Op::Probe => guest.kill("", 0).await.map(drop),
        Op::Wait => guest.wait("").await.map(drop),
        Op::Delete => guest.delete("").await.map(drop),
        Op::Pause => guest.pause().await.map(drop),
        Op::Resume => guest.resume().await.map(drop),
        Op::Pids => guest.pids().await.map(drop),
        Op::Stats => guest.stats().await.map(drop),
        Op::Update => guest.update(&json!({"pids": {"limit": 50}})).await.map(drop),
        Op::Connect => guest.connect().await.map(drop),
        Op::Shutdown => guest.shutdown().await.map(drop),
        Op::Exec(slot) => guest.exec(&name(slot), &["sleep", "1000"]).await.map(drop),
        Op::StartExec(slot) => guest.start(&name(slot)).await.map(drop),
        Op::StateExec(slot) => guest.state(&name(slot)).await.map(drop),
        Op::KillExec(slot) => guest.kill(&name(slot), 9).await.map(drop),
        Op::WaitExec(slot) => guest.wait(&name(slot)).await.map(drop),
        Op::DeleteExec(slot) => guest.delete(&name(slot)).await.map(drop),
    }
}

/// A killed process has to end, and with the container's first all of them.
async fn settle(guest: &Guest, life: &Life, op: Op) -> Result<()> {
    if let Op::KillExec(slot) = op {
        return guest.expect_exit(&name(slot), 137).await;
    }
    for (slot, _) in running(life) {
        guest.expect_exit(&name(slot), 137).await?;
    }
    guest.expect_exit("", 137).await
}

/// State has to tell what the model has.
async fn look(guest: &Guest, life: &Life) -> Result<()> {
    let expected = match life.phase {
        Phase::Nothing | Phase::Deleted => return Ok(()),
        Phase::Created => Status::CREATED,
        Phase::Running => Status::RUNNING,
        Phase::Paused => Status::PAUSED,
        Phase::Stopped => Status::STOPPED,
    };
    guest.expect_status("", expected).await?;
    let live = matches!(life.phase, Phase::Running);
    for (slot, _) in running(life).filter(|_| live) {
        guest.expect_status(&name(slot), Status::RUNNING).await?;
    }
    Ok(())
}

fn running(life: &Life) -> impl Iterator<Item = (usize, ExecPhase)> {
    let execs = life.execs.into_iter().enumerate();
    execs.filter(|(_, phase)| *phase == ExecPhase::Running)
}
