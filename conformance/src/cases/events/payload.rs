//! What events say, and how they are wrapped.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shim_client::{Event, rfc3339};
use shim_protos::Timestamp;
use shim_protos::protobuf::MessageField;

use crate::case::group;
use crate::expect::optional;
use crate::lab::{Ask, Guest, Io, Lab};

group! { "events":
    Must namespace_is_told: "The envelope of every event MUST name the namespace of the container.";
    Should metadata_names_the_namespace: "The call with an event SHOULD name the namespace in its metadata, too.";
    Must timestamp_is_now: "The envelope of every event MUST tell when it happened.";
    Should timestamps_are_in_order: "Events SHOULD NOT be older than the ones published before them.";
    Must type_is_bare: "The payload MUST be named by its message alone, such as containerd.events.TaskExit.";
    Must create_tells_the_container: "create MUST tell bundle, rootfs, streams and pid.";
    Must start_tells_the_pid: "start MUST tell the pid that Start answered.";
    Must exit_tells_the_end: "exit MUST tell the process, its pid, its status and the time, the same as Wait.";
    Must exec_tells_its_pid: "exec-started and exit of an exec MUST tell the exec's id and the pid that Start answered.";
    Must delete_tells_the_end: "delete MUST tell what Delete answered.";
    Must killed_tells_the_signal: "exit of a container that was killed MUST tell status 137.";
}

/// A whole life, with an exec in it if the shim has that.
async fn life(lab: &Lab) -> Result<Vec<Event>> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let has_exec = guest.execute("e1").await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    lab.expect_topic(&guest.id, "delete").await?;
    let events = lab.events();
    let expected = if has_exec { 7 } else { 4 };
    ensure!(events.len() >= expected, "{} events of a life, expected {expected}", events.len());
    Ok(events)
}

async fn namespace_is_told(lab: &Lab) -> Result<()> {
    let expected = lab.daemon().namespace;
    for event in life(lab).await? {
        let told = &event.namespace;
        ensure!(*told == expected, "{} says namespace {told:?}, expected {expected}", event.topic);
    }
    Ok(())
}

async fn metadata_names_the_namespace(lab: &Lab) -> Result<()> {
    let expected = [lab.daemon().namespace];
    for event in life(lab).await? {
        let told = &event.metadata_namespace;
        ensure!(*told == expected, "{} comes with {told:?}, expected {expected:?}", event.topic);
    }
    Ok(())
}

async fn timestamp_is_now(lab: &Lab) -> Result<()> {
    let before = seconds_since_1970()?;
    let events = life(lab).await?;
    let after = seconds_since_1970()?;
    for Event { topic, timestamp, .. } in events {
        let told = timestamp.seconds;
        // A second either way: clocks that are read cheaply are a tick behind.
        ensure!(
            (before - 1..=after + 1).contains(&told),
            "{topic} says it happened at {}, and that was not in this case",
            rfc3339(told, timestamp.nanos)
        );
    }
    Ok(())
}

fn seconds_since_1970() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

async fn timestamps_are_in_order(lab: &Lab) -> Result<()> {
    let events = life(lab).await?;
    for pair in events.windows(2) {
        let at = |event: &Event| (event.timestamp.seconds, event.timestamp.nanos);
        ensure!(
            at(&pair[0]) <= at(&pair[1]),
            "{} of {:?} comes before {} of {:?}",
            pair[0].topic,
            at(&pair[0]),
            pair[1].topic,
            at(&pair[1])
        );
    }
    Ok(())
}

async fn type_is_bare(lab: &Lab) -> Result<()> {
    for event in life(lab).await? {
        let name = match event.topic.as_str() {
            "/tasks/create" => "TaskCreate",
            "/tasks/start" => "TaskStart",
            "/tasks/exec-added" => "TaskExecAdded",
            "/tasks/exec-started" => "TaskExecStarted",
            "/tasks/exit" => "TaskExit",
            "/tasks/delete" => "TaskDelete",
            other => anyhow::bail!("an event of the topic {other:?}"),
        };
        let (told, expected) = (event.payload.type_url, format!("containerd.events.{name}"));
        ensure!(told == expected, "{} carries {told:?}, expected {expected:?}", event.topic);
    }
    Ok(())
}

