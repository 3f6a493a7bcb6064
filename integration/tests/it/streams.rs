//! Standard streams over fifos, whose other ends come and go as clients do.

use std::process::Command;

use anyhow::{Result, ensure};
use integration::client::{Client, Streams, Target};
use integration::container::PROMPT;
use integration::daemon::Daemon;
use integration::lane::{Draft, Lane};
use integration::session::Session;
use integration::wait::{self, SOON};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

integration::tests![
    a_reader_may_leave_and_come_again,
    a_reader_may_come_late,
    one_stream_may_be_given_without_the_others,
    output_without_a_reader_waits_and_is_not_lost,
    the_last_words_arrive,
    a_process_that_left_its_output_open_does_not_hold_up_the_end,
    input_ends_when_it_is_closed,
    four_megabytes_go_in_and_come_out,
    output_is_read_again_after_a_restart_of_containerd,
];

fn fifo(draft: &Draft, name: &str) -> Result<String> {
    let path = draft.folder.join(name);
    mkfifo(path.as_str(), Mode::S_IRWXU)?;
    Ok(path)
}

/// Fifos for output and errors: a client gives both or none.
fn outputs(draft: &Draft) -> Result<Streams> {
    let (stdout, stderr) = (fifo(draft, "out")?, fifo(draft, "err")?);
    Ok(Streams { stdout, stderr, ..Streams::default() })
}

/// A reader that can be stopped.
fn reader(path: &str) -> Result<Session> {
    let mut command = Command::new("cat");
    command.arg(path);
    Session::start(command)
}

/// Readers of both outputs.
fn readers(streams: &Streams) -> Result<[Session; 2]> {
    Ok([reader(&streams.stdout)?, reader(&streams.stderr)?])
}

async fn start(client: &Client, draft: &Draft, streams: &Streams) -> Result<()> {
    client.create_container(&draft.name, &draft.spec, None).await?;
    client.create(&draft.name, &[], streams).await?;
    client.start(Target::init(&draft.name)).await.map(drop)
}

async fn finish(client: &Client, draft: &Draft) -> Result<u32> {
    let init = Target::init(&draft.name);
    let status = client.wait(init).await?;
    client.delete(init).await?;
    client.delete_container(&draft.name).await?;
    Ok(status)
}

const TICKS: &[&str] = &["sh", "-c", "while :; do echo tick; sleep 0.02; done"];

fn a_reader_may_leave_and_come_again(lane: &Lane) -> Result<()> {
    let draft = lane.draft(TICKS)?;
    let streams = outputs(&draft)?;
    let mut readers = readers(&streams)?;
    lane.talk(async |client| {
        start(&client, &draft, &streams).await?;
        for _ in 0..3 {
            readers[0].expect("tick\ntick\n", PROMPT)?;
            readers[0] = reader(&streams.stdout)?;
        }
        client.kill(Target::init(&draft.name), 9).await?;
        assert_eq!(finish(&client, &draft).await?, 137);
        Ok(())
    })
}

fn a_reader_may_come_late(lane: &Lane) -> Result<()> {
    lane.go_cannot("it waits for a reader before it makes the container")?;
    let draft = lane.draft(TICKS)?;
    let streams = outputs(&draft)?;
    lane.talk(async |client| {
        start(&client, &draft, &streams).await?;
        readers(&streams)?[0].expect("tick\ntick\n", PROMPT)?;
        client.kill(Target::init(&draft.name), 9).await?;
        assert_eq!(finish(&client, &draft).await?, 137);
        Ok(())
    })
}

fn one_stream_may_be_given_without_the_others(lane: &Lane) -> Result<()> {
    lane.go_cannot("it opens the one that is not given")?;
    for script in ["echo word", "echo word >&2"] {
        let draft = lane.draft(&["sh", "-c", script])?;
        let path = fifo(&draft, "only")?;
        let streams = if script.ends_with('2') {
            Streams { stderr: path.clone(), ..Streams::default() }
        } else {
            Streams { stdout: path.clone(), ..Streams::default() }
        };
        let reader = reader(&path)?;
        lane.talk(async |client| {
            start(&client, &draft, &streams).await?;
            assert_eq!(finish(&client, &draft).await?, 0);
            Ok(())
        })?;
        assert_eq!(reader.finish(PROMPT)?.stdout, "word\n");
    }
    Ok(())
}

