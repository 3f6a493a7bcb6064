//! What programs see that talk to containerd: events, error codes, waiting, limits.

use anyhow::{Context, Result};
use integration::cgroups::{self, Value};
use integration::client::messages::Status;
use integration::client::{Client, Streams, Target, refusal};
use integration::engine::Engine;
use integration::events::{Event, Events};
use integration::grpc::Code;
use integration::lane::{Draft, Lane};
use serde_json::json;
use shim_protos::protobuf::Message;
use shim_protos::{cgroups_v1, cgroups_v2, runc};

integration::tests![
    events_come_in_the_order_of_what_happened,
    running_execs_exit_before_their_container,
    an_exit_comes_after_the_start_however_short_the_life,
    events_tell_of_pause_and_resume,
    an_event_tells_of_memory_that_ran_out,
    every_waiter_gets_the_same_status,
    a_process_keeps_its_pid_after_its_end,
    what_is_not_there_is_not_found,
    what_is_there_already_is_not_made_again,
    what_cannot_be_done_now_is_refused,
    an_exec_is_not_started_twice,
    a_failed_start_of_an_exec_leaves_the_rest_alone,
    a_failed_create_leaves_no_task,
    a_task_that_failed_to_start_is_stopped_at_once,
    pids_name_the_exec_that_they_belong_to,
    metrics_have_the_type_of_the_machines_cgroups,
    limits_change_while_the_task_runs,
];

const KILL: u32 = 9;

/// Makes container and task.
async fn create(client: &Client, draft: &Draft) -> Result<u32> {
    client.create_container(&draft.name, &draft.spec, None).await?;
    client.create(&draft.name, &[], &Streams::default()).await
}

async fn start(client: &Client, draft: &Draft) -> Result<u32> {
    create(client, draft).await?;
    client.start(Target::init(&draft.name)).await
}

/// Kills, waits, deletes.
async fn remove(client: &Client, draft: &Draft) -> Result<()> {
    let init = Target::init(&draft.name);
    client.kill(init, KILL).await?;
    assert_eq!(client.wait(init).await?, 128 + KILL);
    client.delete(init).await?;
    client.delete_container(&draft.name).await
}

fn process(args: &[&str]) -> serde_json::Value {
    json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } })
}

/// All events of a task that was deleted.
async fn to_the_end(lane: &Lane, events: &mut Events) -> Result<Vec<Event>> {
    // containerd 2's own shim may end before it has sent its last event.
    let last = if lane.shim().is_go() && lane.engine() == Engine::V2 { "exit" } else { "delete" };
    Ok(events.until(last).await?.to_vec())
}

/// One line an event, for a comparison that shows where an order went wrong.
fn lines(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event.kind.as_str() {
        "exit" | "delete" => format!("{} {:?} {}", event.kind, event.exec, event.status),
        _ => format!("{} {:?}", event.kind, event.exec),
    };
    events.iter().map(line).collect()
}

fn events_come_in_the_order_of_what_happened(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let (init, exec) = (Target::init(&draft.name), Target::exec(&draft.name, "e1"));
        let mut events = client.events(&draft.name).await?;
        let pid = create(&client, &draft).await?;
        assert_eq!(client.start(init).await?, pid);
        client.exec(exec, &process(&["sh", "-c", "exit 4"]), &Streams::default()).await?;
        let exec_pid = client.start(exec).await?;
        assert_eq!(client.wait(exec).await?, 4);
        assert_eq!(client.delete(exec).await?.exit_status, 4);
        client.kill(init, KILL).await?;
        assert_eq!(client.wait(init).await?, 137);
        assert_eq!(client.delete(init).await?.exit_status, 137);
        client.delete_container(&draft.name).await?;

        let mut seen = to_the_end(lane, &mut events).await?;
        // Whether the deletion of an exec is told is the shim's choice.
        seen.retain(|event| (event.kind.as_str(), event.exec.as_str()) != ("delete", "e1"));
        let expect = [
            "create \"\"",
            "start \"\"",
            "exec-added \"e1\"",
            "exec-started \"e1\"",
            "exit \"e1\" 4",
            "exit \"\" 137",
            "delete \"\" 137",
        ];
        assert_eq!(lines(&seen), expect[..seen.len()]);
        let pids: Vec<_> = seen.iter().map(|event| event.pid).collect();
        assert_eq!(pids, [pid, pid, 0, exec_pid, exec_pid, pid, pid][..seen.len()]);
        Ok(())
    })
}

