//! Calls at once: each has one outcome, and together they have one too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shim_client::{CallError, Reason};

use crate::case::group;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Ask, Lab, SLEEP, SOON, eventually, procs, together};

group! { "concurrency":
    Must twenty_shims: "20 containers at once MUST each live and end on their own.", within(60);
    Must ten_in_a_group: "10 containers of a group at once MUST share one shim, and each end on its own.", within(60);
    Must kill_and_start: "A Kill and a Start at once MUST leave an ended container, with one exit event.";
    Must wait_and_delete: "A Wait and a Delete at once MUST both be answered.";
    Must starts: "Of several Starts at once exactly one MUST succeed.";
    Must deletes: "Of several Deletes at once exactly one MUST succeed.";
    Must execs: "Of several Execs with one id at once exactly one MUST succeed.";
    Must exec_starts: "Of several Starts of an exec at once exactly one MUST succeed.";
    Must creates: "Of several Creates at once exactly one MUST succeed, and its container MUST work.";
    Must different_execs: "Execs with ids of their own at once MUST all succeed.", within(60);
    Must execs_and_kill: "An exec that starts as the init ends MUST have one exit event, ahead of the init's.", within(90);
}

/// A container from the Create to the Delete, with that exit code.
async fn whole_life(lab: &Lab, ask: Ask, code: u32) -> Result<u32> {
    let guest = lab.run(ask).await?;
    let shim = guest.shim_pid().await?;
    guest.expect_exit("", code).await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit"]).await?;
    guest.delete("").await?;
    Ok(shim)
}

async fn twenty_shims(lab: &Lab) -> Result<()> {
    let lives =
        (0..20).map(|code| whole_life(lab, Ask::sh(&format!("sleep 0.1; exit {code}")), code));
    let shims = together(lives).await.into_iter().collect::<Result<Vec<u32>>>()?;
    let mut distinct = shims.clone();
    distinct.sort_unstable();
    distinct.dedup();
    ensure!(distinct.len() == 20, "20 containers without a group have the shims {shims:?}");
    Ok(())
}

async fn ten_in_a_group(lab: &Lab) -> Result<()> {
    // Kept by one more: with its last container a shim may end.
    let keeper = lab.run(Ask::new(&SLEEP).group("pod")).await?;
    let shim = keeper.shim_pid().await?;
    let lives = (0..10).map(|code| {
        whole_life(lab, Ask::sh(&format!("sleep 0.1; exit {code}")).group("pod"), code)
    });
    let shims = together(lives).await.into_iter().collect::<Result<Vec<u32>>>()?;
    ensure!(shims == [shim; 10], "the group has the shim {shim}, its containers {shims:?}");
    keeper.kill_and_wait().await?;
    keeper.delete("").await?;
    match keeper.shutdown().await {
        // A shim may end faster than its answer travels.
        Err(error) if error.reason != Reason::Gone => Err(error.into()),
        _ => {
            let gone = eventually(SOON, || !procs::runs(shim)).await;
            ensure!(gone, "the shim {shim} still runs after Shutdown");
            Ok(())
        }
    }
}

async fn kill_and_start(lab: &Lab) -> Result<()> {
    for _ in 0..5 {
        let guest = lab.created(&SLEEP).await?;
        let start = async { guest.start("").await.map(drop) };
        let kill = async { guest.kill("", KILL).await.map(drop) };
        let (started, killed) = tokio::join!(start, kill);
        killed.context("the Kill")?;
        if let Err(error) = started {
            ensure!(error.code().is_some(), "the Start: {error}");
        }
        guest.expect_exit("", status_of(KILL)).await?;
        lab.expect_topic(&guest.id, "exit").await?;
        let exits = lab.count_topic(&guest.id, "exit");
        ensure!(exits == 1, "{exits} exit events: {:?}", lab.topics(&guest.id));
        guest.delete("").await?;
    }
    Ok(())
}

async fn wait_and_delete(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for run in 0..10 {
        let exec = format!("e{run}");
        guest.started(&exec, &["/bin/sh", "-c", "exit 6"]).await?;
        guest.expect_exit(&exec, 6).await?;
        let (waited, deleted) = tokio::join!(guest.wait(&exec), guest.delete(&exec));
        let deleted = deleted.context("the Delete")?;
        ensure!(deleted.exit_status == 6, "Delete tells exit status {}", deleted.exit_status);
        match waited {
            Ok(told) => ensure!(told.exit_status == 6, "Wait tells {}", told.exit_status),
            Err(error) => ensure!(error.is_not_found(), "the Wait: {error}"),
        }
    }
    Ok(())
}

