//! Which events come, and in which order.

use anyhow::{Result, ensure};

use crate::case::group;
use crate::expect::{optional, refused};
use crate::lab::{Guest, Lab, SOON, eventually};

group! { "events":
    Must life_in_order: "create, start, exit and delete MUST each be published once, in this order.";
    Must exec_in_order: "exec-added, exec-started and exit of an exec MUST each be published once, in this order.";
    Must execs_end_before_init: "The exits of running execs MUST be published before the exit of the init process.";
    Must pause_and_resume: "paused and resumed MUST be published, in the order of the calls.";
    Must nothing_for_refused_calls: "Refused calls MUST NOT publish anything.";
    Must failed_exec_never_started: "An exec whose Start failed MUST NOT publish exec-started.";
    Must killed_once: "A container killed again and again MUST publish one exit.";
    Must short_lives_in_order: "The exit of a program that ends at once MUST NOT be published before its start.", within(60);
}

async fn life_in_order(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.delete("").await?;
    expect_in_the_end(lab, &guest, &["create", "start", "exit", "delete"]).await
}

/// Lets the shim end, so that nothing can come behind, and compares.
async fn expect_in_the_end(lab: &Lab, guest: &Guest, expected: &[&str]) -> Result<()> {
    guest.shut_down().await?;
    // Whether the deletion of an exec is told is the shim's choice.
    let told = || -> Vec<String> {
        let topics = lab.topics(&guest.id).into_iter();
        topics.filter(|topic| !topic.starts_with("delete ")).collect()
    };
    ensure!(
        eventually(SOON, || told() == expected).await,
        "expected the events {expected:?}, got {:?}",
        told()
    );
    Ok(())
}

async fn exec_in_order(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    for exec in ["e1", "e2"] {
        optional(guest.started(exec, &["true"]).await)?;
        guest.wait(exec).await?;
        guest.delete(exec).await?;
    }
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    let expected = [
        "create",
        "start",
        "exec-added e1",
        "exec-started e1",
        "exit e1",
        "exec-added e2",
        "exec-started e2",
        "exit e2",
        "exit",
        "delete",
    ];
    expect_in_the_end(lab, &guest, &expected).await
}

async fn execs_end_before_init(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    for exec in ["e1", "e2", "e3"] {
        optional(guest.started(exec, &["sleep", "1000"]).await)?;
    }
    guest.kill_and_wait().await?;
    lab.expect_topic(&guest.id, "exit").await?;
    let topics = lab.topics(&guest.id);
    let exits: Vec<&String> = topics.iter().filter(|topic| topic.starts_with("exit")).collect();
    ensure!(exits.len() == 4, "init's exit is published and these before it: {exits:?}");
    ensure!(exits.last().is_some_and(|last| *last == "exit"), "exits in this order: {exits:?}");
    Ok(())
}

async fn pause_and_resume(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.pause().await)?;
    guest.resume().await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    let expected = ["create", "start", "paused", "resumed", "exit", "delete"];
    expect_in_the_end(lab, &guest, &expected).await
}

async fn nothing_for_refused_calls(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&["sleep", "1000"]).await?;
    refused(guest.start("").await)?;
    guest.create().await?;
    refused(guest.pause().await)?;
    refused(guest.create().await)?;
    guest.start("").await?;
    refused(guest.start("").await)?;
    refused(guest.delete("").await)?;
    refused(guest.start("e1").await)?;
    guest.kill_and_wait().await?;
    refused(guest.kill("", 9).await)?;
    guest.delete("").await?;
    refused(guest.delete("").await)?;
    expect_in_the_end(lab, &guest, &["create", "start", "exit", "delete"]).await
}

async fn failed_exec_never_started(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    optional(guest.exec("e1", &["/no/such/program"]).await)?;
    refused(guest.start("e1").await)?;
    guest.delete("e1").await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    guest.shut_down().await?;
    let topics = lab.topics(&guest.id);
    ensure!(!topics.iter().any(|topic| topic == "exec-started e1"), "published {topics:?}");
    ensure!(topics.ends_with(&["exit".to_owned(), "delete".to_owned()]), "published {topics:?}");
    Ok(())
}

async fn killed_once(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    for _ in 0..5 {
        // All but the first may find it ended.
        let _ = guest.kill("", 9).await;
        let _ = guest.kill_all(9).await;
    }
    guest.expect_exit("", 137).await?;
    guest.delete("").await?;
    expect_in_the_end(lab, &guest, &["create", "start", "exit", "delete"]).await
}

async fn short_lives_in_order(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let mut expected: Vec<String> = ["create", "start"].map(str::to_owned).to_vec();
    for turn in 0..20 {
        let exec = format!("e{turn}");
        optional(guest.started(&exec, &["true"]).await)?;
        guest.expect_exit(&exec, 0).await?;
        expected
            .extend(["exec-added", "exec-started", "exit"].map(|topic| format!("{topic} {exec}")));
    }
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    expected.extend(["exit", "delete"].map(str::to_owned));
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect_in_the_end(lab, &guest, &expected).await
}