fn running_execs_exit_before_their_container(lane: &Lane) -> Result<()> {
    if lane.engine() != Engine::V2 {
        lane.go_cannot("it keeps this order from 2.0 on")?;
    }
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let mut events = client.events(&draft.name).await?;
        start(&client, &draft).await?;
        for id in ["e1", "e2", "e3"] {
            let exec = Target::exec(&draft.name, id);
            client.exec(exec, &process(&["sleep", "1000"]), &Streams::default()).await?;
            client.start(exec).await?;
        }
        remove(&client, &draft).await?;
        let seen = to_the_end(lane, &mut events).await?;
        let mut exits = seen.iter().filter(|event| event.kind == "exit").collect::<Vec<_>>();
        assert_eq!(exits.pop().map(|last| last.exec.as_str()), Some(""));
        assert_eq!(exits.len(), 3, "{exits:?}");
        assert!(exits.iter().all(|exit| exit.status == 137), "{exits:?}");
        Ok(())
    })
}

fn an_exit_comes_after_the_start_however_short_the_life(lane: &Lane) -> Result<()> {
    lane.talk(async |client| {
        for _ in 0..5 {
            let draft = lane.draft(&["true"])?;
            let init = Target::init(&draft.name);
            let mut events = client.events(&draft.name).await?;
            start(&client, &draft).await?;
            assert_eq!(client.wait(init).await?, 0);
            client.delete(init).await?;
            client.delete_container(&draft.name).await?;
            let seen = lines(&to_the_end(lane, &mut events).await?);
            let expect = ["create \"\"", "start \"\"", "exit \"\" 0", "delete \"\" 0"];
            assert_eq!(seen, expect[..seen.len()]);
        }
        Ok(())
    })
}

fn events_tell_of_pause_and_resume(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let init = Target::init(&draft.name);
        let mut events = client.events(&draft.name).await?;
        start(&client, &draft).await?;
        client.pause(&draft.name).await?;
        assert_eq!(client.status(init).await?, Status::PAUSED.into());
        client.resume(&draft.name).await?;
        assert_eq!(client.status(init).await?, Status::RUNNING.into());
        let seen = lines(events.until("resumed").await?);
        assert_eq!(seen[2..], ["paused \"\"", "resumed \"\""]);
        remove(&client, &draft).await
    })
}

fn an_event_tells_of_memory_that_ran_out(lane: &Lane) -> Result<()> {
    let mut draft = lane.draft(&["tail", "/dev/zero"])?;
    draft.spec = draft.spec.set("/linux/resources/memory", json!({ "limit": 16 << 20 }));
    lane.talk(async |client| {
        let init = Target::init(&draft.name);
        let mut events = client.events(&draft.name).await?;
        start(&client, &draft).await?;
        assert_eq!(client.wait(init).await?, 137);
        // It may come before the exit or after it, but not after the deletion.
        events.until("oom").await?;
        client.delete(init).await?;
        client.delete_container(&draft.name).await
    })
}

fn every_waiter_gets_the_same_status(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "trap 'exit 6' TERM; while :; do sleep 0.02; done"])?;
    lane.talk(async |client| {
        let init = Target::init(&draft.name);
        create(&client, &draft).await?;
        let waiters: Vec<_> = (0..10)
            .map(|_| {
                let (client, name) = (client.clone(), draft.name.clone());
                tokio::spawn(async move { client.wait(Target::init(&name)).await })
            })
            .collect();
        client.start(init).await?;
        // Before the trap is set TERM has no effect on the first process of a PID namespace.
        while client.status(init).await? != Status::STOPPED.into() {
            let _ = client.kill(init, 15).await;
        }
        for waiter in waiters {
            assert_eq!(waiter.await??, 6);
        }
        assert_eq!(client.wait(init).await?, 6);
        client.delete(init).await?;
        client.delete_container(&draft.name).await
    })
}

fn a_process_keeps_its_pid_after_its_end(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["true"])?;
    lane.talk(async |client| {
        let init = Target::init(&draft.name);
        let pid = start(&client, &draft).await?;
        client.wait(init).await?;
        let process = client.get(init).await?;
        assert_eq!((process.pid, process.status), (pid, Status::STOPPED.into()));
        assert!(process.exited_at.seconds > 0);
        assert_eq!(client.delete(init).await?.pid, pid);
        client.delete_container(&draft.name).await
    })
}

