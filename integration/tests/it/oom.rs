//! A want of memory is told when it happens, and before the end that it causes.

use anyhow::{Result, ensure};
use integration::client::{Client, Streams, Target};
use integration::container::PROMPT;
use integration::lane::{Draft, Lane};
use integration::wait::{self, SOON};
use serde_json::json;

integration::tests![
    a_want_of_memory_is_told_before_the_end_it_causes,
    a_want_of_memory_in_an_exec_is_told_and_the_container_lives,
    ctr_events_shows_a_want_of_memory,
];

/// tail keeps the last line, and this one has no end.
const GLUTTON: &[&str] = &["tail", "/dev/zero"];

fn draft(lane: &Lane, args: &[&str]) -> Result<Draft> {
    let mut draft = lane.draft(args)?;
    draft.spec = draft.spec.set("/linux/resources/memory", json!({ "limit": 32 << 20 }));
    Ok(draft)
}

async fn start(client: &Client, draft: &Draft) -> Result<()> {
    client.create_container(&draft.name, &draft.spec, None).await?;
    client.create(&draft.name, &[], &Streams::default()).await?;
    client.start(Target::init(&draft.name)).await.map(drop)
}

async fn finish(client: &Client, draft: &Draft) -> Result<u32> {
    let init = Target::init(&draft.name);
    let status = client.wait(init).await?;
    client.delete(init).await?;
    client.delete_container(&draft.name).await?;
    Ok(status)
}

fn a_want_of_memory_is_told_before_the_end_it_causes(lane: &Lane) -> Result<()> {
    lane.go_cannot("its news of memory goes another way than its other events")?;
    for _ in 0..3 {
        let draft = draft(lane, GLUTTON)?;
        lane.talk(async |client| {
            let mut events = client.events(&draft.name).await?;
            start(&client, &draft).await?;
            let told = events.until("exit").await?;
            let kinds: Vec<_> = told.iter().map(|event| event.kind.as_str()).collect();
            assert_eq!(kinds, ["create", "start", "oom", "exit"]);
            assert_eq!(finish(&client, &draft).await?, 137);
            Ok(())
        })?;
    }
    Ok(())
}

fn a_want_of_memory_in_an_exec_is_told_and_the_container_lives(lane: &Lane) -> Result<()> {
    let draft = draft(lane, &["sleep", "1000"])?;
    lane.talk(async |client| {
        let mut events = client.events(&draft.name).await?;
        start(&client, &draft).await?;
        for id in ["e1", "e2"] {
            let exec = Target::exec(&draft.name, id);
            let process = json!({
                "args": GLUTTON, "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
                "user": { "uid": 0, "gid": 0 },
            });
            client.exec(exec, &process, &Streams::default()).await?;
            client.start(exec).await?;
            assert_eq!(client.wait(exec).await?, 137);
            client.delete(exec).await?;
            events.until("oom").await?;
        }
        client.kill(Target::init(&draft.name), 9).await?;
        assert_eq!(finish(&client, &draft).await?, 137);
        Ok(())
    })
}

fn ctr_events_shows_a_want_of_memory(lane: &Lane) -> Result<()> {
    let mut events = lane.ctr().start(&["events"])?;
    // It does not say when it has begun to listen.
    wait::until("ctr to listen", SOON, || {
        lane.run(&[], &["true"])?;
        ensure!(events.written().contains("/tasks/exit"), "no event yet");
        Ok(())
    })?;
    let output = lane.run(&["--memory-limit", &(32 << 20).to_string()], GLUTTON)?;
    assert_eq!(output.status, 137, "{}", output.stderr);
    events.expect("/tasks/oom", PROMPT)?;
    events.kill();
    Ok(())
}
