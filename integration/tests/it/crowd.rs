//! Many at once: execs, and containers that outlive containerd.

use anyhow::{Context, Result, ensure};
use integration::client::{Client, Streams, Target};
use integration::engine::Engine;
use integration::lane::{Draft, Lane};
use integration::procs;
use integration::wait::{self, SOON};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

integration::tests![
    two_hundred_execs_at_once_end_with_their_own_status,
    fifty_containers_outlive_a_crash_and_keep_their_exit_codes,
];

const EXECS: u32 = 200;
const CONTAINERS: usize = 50;
const KILL: u32 = 9;

fn process(script: &str) -> Value {
    let args = ["sh", "-c", script];
    json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } })
}

fn two_hundred_execs_at_once_end_with_their_own_status(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        client.create_container(&draft.name, &draft.spec, None).await?;
        let init = Target::init(&draft.name);
        client.create(&draft.name, &[], &Streams::default()).await?;
        client.start(init).await?;
        let mut execs = JoinSet::new();
        for number in 0..EXECS {
            // As from so many clients: a connection alone would take it for a flood.
            let (client, name) = (client.another().await?, draft.name.clone());
            execs.spawn(async move { exec(&client, &name, number).await });
        }
        while let Some(done) = execs.join_next().await {
            done??;
        }
        client.kill(init, KILL).await?;
        assert_eq!(client.wait(init).await?, 128 + KILL);
        client.delete(init).await?;
        client.delete_container(&draft.name).await
    })
}

/// One exec's whole life; its status tells it from the others.
async fn exec(client: &Client, container: &str, number: u32) -> Result<()> {
    let id = format!("e{number}");
    let target = Target::exec(container, &id);
    let status = number % 250;
    let process = process(&format!("exit {status}"));
    client.exec(target, &process, &Streams::default()).await.context("exec")?;
    client.start(target).await.context("start")?;
    let ended = client.wait(target).await.context("wait")?;
    ensure!(ended == status, "exec {number} ended with {ended}");
    let deleted = client.delete(target).await.context("delete")?;
    ensure!(deleted.exit_status == status, "exec {number}: {}", deleted.exit_status);
    Ok(())
}

fn fifty_containers_outlive_a_crash_and_keep_their_exit_codes(lane: &Lane) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let drafts = (0..CONTAINERS)
        .map(|number| {
            let script = format!("trap 'exit {number}' USR1; while :; do sleep 0.1; done");
            lane.draft(&["sh", "-c", &script])
        })
        .collect::<Result<Vec<Draft>>>()?;
    let pids = lane.talk_to(&daemon, async |client| start_all(client, &drafts).await)?;

    daemon.kill();
    // Half of them end while nobody listens, the others afterwards.
    let (early, late) = pids.split_at(CONTAINERS / 2);
    end_all(early)?;
    daemon.start_again()?;
    for pid in late {
        ensure!(procs::runs(*pid), "process {pid} went with containerd");
    }
    end_all(late)?;

    let engine = lane.engine();
    lane.talk_to(&daemon, async |client| {
        for (number, draft) in drafts.iter().enumerate() {
            let code = u32::try_from(number)?;
            let init = Target::init(&draft.name);
            // From 1.7 on containerd takes a shim without a process for a leftover when it
            // starts, and deletes the task.
            let may_be_gone = number < CONTAINERS / 2 && engine != Engine::V16;
            match client.wait(init).await {
                Ok(status) => {
                    ensure!(status == code, "{} ended with {status}, not {code}", draft.name);
                    ensure!(client.delete(init).await?.exit_status == code, "deleted otherwise");
                }
                Err(error) => ensure!(may_be_gone, "{}: {error:#}", draft.name),
            }
            client.delete_container(&draft.name).await?;
        }
        Ok(())
    })
}

async fn start_all(client: Client, drafts: &[Draft]) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for draft in drafts {
        client.create_container(&draft.name, &draft.spec, None).await?;
        client.create(&draft.name, &[], &Streams::default()).await?;
        pids.push(i32::try_from(client.start(Target::init(&draft.name)).await?)?);
    }
    Ok(pids)
}

/// Has processes exit in their own way, and waits until they have.
fn end_all(pids: &[i32]) -> Result<()> {
    for pid in pids {
        // The shell has to have set its trap: it waits for its first child then.
        wait::until("a shell at work", SOON, || {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            ensure!(!children.is_empty(), "no child yet");
            Ok(())
        })?;
        procs::signal(*pid, Signal::SIGUSR1)?;
    }
    wait::until("their ends", SOON, || {
        let left = pids.iter().filter(|pid| procs::runs(**pid)).count();
        ensure!(left == 0, "{left} still run");
        Ok(())
    })
}
