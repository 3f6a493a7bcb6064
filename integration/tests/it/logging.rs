//! Output that goes to files and to logging binaries, by URI.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Result, ensure};
use integration::client::{Client, Streams, Target};
use integration::lane::{Draft, Lane};
use integration::procs;
use integration::wait::{self, SOON};
use nix::sys::signal::Signal;
use serde_json::json;

integration::tests![
    both_streams_share_a_file_in_order,
    one_stream_has_a_file_of_its_own,
    a_file_is_appended_to,
    a_full_disk_does_not_stop_the_container,
    a_logging_binary_gets_both_streams_its_arguments_and_two_variables,
    ctr_logs_to_a_binary,
    the_last_words_reach_a_logging_binary,
    an_exec_has_a_logging_binary_of_its_own,
    a_logging_binary_that_says_it_is_ready_is_used,
    a_logging_binary_that_ends_before_it_is_ready_fails_the_create,
    a_logging_binary_that_is_not_there_fails_the_create,
    a_logging_binary_that_dies_takes_no_container_along,
    a_logging_binary_that_will_not_end_does_not_hold_up_the_deletion,
    a_logging_binary_ends_with_its_container_when_the_shim_is_killed,
    a_scheme_that_nobody_knows_is_refused_by_name,
];

/// Reads standard output into `out` and errors into `err`, once it has said that it is ready.
const LOGGER: &str = "echo >&5; exec 5>&-; cat <&3 > out & cat <&4 > err; wait";

