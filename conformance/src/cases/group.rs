//! Containers that share a shim, as the ones of a pod do.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use shim_client::Reason;
use shim_protos::task::{DeleteRequest, KillRequest, StateRequest};
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect::{code, optional, skip};
use crate::lab::{Ask, Guest, Lab, SOON, eventually, procs};

group! { "group":
    Should label_makes_a_group: "Containers of one io.containerd.runc.v2.group SHOULD share a shim, and get equal answers.";
    Should sandbox_makes_a_group: "Containers of one io.kubernetes.cri.sandbox-id SHOULD share a shim.";
    Should label_precedes_sandbox: "The label of runc's group SHOULD count more than the sandbox's id.";
    Must groups_are_apart: "Containers of different groups MUST NOT meet in one shim.";
    Must end_disturbs_nobody: "The end and the deletion of one container MUST NOT disturb another of its group.";
    Must shutdown_waits_for_all: "Shutdown MUST NOT end a shim that has a container left.";
    Must events_name_the_right_one: "Events MUST name the container of the group that they are about.";
    Must exec_ids_are_per_container: "The same exec id MUST be usable in each container of a group.";
    Must execs_of_others_are_unknown: "An exec of one container MUST be NOT_FOUND when asked for with another's id.";
    Must calls_cross_connections: "A container of a group MUST be reachable through every connection to the shim.";
    Should group_without_a_namesake: "The socket of a group SHOULD go with the shim, though no container has the group's name.";
    Must start_survives_the_end: "A start that meets the end of its group's shim MUST be answered with a shim that serves.";
    Must failed_create_harms_nobody: "A failed Create MUST NOT disturb another container of the group.";
}

const RUNC: &str = "io.containerd.runc.v2.group";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

fn labelled(labels: &[(&str, &str)]) -> Ask {
    let labels: Vec<(String, String)> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Ask::new(&["sleep", "1000"]).spec_with(move |spec| {
        labels.iter().fold(spec, |spec, (key, value)| spec.annotation(key, value))
    })
}

/// Two running containers in one shim; a shim that does not group has none. As in a pod, the first
/// one has the group's name.
async fn two(lab: &Lab) -> Result<(Rc<Guest>, Rc<Guest>)> {
    let one = lab.run(labelled(&[(RUNC, "g")]).id("g")).await?;
    let other = lab.run(labelled(&[(RUNC, "g")])).await?;
    if one.shim.answer != other.shim.answer {
        return skip("the shim does not group containers");
    }
    Ok((one, other))
}

async fn expect_together(one: &Guest, other: &Guest) -> Result<()> {
    let (first, second) = (&one.shim.answer, &other.shim.answer);
    ensure!(first == second, "answers {first:?} and {second:?}");
    let (first, second) = (one.shim_pid().await?, other.shim_pid().await?);
    ensure!(first == second, "shims are processes {first} and {second}");
    Ok(())
}

async fn label_makes_a_group(lab: &Lab) -> Result<()> {
    let one = lab.prepare(labelled(&[(RUNC, "g")]).id("g")).await?;
    let other = lab.prepare(labelled(&[(RUNC, "g")])).await?;
    expect_together(&one, &other).await
}

async fn sandbox_makes_a_group(lab: &Lab) -> Result<()> {
    // The sandbox's own container comes first, and has the sandbox's id.
    let first = lab.prepare(labelled(&[(SANDBOX, "pod")]).id("pod")).await?;
    let second = lab.prepare(labelled(&[(SANDBOX, "pod")])).await?;
    expect_together(&first, &second).await
}

async fn label_precedes_sandbox(lab: &Lab) -> Result<()> {
    let labelled_only = lab.prepare(labelled(&[(RUNC, "g")]).id("g")).await?;
    let both = lab.prepare(labelled(&[(SANDBOX, "pod"), (RUNC, "g")])).await?;
    expect_together(&labelled_only, &both).await?;
    let sandboxed = lab.prepare(labelled(&[(SANDBOX, "pod")]).id("pod")).await?;
    let (pid, other) = (sandboxed.shim_pid().await?, both.shim_pid().await?);
    ensure!(pid != other, "the sandbox's container is in the shim of the group");
    Ok(())
}

async fn groups_are_apart(lab: &Lab) -> Result<()> {
    let of = |group: &str| labelled(&[(RUNC, group)]).id(group);
    let asks = [of("g"), of("h"), labelled(&[])];
    let mut pids = Vec::new();
    for ask in asks {
        pids.push(lab.prepare(ask).await?.shim_pid().await?);
    }
    pids.sort_unstable();
    pids.dedup();
    ensure!(pids.len() == 3, "{} shims for two groups and a container of none", pids.len());
    Ok(())
}

async fn expect_alive(guest: &Guest, pid: u32) -> Result<()> {
    guest.expect_status("", Status::RUNNING).await?;
    ensure!(procs::runs(pid), "process {pid} of the other container has ended");
    if guest.execute("probe").await? {
        guest.delete("probe").await?;
    }
    Ok(())
}

