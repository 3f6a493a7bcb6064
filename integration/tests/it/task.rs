//! The life of a task in the background: listed, signalled, paused, measured, deleted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::container::{Container, PROMPT};
use integration::lane::Lane;
use integration::session::Session;
use integration::wait::{self, SOON};
use integration::{image, procs};

integration::tests![
    a_detached_task_is_listed_with_its_processes,
    term_ends_a_task_that_handles_it,
    kill_ends_a_task_that_ignores_everything_else,
    a_real_time_signal_is_delivered,
    a_paused_task_stands_still_until_it_is_resumed,
    a_paused_task_can_be_killed,
    metrics_show_memory_and_processes,
    a_running_task_is_not_deleted,
    a_deleted_task_is_gone_and_can_be_made_again,
    a_created_task_starts_when_told,
    every_process_of_the_container_ends_with_its_init,
    output_goes_to_a_log_file,
    twenty_containers_start_at_once,
];

/// Ends with 7 on TERM, and only then.
const ENDS_ON_TERM: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

fn a_detached_task_is_listed_with_its_processes(lane: &Lane) -> Result<()> {
    let container = lane.start(&["--null-io"], &["sh", "-c", "sleep 1000 & wait"])?;
    container.wait_status("RUNNING")?;
    let pid = container.pid()?;
    wait::until("both processes in the list", SOON, || {
        let table = container.task(&["ps"])?;
        let pids: Vec<i32> = table
            .lines()
            .skip(1)
            .filter_map(|l| l.split_whitespace().next()?.parse().ok())
            .collect();
        ensure!(pids.len() == 2 && pids.contains(&pid), "{pid} in {table}");
        Ok(())
    })?;
    container.remove()?;
    Ok(())
}

fn term_ends_a_task_that_handles_it(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    let log = folder.join("log");
    let uri = format!("file://{log}");
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", ENDS_ON_TERM])?;
    wait_for_text(&log, "ready")?;
    container.kill("TERM")?;
    assert_eq!(container.finish()?, 7);
    Ok(())
}

fn kill_ends_a_task_that_ignores_everything_else(lane: &Lane) -> Result<()> {
    let container = lane.start(&["--null-io"], &["sh", "-c", "trap '' TERM; sleep 1000"])?;
    container.kill("TERM")?;
    wait::throughout(Duration::from_millis(300), || {
        ensure!(container.status()?.as_deref() == Some("RUNNING"));
        Ok(())
    })?;
    container.kill("KILL")?;
    assert_eq!(container.finish()?, 137);
    Ok(())
}

fn a_real_time_signal_is_delivered(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    let log = folder.join("log");
    let uri = format!("file://{log}");
    let script = "trap 'exit 9' 34; echo ready; while :; do sleep 0.05; done";
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", script])?;
    wait_for_text(&log, "ready")?;
    container.kill("34")?;
    assert_eq!(container.finish()?, 9);
    Ok(())
}

fn a_paused_task_stands_still_until_it_is_resumed(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    let log = folder.join("log");
    let uri = format!("file://{log}");
    let script = "while :; do echo tick; sleep 0.02; done";
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", script])?;
    let size = || -> Result<u64> { Ok(fs::metadata(&log)?.len()) };
    let grows = |from: u64| {
        wait::until("more output", SOON, || {
            ensure!(size()? > from);
            Ok(())
        })
    };
    grows(0)?;
    container.task(&["pause"])?;
    assert_eq!(container.status()?.as_deref(), Some("PAUSED"));
    // What the container wrote before may still be on its way through the shim.
    let mut last = size()?;
    wait::until("the end of what was on its way", SOON, || {
        let now = size()?;
        let before = std::mem::replace(&mut last, now);
        ensure!(before == now);
        Ok(())
    })?;
    wait::throughout(Duration::from_millis(300), || {
        ensure!(size()? == last, "output while paused");
        Ok(())
    })?;
    container.task(&["resume"])?;
    assert_eq!(container.status()?.as_deref(), Some("RUNNING"));
    grows(last)?;
    container.remove()?;
    Ok(())
}

fn a_paused_task_can_be_killed(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    container.task(&["pause"])?;
    // On cgroup v1 the signal waits for the thaw, which is the shim's to do.
    container.kill("KILL")?;
    assert_eq!(container.finish()?, 137);
    Ok(())
}