/// Makes a logging binary of shell, which works in the draft's folder, and returns its path.
fn logger(draft: &Draft, script: &str) -> Result<String> {
    let (path, folder) = (draft.folder.join("logger"), draft.folder.path().display().to_string());
    fs::write(&path, format!("#!/bin/sh\ncd {folder}\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn both(uri: &str) -> Streams {
    Streams { stdout: uri.to_owned(), stderr: uri.to_owned(), ..Streams::default() }
}

fn read(draft: &Draft, name: &str) -> String {
    fs::read_to_string(draft.folder.join(name)).unwrap_or_default()
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

/// Runs a container from its creation to its deletion.
fn run(lane: &Lane, draft: &Draft, streams: &Streams) -> Result<u32> {
    lane.talk(async |client| {
        start(&client, draft, streams).await?;
        finish(&client, draft).await
    })
}

/// A creation that has to fail, and what it says.
fn refused(lane: &Lane, draft: &Draft, streams: &Streams) -> Result<String> {
    lane.talk(async |client| {
        client.create_container(&draft.name, &draft.spec, None).await?;
        let error = client.create(&draft.name, &[], streams).await.expect_err("a refusal");
        client.delete_container(&draft.name).await?;
        Ok(format!("{error:#}"))
    })
}

fn both_streams_share_a_file_in_order(lane: &Lane) -> Result<()> {
    lane.go_cannot("it has a pipe for each stream")?;
    let script = "n=0; while [ $n -lt 300 ]; do echo out $n; echo err $n >&2; n=$((n + 1)); done";
    let draft = lane.draft(&["sh", "-c", script])?;
    let streams = both(&format!("file://{}", draft.folder.join("new/log%20file")));
    assert_eq!(run(lane, &draft, &streams)?, 0);
    let expected: String = (0..300).map(|n| format!("out {n}\nerr {n}\n")).collect();
    assert_eq!(read(&draft, "new/log file"), expected);
    Ok(())
}

fn one_stream_has_a_file_of_its_own(lane: &Lane) -> Result<()> {
    lane.go_cannot("it takes the file of one stream for both")?;
    let draft = lane.draft(&["sh", "-c", "echo out; echo err >&2"])?;
    let uri = |name| format!("file://{}", draft.folder.join(name));
    for streams in [
        Streams { stdout: uri("out"), ..Streams::default() },
        Streams { stderr: uri("err"), ..Streams::default() },
        Streams { stdout: uri("out2"), stderr: uri("err2"), ..Streams::default() },
    ] {
        assert_eq!(run(lane, &draft, &streams)?, 0);
    }
    let texts = ["out", "err", "out2", "err2"].map(|name| read(&draft, name));
    assert_eq!(texts, ["out\n", "err\n", "out\n", "err\n"]);
    Ok(())
}

fn a_file_is_appended_to(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["echo", "line"])?;
    let streams = both(&format!("file://{}", draft.folder.join("log")));
    for count in 1..=2 {
        assert_eq!(run(lane, &draft, &streams)?, 0);
        assert_eq!(read(&draft, "log"), "line\n".repeat(count));
    }
    Ok(())
}

fn a_full_disk_does_not_stop_the_container(lane: &Lane) -> Result<()> {
    lane.go_cannot("it stops reading, and the container waits for ever")?;
    // More than any pipe holds.
    let draft = lane.draft(&["sh", "-c", "seq 200000 && exit 6"])?;
    assert_eq!(run(lane, &draft, &both("file:///dev/full"))?, 6);
    Ok(())
}

fn a_logging_binary_gets_both_streams_its_arguments_and_two_variables(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", "seq 20000; echo err >&2"])?;
    let script = "printf '%s\\n' \"$@\" > args; tr '\\0' '\\n' < /proc/$$/environ | sort > env";
    let path = logger(&draft, &format!("{script}\n{LOGGER}"))?;
    assert_eq!(run(lane, &draft, &both(&format!("binary://{path}?the%20key=a%26value")))?, 0);
    let numbers: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert!(read(&draft, "out") == numbers, "{} bytes", read(&draft, "out").len());
    assert_eq!(read(&draft, "err"), "err\n");
    assert_eq!(read(&draft, "args"), "the key\na&value\n");
    let (id, namespace) = (&draft.name, lane.mark());
    assert_eq!(
        read(&draft, "env"),
        format!("CONTAINER_ID={id}\nCONTAINER_NAMESPACE={namespace}\n")
    );
    Ok(())
}

fn ctr_logs_to_a_binary(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&[])?;
    let uri = format!("binary://{}", logger(&draft, LOGGER)?);
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", "echo word; sleep 1000"])?;
    wait::until("the word", SOON, || {
        ensure!(read(&draft, "out") == "word\n", "{:?}", read(&draft, "out"));
        Ok(())
    })?;
    container.remove()?;
    Ok(())
}

fn the_last_words_reach_a_logging_binary(lane: &Lane) -> Result<()> {
    lane.go_cannot("it ends the binary with a signal, whatever that has in hand")?;
    let draft = lane.draft(&["sh", "-c", "seq 5000; echo last words"])?;
    let streams = both(&format!("binary://{}", logger(&draft, LOGGER)?));
    for _ in 0..10 {
        assert_eq!(run(lane, &draft, &streams)?, 0);
        assert!(read(&draft, "out").ends_with("\n5000\nlast words\n"));
        fs::write(draft.folder.join("out"), "")?;
    }
    Ok(())
}

fn an_exec_has_a_logging_binary_of_its_own(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sleep", "1000"])?;
    let streams = both(&format!("binary://{}", logger(&draft, LOGGER)?));
    lane.talk(async |client| {
        start(&client, &draft, &Streams::default()).await?;
        let exec = Target::exec(&draft.name, "e1");
        let process = json!({
            "args": ["sh", "-c", "echo word; exit 8"], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 },
        });
        client.exec(exec, &process, &streams).await?;
        client.start(exec).await?;
        assert_eq!(client.wait(exec).await?, 8);
        assert_eq!(client.delete(exec).await?.exit_status, 8);
        assert_eq!(read(&draft, "out"), "word\n");
        client.kill(Target::init(&draft.name), 9).await?;
        finish(&client, &draft).await.map(drop)
    })
}