async fn end_disturbs_nobody(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    let (pid, mounts) = (other.pid().await?, other.mounts()?);
    one.kill_and_wait().await?;
    expect_alive(&other, pid).await?;
    one.delete("").await?;
    expect_alive(&other, pid).await?;
    let now = other.mounts()?;
    ensure!(now == mounts, "mounts of the other were {mounts:?}, and are {now:?}");
    code(one.state("").await, Code::NOT_FOUND)?;
    other.kill_and_wait().await
}

async fn shutdown_waits_for_all(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    let pid = other.pid().await?;
    one.kill_and_wait().await?;
    one.delete("").await?;
    one.shutdown().await?;
    expect_alive(&other, pid).await?;
    other.kill_and_wait().await?;
    // One that has ended, and is not deleted, counts as well.
    one.shutdown().await?;
    other.expect_status("", Status::STOPPED).await?;
    other.delete("").await?;
    other.shut_down().await
}

async fn events_name_the_right_one(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    let pids = [one.pid().await?, other.pid().await?];
    optional(one.started("e1", &["true"]).await)?;
    one.wait("e1").await?;
    one.kill_and_wait().await?;
    one.delete("").await?;
    other.kill_and_wait().await?;
    other.delete("").await?;
    let of_one =
        ["create", "start", "exec-added e1", "exec-started e1", "exit e1", "exit", "delete"];
    lab.expect_topics(&one.id, &of_one).await?;
    lab.expect_topics(&other.id, &["create", "start", "exit", "delete"]).await?;
    let starts: Vec<_> = lab
        .events()
        .iter()
        .filter(|event| event.topic == "/tasks/start")
        .map(|event| event.to_json()["event"]["pid"].clone())
        .collect();
    ensure!(starts == pids, "start says pids {starts:?}, expected {pids:?}");
    Ok(())
}

async fn exec_ids_are_per_container(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    optional(one.started("e1", &["sh", "-c", "exit 1"]).await)?;
    other.started("e1", &["sh", "-c", "exit 2"]).await?;
    one.expect_exit("e1", 1).await?;
    other.expect_exit("e1", 2).await?;
    one.delete("e1").await?;
    other.expect_status("e1", Status::STOPPED).await?;
    one.kill_and_wait().await?;
    other.kill_and_wait().await
}

async fn execs_of_others_are_unknown(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    optional(one.started("e1", &["sleep", "1000"]).await)?;
    code(other.state("e1").await, Code::NOT_FOUND)?;
    code(other.kill("e1", 9).await, Code::NOT_FOUND)?;
    code(other.delete("e1").await, Code::NOT_FOUND)?;
    one.expect_status("e1", Status::RUNNING).await?;
    one.kill_and_wait().await?;
    other.kill_and_wait().await
}

async fn calls_cross_connections(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    let id = || other.id.clone();
    let task = &one.shim.task;
    let state = task.state(&StateRequest { id: id(), ..Default::default() }).await?;
    ensure!(state.id == other.id, "State says id {:?}, expected {:?}", state.id, other.id);
    ensure!(state.pid == other.pid().await?, "State says pid {} of the other", state.pid);
    task.kill(&KillRequest { id: id(), signal: 9, ..Default::default() }).await?;
    other.expect_exit("", 137).await?;
    task.delete(&DeleteRequest { id: id(), ..Default::default() }).await?;
    code(other.state("").await, Code::NOT_FOUND)?;
    one.expect_status("", Status::RUNNING).await?;
    one.kill_and_wait().await
}

async fn group_without_a_namesake(lab: &Lab) -> Result<()> {
    for _ in 0..2 {
        let guest = lab.run(labelled(&[(RUNC, "nobody")])).await?;
        guest.kill_and_wait().await?;
        guest.delete("").await?;
    }
    // The socket is the lab's to find.
    Ok(())
}

async fn start_survives_the_end(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    other.kill_and_wait().await?;
    other.delete("").await?;
    let mut last = one;
    for _ in 0..8 {
        last.kill_and_wait().await?;
        last.delete("").await?;
        let next = lab.run(labelled(&[(RUNC, "g")]));
        // Who of the two is first is left to chance; either is right.
        let (ended, next) = tokio::join!(last.shutdown(), next);
        match ended {
            Err(error) if error.reason != Reason::Gone => return Err(error.into()),
            _ => {}
        }
        last = next.context("the container that comes while the shim ends")?;
    }
    last.kill_and_wait().await?;
    last.delete("").await?;
    last.shut_down().await
}

async fn failed_create_harms_nobody(lab: &Lab) -> Result<()> {
    let (one, other) = two(lab).await?;
    let pid = one.pid().await?;
    other.kill_and_wait().await?;
    other.delete("").await?;
    std::fs::remove_file(other.shim.bundle().config())?;
    crate::expect::refused(other.create().await)?;
    let gone = || other.mounts().is_ok_and(|mounts| mounts.is_empty());
    ensure!(eventually(SOON, gone).await, "the failed Create leaves {:?}", other.mounts());
    expect_alive(&one, pid).await?;
    one.kill_and_wait().await
}