fn what_is_not_there_is_not_found(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        start(&client, &draft).await?;
        let nobody = Target::exec(&draft.name, "nobody");
        assert_eq!(refusal(client.kill(nobody, KILL).await)?, Code::NotFound);
        assert_eq!(refusal(client.start(nobody).await)?, Code::NotFound);
        assert_eq!(refusal(client.wait(nobody).await)?, Code::NotFound);
        assert_eq!(refusal(client.delete(nobody).await)?, Code::NotFound);
        // An ended process cannot be killed, and says so.
        let init = Target::init(&draft.name);
        client.kill(init, KILL).await?;
        client.wait(init).await?;
        assert_eq!(refusal(client.kill(init, KILL).await)?, Code::NotFound);
        client.delete(init).await?;
        assert_eq!(refusal(client.delete(init).await)?, Code::NotFound);
        client.delete_container(&draft.name).await
    })
}

fn what_is_there_already_is_not_made_again(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        start(&client, &draft).await?;
        let again = client.create(&draft.name, &[], &Streams::default()).await;
        assert_eq!(refusal(again)?, Code::AlreadyExists);
        let exec = Target::exec(&draft.name, "e1");
        let spec = process(&["true"]);
        client.exec(exec, &spec, &Streams::default()).await?;
        let again = client.exec(exec, &spec, &Streams::default()).await;
        assert_eq!(refusal(again)?, Code::AlreadyExists);
        client.delete(exec).await?;
        assert_eq!(client.status(Target::init(&draft.name)).await?, Status::RUNNING.into());
        remove(&client, &draft).await
    })
}

fn what_cannot_be_done_now_is_refused(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let (init, exec) = (Target::init(&draft.name), Target::exec(&draft.name, "e1"));
        create(&client, &draft).await?;
        assert_eq!(client.status(init).await?, Status::CREATED.into());
        refusal(client.pause(&draft.name).await)?;
        client.start(init).await?;
        refusal(client.start(init).await)?;
        refusal(client.delete(init).await)?;
        refusal(client.resume(&draft.name).await)?;
        client.exec(exec, &process(&["sleep", "1000"]), &Streams::default()).await?;
        assert_eq!(refusal(client.kill(exec, KILL).await)?, Code::FailedPrecondition);
        client.start(exec).await?;
        refusal(client.delete(exec).await)?;
        client.pause(&draft.name).await?;
        refusal(client.pause(&draft.name).await)?;
        client.resume(&draft.name).await?;
        // Nothing of that did any harm.
        assert_eq!(client.status(init).await?, Status::RUNNING.into());
        assert_eq!(client.status(exec).await?, Status::RUNNING.into());
        remove(&client, &draft).await
    })
}

fn an_exec_is_not_started_twice(lane: &Lane) -> Result<()> {
    lane.go_cannot("its process dies of a second start once the container ends")?;
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let mut events = client.events(&draft.name).await?;
        let exec = Target::exec(&draft.name, "e1");
        start(&client, &draft).await?;
        client.exec(exec, &process(&["sleep", "1000"]), &Streams::default()).await?;
        client.start(exec).await?;
        refusal(client.start(exec).await)?;
        client.kill(exec, KILL).await?;
        assert_eq!(client.wait(exec).await?, 137);
        refusal(client.start(exec).await)?;
        client.delete(exec).await?;
        remove(&client, &draft).await?;
        let seen = to_the_end(lane, &mut events).await?;
        assert_eq!(seen.iter().filter(|event| event.kind == "exit").count(), 2);
        Ok(())
    })
}

fn a_failed_start_of_an_exec_leaves_the_rest_alone(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let (init, exec) = (Target::init(&draft.name), Target::exec(&draft.name, "e1"));
        start(&client, &draft).await?;
        client.exec(exec, &process(&["/no/such/program"]), &Streams::default()).await?;
        let error = client.start(exec).await.err().context("it was started")?;
        assert!(format!("{error:#}").contains("/no/such/program"), "{error:#}");
        client.delete(exec).await?;
        // The name is free again, and the container as it was.
        client.exec(exec, &process(&["true"]), &Streams::default()).await?;
        client.start(exec).await?;
        assert_eq!(client.wait(exec).await?, 0);
        client.delete(exec).await?;
        assert_eq!(client.status(init).await?, Status::RUNNING.into());
        remove(&client, &draft).await
    })
}