fn output_without_a_reader_waits_and_is_not_lost(lane: &Lane) -> Result<()> {
    // More than pipes and fifos hold.
    let draft = lane.draft(&["sh", "-c", "echo first; read _; exec seq 200000"])?;
    let streams = Streams { stdin: fifo(&draft, "in")?, ..outputs(&draft)? };
    lane.talk(async |client| {
        let first = readers(&streams)?;
        start(&client, &draft, &streams).await?;
        first[0].expect("first\n", PROMPT)?;
        drop(first);
        // The shim holds the other end, so this does not wait for one.
        std::fs::write(&streams.stdin, "\n")?;
        let pid = client.get(Target::init(&draft.name)).await?.pid.cast_signed();
        wait::until("a writer that waits", SOON, || {
            let stack = std::fs::read_to_string(format!("/proc/{pid}/wchan"))?;
            ensure!(stack.contains("pipe"), "it is in {stack:?}");
            Ok(())
        })?;
        let readers = readers(&streams)?;
        readers[0].expect("\n200000\n", PROMPT)?;
        assert_eq!(finish(&client, &draft).await?, 0);
        let [stdout, _stderr] = readers;
        let output = stdout.finish(PROMPT)?.stdout;
        let numbers = output.lines().map(str::parse::<u32>).collect::<Result<Vec<_>, _>>()?;
        assert!(numbers.into_iter().eq(1..=200_000));
        Ok(())
    })
}

fn the_last_words_arrive(lane: &Lane) -> Result<()> {
    for _ in 0..10 {
        let draft = lane.draft(&["sh", "-c", "seq 5000; echo last words"])?;
        let streams = outputs(&draft)?;
        // With readers from the start there is no excuse.
        let [stdout, _stderr] = readers(&streams)?;
        lane.talk(async |client| {
            start(&client, &draft, &streams).await?;
            finish(&client, &draft).await
        })?;
        let output = stdout.finish(PROMPT)?.stdout;
        assert!(output.starts_with("1\n") && output.ends_with("\n5000\nlast words\n"));
    }
    Ok(())
}

fn a_process_that_left_its_output_open_does_not_hold_up_the_end(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    let streams = outputs(&draft)?;
    let _readers = readers(&streams)?;
    lane.talk(async |client| {
        start(&client, &draft, &Streams::default()).await?;
        let exec = Target::exec(&draft.name, "e1");
        let process = json!({
            "args": ["sh", "-c", "sleep 1000 & exit 8"], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
        });
        client.exec(exec, &process, &streams).await?;
        client.start(exec).await?;
        assert_eq!(client.wait(exec).await?, 8);
        assert_eq!(client.delete(exec).await?.exit_status, 8);
        client.kill(Target::init(&draft.name), 9).await?;
        finish(&client, &draft).await.map(drop)
    })
}

fn input_ends_when_it_is_closed(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "cat; exit 5"])?;
    let streams = Streams { stdin: fifo(&draft, "in")?, ..outputs(&draft)? };
    lane.talk(async |client| {
        let [stdout, _stderr] = readers(&streams)?;
        start(&client, &draft, &streams).await?;
        std::fs::write(&streams.stdin, "hello\n")?;
        stdout.expect("hello\n", PROMPT)?;
        // One writer's end is not the end: another client may attach.
        std::fs::write(&streams.stdin, "again\n")?;
        stdout.expect("hello\nagain\n", PROMPT)?;
        client.close_stdin(Target::init(&draft.name)).await?;
        assert_eq!(finish(&client, &draft).await?, 5);
        Ok(())
    })
}

fn four_megabytes_go_in_and_come_out(lane: &Lane) -> Result<()> {
    let text: String = (0..600_000).map(|number| format!("{number}\n")).collect();
    assert!(text.len() > 4_000_000);
    let name = lane.name();
    let args = lane.run_command(&["--rm"], &name, &["sh", "-c", "echo ready; cat"]);
    let mut session = lane.ctr().start(&args)?;
    session.expect("ready\n", PROMPT)?;
    session.send(&text)?;
    session.close_stdin();
    let output = session.finish(PROMPT)?.stdout;
    assert!(output.strip_prefix("ready\n") == Some(&text), "{} bytes came out", output.len());
    Ok(())
}

fn output_is_read_again_after_a_restart_of_containerd(lane: &Lane) -> Result<()> {
    let mut daemon = lane.own_daemon()?;
    let folder = lane.folder()?;
    let flags = ["--fifo-dir", &folder.join("fifos")];
    let script = "while :; do echo tick; sleep 0.05; done";
    let container = lane.start_on(daemon.ctr(), &flags, &["sh", "-c", script])?;
    let see_output = |daemon: &Daemon| -> Result<()> {
        let session = daemon.ctr().start(&["task", "attach", container.id()])?;
        session.expect("tick\ntick\n", PROMPT)
    };
    see_output(&daemon)?;
    daemon.kill();
    daemon.start_again()?;
    see_output(&daemon)?;
    container.remove()?;
    Ok(())
}