/// Exactly one of them has to succeed, and the others have to be refused.
fn expect_one<T>(answers: Vec<Result<T, CallError>>) -> Result<()> {
    let mut successes = 0;
    for answer in answers {
        match answer {
            Ok(_) => successes += 1,
            Err(error) => ensure!(error.code().is_some(), "{error}"),
        }
    }
    ensure!(successes == 1, "{successes} of the calls succeed");
    Ok(())
}

async fn starts(lab: &Lab) -> Result<()> {
    let guest = lab.created(&SLEEP).await?;
    expect_one(together((0..5).map(|_| guest.start(""))).await)?;
    guest.kill_and_wait().await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit"]).await
}

async fn deletes(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.expect_exit("", 0).await?;
    expect_one(together((0..5).map(|_| guest.delete(""))).await)?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}

async fn execs(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect_one(together((0..5).map(|_| guest.exec("e", &["true"]))).await)?;
    lab.expect_topics(&guest.id, &["create", "start", "exec-added e"]).await?;
    guest.start("e").await?;
    guest.expect_exit("e", 0).await
}

async fn exec_starts(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.exec("e", &SLEEP).await?;
    expect_one(together((0..5).map(|_| guest.start("e"))).await)?;
    let processes = guest.pids().await?.processes;
    ensure!(processes.len() == 2, "expected 2 processes, Pids tells {processes:?}");
    guest.kill("e", KILL).await?;
    guest.expect_exit("e", status_of(KILL)).await?;
    guest.kill_and_wait().await?;
    let expected = ["create", "start", "exec-added e", "exec-started e", "exit e", "exit"];
    lab.expect_topics(&guest.id, &expected).await
}

async fn creates(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["/bin/sh", "-c", "test -x /bin/sh && exit 3"]).await?;
    expect_one(together((0..5).map(|_| guest.create())).await)?;
    guest.start("").await?;
    guest.expect_exit("", 3).await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit"]).await?;
    guest.delete("").await?;
    Ok(())
}

async fn different_execs(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let lives = (0..20).map(|code| {
        let guest = &guest;
        async move {
            let exec = format!("e{code}");
            guest.started(&exec, &["/bin/sh", "-c", &format!("exit {code}")]).await?;
            guest.expect_exit(&exec, code).await?;
            guest.delete(&exec).await?;
            anyhow::Ok(())
        }
    });
    for life in together(lives).await {
        life?;
    }
    let told = || (0..20).all(|code| lab.count_topic(&guest.id, &format!("exit e{code}")) == 1);
    ensure!(eventually(SOON, told).await, "not one exit each: {:?}", lab.topics(&guest.id));
    Ok(())
}

async fn execs_and_kill(lab: &Lab) -> Result<()> {
    for run in 0..20_u64 {
        let guest = lab.running(&SLEEP).await?;
        for exec in ["e1", "e2", "e3"] {
            guest.exec(exec, &SLEEP).await?;
        }
        let starts = together(["e1", "e2", "e3"].map(|exec| guest.start(exec)));
        let kill = async {
            // Earlier and later, so that the end meets every step of a start.
            tokio::time::sleep(Duration::from_micros(run * 500)).await;
            guest.kill("", KILL).await
        };
        let (started, killed) = tokio::join!(starts, kill);
        killed.context("the Kill")?;
        guest.expect_exit("", status_of(KILL)).await?;
        lab.expect_topic(&guest.id, "exit").await?;
        let topics = lab.topics(&guest.id);
        let last = topics.last().map(String::as_str);
        ensure!(last == Some("exit"), "the init's exit is not the last event: {topics:?}");
        for (exec, answer) in ["e1", "e2", "e3"].iter().zip(started) {
            let exits = lab.count_topic(&guest.id, &format!("exit {exec}"));
            let told = lab.count_topic(&guest.id, &format!("exec-started {exec}"));
            ensure!(exits <= 1 && told <= exits, "run {run}, {exec}: {topics:?}");
            ensure!(answer.is_err() || exits == 1, "run {run}: {exec} started, but {topics:?}");
        }
        guest.delete("").await?;
    }
    Ok(())
}