fn a_failed_create_leaves_no_task(lane: &Lane) -> Result<()> {
    let mut draft = lane.draft(&["true"])?;
    draft.spec = draft.spec.push(
        "/mounts",
        json!({ "destination": "/mnt", "type": "bind", "source": "/no/such/folder",
                "options": ["rbind"] }),
    );
    lane.talk(async |client| {
        let error = create(&client, &draft).await.err().context("it was made")?;
        assert!(format!("{error:#}").contains("/no/such/folder"), "{error:#}");
        let gone = client.get(Target::init(&draft.name)).await;
        assert_eq!(refusal(gone)?, Code::NotFound);
        client.delete_container(&draft.name).await
    })
}

fn a_task_that_failed_to_start_is_stopped_at_once(lane: &Lane) -> Result<()> {
    for _ in 0..5 {
        let mut draft = lane.draft(&["true"])?;
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 9"] }]);
        draft.spec = draft.spec.set("/hooks", json!({})).set("/hooks/startContainer", hook);
        lane.talk(async |client| {
            let init = Target::init(&draft.name);
            create(&client, &draft).await?;
            match client.start(init).await {
                // runc has started it by then, and its first process fails.
                Ok(_) => assert_ne!(client.wait(init).await?, 0),
                // A client deletes only what is stopped, and asks but once.
                Err(_) => assert_eq!(client.status(init).await?, Status::STOPPED.into()),
            }
            client.delete(init).await?;
            client.delete_container(&draft.name).await
        })?;
    }
    Ok(())
}

fn pids_name_the_exec_that_they_belong_to(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let exec = Target::exec(&draft.name, "e1");
        let init_pid = start(&client, &draft).await?;
        client.exec(exec, &process(&["sleep", "1000"]), &Streams::default()).await?;
        let exec_pid = client.start(exec).await?;
        let pids = client.pids(&draft.name).await?;
        assert_eq!(pids.len(), 2, "{pids:?}");
        let info = |pid| pids.iter().find(|(p, _)| *p == pid).map(|(_, info)| info.clone());
        assert_eq!(info(init_pid).context("no init")?, None);
        let details = info(exec_pid).context("no exec")?.context("no details")?;
        assert_eq!(details.type_url, "containerd.runc.v1.ProcessDetails");
        assert_eq!(runc::ProcessDetails::parse_from_bytes(&details.value)?.exec_id, "e1");
        remove(&client, &draft).await
    })
}

fn metrics_have_the_type_of_the_machines_cgroups(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    let unified = cgroups::is_unified()?;
    lane.talk(async |client| {
        start(&client, &draft).await?;
        let metrics = client.metrics(&draft.name).await?;
        let (memory, pids) = if unified {
            assert_eq!(metrics.type_url, "io.containerd.cgroups.v2.Metrics");
            let metrics = cgroups_v2::Metrics::parse_from_bytes(&metrics.value)?;
            (metrics.memory.usage, metrics.pids.current)
        } else {
            assert_eq!(metrics.type_url, "io.containerd.cgroups.v1.Metrics");
            let metrics = cgroups_v1::Metrics::parse_from_bytes(&metrics.value)?;
            (metrics.memory.usage.usage, metrics.pids.current)
        };
        assert!(memory > 4096 && pids == 1, "{memory} bytes, {pids} processes");
        remove(&client, &draft).await
    })
}

fn limits_change_while_the_task_runs(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    lane.talk(async |client| {
        let pid = start(&client, &draft).await?.cast_signed();
        let limits = json!({
            "memory": { "limit": 48 << 20 },
            "cpu": { "quota": 30_000, "period": 100_000 },
            "pids": { "limit": 33 },
        });
        client.update(&draft.name, &limits).await?;
        assert_eq!(cgroups::read(pid, Value::MemoryLimit)?, 48 << 20);
        assert_eq!(cgroups::read(pid, Value::CpuQuota)?, 30_000);
        assert_eq!(cgroups::read(pid, Value::PidsLimit)?, 33);
        remove(&client, &draft).await
    })
}
