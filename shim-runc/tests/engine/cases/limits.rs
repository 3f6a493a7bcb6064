//! Cgroups: limits, counters, freezing.

use serde_json::json;
use shim_core::{
    Container,
    model::{ExitStatus, Signal, Stats},
};

use super::cases;
use crate::{Bench, bundle::Made, host};

cases! {
    async fn it_is_in_its_cgroups_from_the_start(bench: &Bench) {
        if !host::has_controller("pids") {
            return;
        }
        let made = Made::script("cat /proc/self/cgroup")
            .with(|spec| {
                spec["linux"]["cgroupsPath"] = format!("/{}/one", host::namespace()).into();
                spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "cgroup");
            });
        let printed = made.output(bench).await;
        assert!(printed.lines().all(|line| line.ends_with("/one")), "{printed}");
    }

    async fn too_much_memory_is_death(bench: &Bench) {
        if !host::has_controller("memory") {
            return;
        }
        let made = Made::script("dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?")
            .with(|spec| spec["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20 }));
        let (printed, _) = made.run(bench).await;
        assert!(printed.ends_with("137\n"), "{printed}");
    }

    async fn processes_can_be_limited(bench: &Bench) {
        if !host::has_controller("pids") {
            return;
        }
        let made = Made::script("sleep 0 & sleep 0 & sleep 0 & sleep 0 & wait; echo end")
            .with(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 2 }));
        let (printed, _) = made.run(bench).await;
        assert!(printed.contains("Resource temporarily unavailable"), "{printed}");
    }

    async fn devices_that_are_not_allowed_are_denied(bench: &Bench) {
        // Elsewhere the mount that the root filesystem is on may be without devices.
        let made = Made::script("mknod /dev/fuse c 10 229 && cat /dev/fuse 2>&1");
        let (printed, _) = made.run(bench).await;
        assert_eq!(printed, "cat: can't open '/dev/fuse': Operation not permitted\n");
    }

    async fn devices_that_no_spec_lists_are_denied_but_for_the_usual_ones(bench: &Bench) {
        let look = "mknod /dev/fuse c 10 229 && (: < /dev/fuse); (: < /dev/null) && echo usual";
        for resources in [json!(null), json!({}), json!({ "devices": [] })] {
            let made = Made::script(&format!("({look}) 2>&1"));
            let made = made.with(|spec| spec["linux"]["resources"] = resources.clone());
            let (printed, _) = made.run(bench).await;
            let expected = "can't open /dev/fuse: Operation not permitted\nusual\n";
            assert!(printed.ends_with(expected), "{resources}: {printed}");
        }
        let all = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
        let made = Made::script(&format!("({look}) 2>&1"));
        let printed = made.with(|spec| spec["linux"]["resources"] = all).output(bench).await;
        assert!(!printed.contains("not permitted"), "{printed}");
    }

    async fn it_freezes_thaws_and_counts(bench: &Bench) {
        if !host::has_controller("memory") {
            return;
        }
        let made = Made::script("while read line; do echo $line; done");
        let mut running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        running.container.pause().await.unwrap();
        running.type_in("one\n");
        match running.container.stats().await.unwrap() {
            Stats::V1(stats) => assert!(stats.memory.is_some() && !host::is_unified()),
            _ => assert!(host::is_unified()),
        }
        running.container.resume().await.unwrap();
        let resources = serde_json::from_value(json!({ "memory": { "limit": 50 << 20 } })).unwrap();
        let update = shim_core::Update { resources: Some(resources), ..Default::default() };
        running.container.update(&update).await.unwrap();
        drop(running.input.take());
        assert_eq!(running.wait().await, ExitStatus::Code(0));
        assert_eq!(running.printed(), "one\n");
        running.container.delete().await.unwrap();
    }

    async fn a_frozen_container_can_be_killed_and_deleted(bench: &Bench) {
        let mut running = Made::script("sleep 1000 & sleep 1000").create(bench).await.unwrap();
        running.container.start().await.unwrap();
        running.container.pause().await.unwrap();
        running.container.kill(shim_core::Target::All, Signal::KILL).await.unwrap();
        assert_eq!(running.wait().await, ExitStatus::Signal(Signal::KILL));
        running.container.delete().await.unwrap();
    }
}