fn a_logging_binary_that_says_it_is_ready_is_used(lane: &Lane) -> Result<()> {
    lane.go_cannot("containerd has the second version from 2.3 on")?;
    let draft = lane.draft(&["echo", "word"])?;
    // The container is not made before that: what it prints comes second.
    let path = logger(&draft, &format!("sleep 0.3; touch ready; {LOGGER}"))?;
    lane.talk(async |client| {
        let streams = both(&format!("binary-v2://{path}"));
        client.create_container(&draft.name, &draft.spec, None).await?;
        client.create(&draft.name, &[], &streams).await?;
        assert!(fs::exists(draft.folder.join("ready"))?);
        client.start(Target::init(&draft.name)).await?;
        assert_eq!(finish(&client, &draft).await?, 0);
        Ok(())
    })?;
    assert_eq!(read(&draft, "out"), "word\n");
    Ok(())
}

fn a_logging_binary_that_ends_before_it_is_ready_fails_the_create(lane: &Lane) -> Result<()> {
    lane.go_cannot("containerd has the second version from 2.3 on")?;
    let draft = lane.draft(&["echo", "word"])?;
    let path = logger(&draft, "exit 3")?;
    let text = refused(lane, &draft, &both(&format!("binary-v2://{path}")))?;
    let expected = format!("logging binary {path}: it ended without saying that it is ready");
    assert!(text.contains(&expected), "{text}");
    // The first version takes silence for readiness.
    assert_eq!(run(lane, &draft, &both(&format!("binary://{path}?")))?, 0);
    Ok(())
}

fn a_logging_binary_that_is_not_there_fails_the_create(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["echo", "word"])?;
    let text = refused(lane, &draft, &both("binary:///no/such/logger"))?;
    assert!(text.contains("/no/such/logger"), "{text}");
    Ok(())
}

fn a_logging_binary_that_dies_takes_no_container_along(lane: &Lane) -> Result<()> {
    lane.go_cannot("its container gets SIGPIPE")?;
    let draft = lane.draft(&["sh", "-c", "seq 200000 && exit 6"])?;
    let path = logger(&draft, "echo >&5; exit 3")?;
    assert_eq!(run(lane, &draft, &both(&format!("binary://{path}")))?, 6);
    Ok(())
}

fn a_logging_binary_that_will_not_end_does_not_hold_up_the_deletion(lane: &Lane) -> Result<()> {
    lane.go_cannot("it waits for the binary for twelve seconds")?;
    let draft = lane.draft(&["echo", "word"])?;
    let script = "trap '' TERM; echo $$ > pid; echo >&5; exec 5>&-; while :; do sleep 0.05; done";
    let streams = both(&format!("binary://{}", logger(&draft, script)?));
    let begin = Instant::now();
    assert_eq!(run(lane, &draft, &streams)?, 0);
    // Draining, and then ending, two seconds each.
    assert!(begin.elapsed().as_secs() < 8, "{:?}", begin.elapsed());
    // The shim has no container any more, and stays until this is done.
    let pid: i32 = read(&draft, "pid").trim().parse()?;
    wait::until("the end of the binary", SOON * 2, || {
        ensure!(!procs::runs(pid), "{pid} runs");
        Ok(())
    })
}

fn a_logging_binary_ends_with_its_container_when_the_shim_is_killed(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&[])?;
    let path = logger(&draft, &format!("echo $$ > pid; {LOGGER}"))?;
    let uri = format!("binary://{path}");
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", "echo word; sleep 1000"])?;
    wait::until("the word", SOON, || {
        ensure!(read(&draft, "out") == "word\n", "{:?}", read(&draft, "out"));
        Ok(())
    })?;
    let binary: i32 = read(&draft, "pid").trim().parse()?;
    assert!(procs::runs(binary));
    procs::signal(container.shim()?, Signal::SIGKILL)?;
    wait::until("the end of the binary", SOON, || {
        ensure!(!procs::runs(binary), "{binary} runs");
        Ok(())
    })?;
    container.forget()
}

fn a_scheme_that_nobody_knows_is_refused_by_name(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["echo", "word"])?;
    let text = refused(lane, &draft, &both("gopher:///log"))?;
    assert!(text.contains("gopher"), "{text}");
    Ok(())
}