fn metrics_show_memory_and_processes(lane: &Lane) -> Result<()> {
    let container = lane.start(&["--null-io"], &["sh", "-c", "sleep 1000 & wait"])?;
    wait::until("metrics of two processes", SOON, || {
        let table = container.task(&["metrics"])?;
        let value = |keys: [&str; 2]| {
            let number = |line: &str| {
                let (key, value) = line.split_once(char::is_whitespace)?;
                keys.contains(&key).then(|| value.trim().parse::<u64>().ok())?
            };
            table.lines().find_map(number).with_context(|| format!("no {keys:?} in {table}"))
        };
        ensure!(value(["memory.usage_in_bytes", "memory.usage"])? > 4096, "{table}");
        ensure!(value(["pids.current", "pids.current"])? == 2, "{table}");
        Ok(())
    })?;
    container.remove()?;
    Ok(())
}

fn a_running_task_is_not_deleted(lane: &Lane) -> Result<()> {
    let container = lane.sleeper(&[])?;
    let pid = container.pid()?;
    let refused = lane.ctr().run(&["task", "delete", container.id()])?;
    assert_ne!(refused.status, 0);
    assert!(procs::runs(pid));
    container.wait_status("RUNNING")?;
    container.remove()?;
    Ok(())
}

fn a_deleted_task_is_gone_and_can_be_made_again(lane: &Lane) -> Result<()> {
    let container = lane.start(&["--null-io"], &["sh", "-c", "exit 3"])?;
    assert_eq!(container.delete_task()?, 3);
    assert_eq!(container.status()?, None);
    // The container keeps its snapshot and can have a second task.
    container.task(&["start", "--detach", "--null-io"])?;
    assert_eq!(container.finish()?, 3);
    Ok(())
}

fn a_created_task_starts_when_told(lane: &Lane) -> Result<()> {
    let name = lane.name();
    let runtime = lane.shim().runtime();
    lane.ctr().ok(&["container", "create", "--runtime", runtime, image::NAME, &name, "false"])?;
    let container = Container::new(&lane.ctr(), &name);
    assert_eq!(container.status()?, None);
    container.task(&["start", "--detach", "--null-io"])?;
    assert_eq!(container.finish()?, 1);
    Ok(())
}

fn every_process_of_the_container_ends_with_its_init(lane: &Lane) -> Result<()> {
    let script = "for i in 1 2 3; do setsid sleep 1000 & done; sleep 1000";
    let container = lane.start(&["--null-io"], &["sh", "-c", script])?;
    wait::until("four processes", SOON, || {
        ensure!(container.task(&["ps"])?.lines().count() == 5);
        Ok(())
    })?;
    // The leak check sees the ones that would stay.
    container.remove()?;
    Ok(())
}

fn output_goes_to_a_log_file(lane: &Lane) -> Result<()> {
    let folder = lane.folder()?;
    // The folder of the log is the shim's to make.
    let log = folder.join("deep/log");
    let uri = format!("file://{log}");
    let script = "echo out; echo err >&2";
    let container = lane.start(&["--log-uri", &uri], &["sh", "-c", script])?;
    assert_eq!(container.finish()?, 0);
    let text = fs::read_to_string(&log)?;
    assert!(text.contains("out\n") && text.contains("err\n"), "{text:?}");
    Ok(())
}

fn twenty_containers_start_at_once(lane: &Lane) -> Result<()> {
    let names: Vec<_> = (0..20).map(|_| lane.name()).collect();
    let start = |name: &String| {
        let flags = ["--detach", "--null-io"];
        lane.ctr().start(&lane.run_command(&flags, name, &["sleep", "1000"]))
    };
    let sessions = names.iter().map(start).collect::<Result<Vec<Session>>>()?;
    for session in sessions {
        let output = session.finish(PROMPT * 3)?;
        assert_eq!(output.status, 0, "{}", output.stderr);
    }
    let containers: Vec<_> = names.iter().map(|name| Container::new(&lane.ctr(), name)).collect();
    for container in &containers {
        assert_eq!(container.status()?.as_deref(), Some("RUNNING"));
    }
    for container in &containers {
        assert_eq!(container.remove()?, 137);
    }
    Ok(())
}

fn wait_for_text(file: &str, text: &str) -> Result<()> {
    wait::until(format!("{text} in {file}"), PROMPT, || {
        let found = fs::read_to_string(file)?;
        ensure!(found.contains(text), "it has {found:?}");
        Ok(())
    })
}