async fn create_tells_the_container(lab: &Lab) -> Result<()> {
    let guest = lab.prepare(Ask::new(&["true"]).io(Io::Pipes)).await?;
    let pid = guest.create().await?.pid;
    let told = payload(lab, &guest, "create").await?;
    let [stdin, stdout, stderr] = guest.uris();
    let rootfs: Vec<Value> = lab
        .rootfs(&guest.id)?
        .into_iter()
        .map(|mount| {
            json!({ "type": mount.type_, "source": mount.source, "target": mount.target,
            "options": mount.options })
        })
        .collect();
    let expected = json!({
        "container_id": guest.id,
        "bundle": guest.shim.bundle().path(),
        "rootfs": rootfs,
        "io": { "stdin": stdin, "stdout": stdout, "stderr": stderr, "terminal": false },
        "checkpoint": "",
        "pid": pid,
    });
    ensure!(told == expected, "create says {told}, expected {expected}");
    guest.start("").await?;
    guest.expect_exit("", 0).await
}

/// What the one event of that topic says, which has to come soon.
async fn payload(lab: &Lab, guest: &Guest, topic: &str) -> Result<Value> {
    lab.expect_topic(&guest.id, topic).await?;
    let (topic, exec) = topic.split_once(' ').unwrap_or((topic, ""));
    let is = |event: &Value| {
        event["topic"] == format!("/tasks/{topic}")
            && (exec.is_empty()
                || event["event"]["exec_id"] == exec
                || event["event"]["id"] == exec)
    };
    let event = lab.events().iter().map(Event::to_json).find(is);
    Ok(event.context("an event that was there")?["event"].clone())
}

async fn start_tells_the_pid(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["sleep", "1000"]).await?;
    let pid = guest.start("").await?.pid;
    let told = payload(lab, &guest, "start").await?;
    let expected = json!({ "container_id": guest.id, "pid": pid });
    ensure!(told == expected, "start says {told}, expected {expected}");
    guest.kill_and_wait().await
}

async fn exit_tells_the_end(lab: &Lab) -> Result<()> {
    let guest = lab.created(&["sh", "-c", "exit 9"]).await?;
    let pid = guest.start("").await?.pid;
    let ended = guest.wait("").await?;
    let told = payload(lab, &guest, "exit").await?;
    let expected = end_of(&guest, pid, 9, &ended.exited_at);
    ensure!(told == expected, "exit says {told}, expected {expected}");
    Ok(())
}

fn end_of(guest: &Guest, pid: u32, status: u32, at: &MessageField<Timestamp>) -> Value {
    json!({
        "container_id": guest.id,
        "id": guest.id,
        "pid": pid,
        "exit_status": status,
        "exited_at": at.as_ref().map(|at| rfc3339(at.seconds, at.nanos)),
    })
}

async fn exec_tells_its_pid(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    let pid = optional(guest.started("e1", &["sh", "-c", "exit 5"]).await)?;
    let ended = guest.wait("e1").await?;
    let told = payload(lab, &guest, "exec-started e1").await?;
    let expected = json!({ "container_id": guest.id, "exec_id": "e1", "pid": pid });
    ensure!(told == expected, "exec-started says {told}, expected {expected}");
    let told = payload(lab, &guest, "exit e1").await?;
    let mut expected = end_of(&guest, pid, 5, &ended.exited_at);
    expected["id"] = json!("e1");
    ensure!(told == expected, "exit says {told}, expected {expected}");
    guest.kill_and_wait().await
}

async fn delete_tells_the_end(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sh", "-c", "exit 9"]).await?;
    guest.wait("").await?;
    let deleted = guest.delete("").await?;
    let mut told = payload(lab, &guest, "delete").await?;
    // Of the init process, the id is the container's or none.
    ensure!(
        told["id"] == "" || told["id"] == guest.id.as_str(),
        "delete says id {} of the init process",
        told["id"]
    );
    told["id"] = json!(guest.id);
    let expected = end_of(&guest, deleted.pid, 9, &deleted.exited_at);
    ensure!(told == expected, "delete says {told}, expected {expected}");
    Ok(())
}

async fn killed_tells_the_signal(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["sleep", "1000"]).await?;
    guest.kill_and_wait().await?;
    let status = payload(lab, &guest, "exit").await?["exit_status"].clone();
    ensure!(status == 137, "exit says status {status}, expected 137");
    Ok(())
}
