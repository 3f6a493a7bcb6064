//! Containers and execs from their creation to their deletion.

use serde_json::json;
use shim_core::{
    Container, Kind, Streams, Target, Update,
    model::{ExecId, ExitStatus, Signal, Stats},
};
use tokio::io::AsyncReadExt;

use crate::world::{exec, exec_with, is_empty, null, run, until};

#[test]
fn a_container_runs_and_tells_its_code() {
    run(async |world| {
        let mut running = world.create(world.script("echo hello; exit 7")).await;
        assert_eq!(running.init.pid, world.pid());
        running.container.start().await.unwrap();
        assert_eq!(running.output().await, "hello\n");
        let exit = running.exit().await;
        assert_eq!(exit.status, ExitStatus::Code(7));
        assert!(exit.at <= std::time::SystemTime::now());
        running.container.delete().await.unwrap();
        // Whoever tries again finds nothing to do.
        running.container.delete().await.unwrap();
    });
}

#[test]
fn the_output_is_there_when_the_end_is_told() {
    run(async |world| {
        for _ in 0..20 {
            let mut running = world.start("echo out; echo err >&2").await;
            running.exit().await;
            let mut buffer = [0; 64];
            let read = running.stdout.as_mut().unwrap().try_read(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], b"out\nerr\n");
            running.container.delete().await.unwrap();
        }
    });
}

#[test]
fn signals_reach_whom_they_are_for() {
    run(async |world| {
        let mut running = world
            .start("trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 1; done")
            .await;
        assert_eq!(running.line().await, "ready");
        running.container.kill(Target::Init, Signal::TERM).await.unwrap();
        assert_eq!(running.line().await, "term");
        assert_eq!(running.exit().await.status, ExitStatus::Code(3));
        let late = running.container.kill(Target::Init, Signal::TERM).await;
        assert_eq!(late.unwrap_err().kind(), Kind::NotFound);
        running.container.delete().await.unwrap();

        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let (process, _output) = exec(&running.container, "e1", "sleep 1000").await.unwrap();
        let id = ExecId::parse("e1").unwrap();
        let target = Target::Exec { id: &id, pid: process.pid };
        running.container.kill(target, Signal::KILL).await.unwrap();
        assert_eq!(process.exit.await.status.wire(), 137);
        running.container.kill(Target::All, Signal::KILL).await.unwrap();
        assert_eq!(running.exit().await.status.wire(), 137);
        running.container.delete().await.unwrap();
    });
}

#[test]
fn execs_run_beside_each_other_without_a_stdin() {
    run(async |world| {
        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let execs = (0..8).map(|n| {
            let container = &running.container;
            async move {
                let script = format!("cat; echo {n}; exit {n}");
                let (process, mut output) =
                    exec(container, &format!("e{n}"), &script).await.unwrap();
                let mut text = String::new();
                output.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, format!("{n}\n"));
                assert_eq!(process.exit.await.status, ExitStatus::Code(n));
            }
        });
        futures::future::join_all(execs).await;
        // The id is free again at once.
        let (process, _output) = exec(&running.container, "e0", "exit 5").await.unwrap();
        assert_eq!(process.exit.await.status, ExitStatus::Code(5));
        running.remove().await;
    });
}

#[test]
fn two_hundred_execs_leave_nothing() {
    run(async |world| {
        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        let ours = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let mut before = (0, 0);
        for n in 0..=200 {
            let (process, mut output) = exec(&running.container, "again", "echo x").await.unwrap();
            let mut text = String::new();
            output.read_to_string(&mut text).await.unwrap();
            assert_eq!((text.as_str(), process.exit.await.status.wire()), ("x\n", 0), "{n}");
            if n == 0 {
                // The init process has three streams of two descriptors at the most.
                until(|| std::fs::read_dir(world.path("stdio")).unwrap().count() <= 3).await;
                before = (world.files(), ours());
            }
        }
        until(|| (world.files(), ours()) <= before).await;
        running.remove().await;
        until(|| is_empty(&world.path("stdio"))).await;
    });
}

#[test]
fn what_does_not_run_is_told_and_leaves_nothing() {
    run(async |world| {
        let (id, mut spec) = world.script("");
        spec["process"]["args"] = json!(["/no/such/program"]);
        let streams = || Streams::Pipes { stdin: null(), stdout: null(), stderr: null() };
        let err = world.create_with((id, spec), streams()).await.err().unwrap();
        assert!(err.to_string().contains("/no/such/program"), "{err:#}");

        let (id, mut spec) = world.script("");
        spec["linux"]["namespaces"] = json!([
            { "type": "mount" }, { "type": "uts" },
            { "type": "network", "path": "/no/such/namespace" },
        ]);
        let err = world.create_with((id, spec), streams()).await.err().unwrap();
        assert!(format!("{err:#}").contains("/no/such/namespace"), "{err:#}");
        until(|| is_empty(&world.path("bundles"))).await;

        let mut running = world.start("echo ready; sleep 1000").await;
        running.line().await;
        for _ in 0..3 {
            let made = exec_with(&running.container, "e1", &["/no/such"], streams()).await;
            assert!(made.unwrap_err().to_string().contains("/no/such"));
        }
        running.remove().await;
    });
}

#[test]
fn a_container_that_never_starts_is_removed() {
    run(async |world| {
        let mut running = world.create(world.script("true")).await;
        running.container.kill(Target::Init, Signal::KILL).await.unwrap();
        assert_eq!(running.exit().await.status.wire(), 137);
        running.container.delete().await.unwrap();
    });
}

#[test]
fn a_container_is_frozen_thawed_and_changed() {
    run(async |world| {
        let mut running = world.start("echo ready; cat").await;
        running.line().await;
        running.container.pause().await.unwrap();
        running.container.resume().await.unwrap();
        let resources = serde_json::from_value(json!({ "pids": { "limit": 33 } })).unwrap();
        let update = Update { resources: Some(resources), ..Default::default() };
        running.container.update(&update).await.unwrap();
        let used = match running.container.stats().await.unwrap() {
            Stats::V1(stats) => stats.pids.unwrap().limit,
            Stats::V2(stats) => stats.pids.limit,
            other => panic!("{other:?}"),
        };
        assert_eq!(used, 33);
        running.say("still here\n").await;
        assert_eq!(running.line().await, "still here");
        assert_eq!(running.container.pids().await.unwrap(), [world.pid()]);
        running.remove().await;
    });
}

#[test]
fn a_want_of_memory_is_told_before_the_end() {
    run(async |world| {
        let (id, mut spec) = world.script("dd if=/dev/zero of=/dev/null bs=200M count=1");
        spec["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
        let mut running = world.create((id, spec)).await;
        running.container.start().await.unwrap();
        let exit = tokio::select! {
            biased;
            told = running.container.out_of_memory() => {
                told.unwrap();
                (&mut running.init.exit).await
            }
            exit = &mut running.init.exit => panic!("{exit:?} was told first"),
        };
        assert_eq!(exit.status.wire(), 137);
        // Once is enough, for as often as it was.
        let again = running.container.out_of_memory();
        assert!(futures::FutureExt::now_or_never(again).is_none());
        running.container.delete().await.unwrap();
    });
}
