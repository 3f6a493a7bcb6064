//! Out of memory: containerd hears of it before it hears of the end.

use anyhow::{Result, ensure};

use crate::case::group;
use crate::lab::signals::{KILL, status_of};
use crate::lab::{Ask, Lab, SLEEP};

group! { "oom":
    Must init: "A container over its memory limit MUST be told as oom, ahead of its exit with 137.";
    Must exec: "An exec over the container's memory limit MUST be told as oom, ahead of its exit with 137.";
    Must only_then: "A container that is killed otherwise MUST NOT be told as oom.";
}

/// Keeps its input until a line ends, which never does.
const GREEDY: [&str; 2] = ["tail", "/dev/zero"];

fn limited(args: &[&str]) -> Ask {
    Ask::new(args).spec_with(|spec| spec.memory(16 << 20))
}

fn check_order(topics: &[String], exit: &str) -> Result<()> {
    let oom = topics.iter().position(|topic| topic == "oom");
    let end = topics.iter().position(|topic| topic == exit);
    ensure!(oom.is_some() && oom < end, "expected oom ahead of {exit:?}, got {topics:?}");
    Ok(())
}

async fn init(lab: &Lab) -> Result<()> {
    let guest = lab.run(limited(&GREEDY)).await?;
    guest.expect_exit("", status_of(KILL)).await?;
    lab.expect_topic(&guest.id, "exit").await?;
    lab.expect_topic(&guest.id, "oom").await?;
    check_order(&lab.topics(&guest.id), "exit")
}

async fn exec(lab: &Lab) -> Result<()> {
    let guest = lab.run(limited(&SLEEP)).await?;
    guest.started("e", &GREEDY).await?;
    guest.expect_exit("e", status_of(KILL)).await?;
    lab.expect_topic(&guest.id, "exit e").await?;
    lab.expect_topic(&guest.id, "oom").await?;
    check_order(&lab.topics(&guest.id), "exit e")?;
    guest.delete("e").await?;
    guest.kill_and_wait().await
}

async fn only_then(lab: &Lab) -> Result<()> {
    let guest = lab.run(limited(&SLEEP)).await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}
