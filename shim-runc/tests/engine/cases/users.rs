//! User namespaces.

use std::fs;

use serde_json::json;
use shim_core::{Container, model::ExitStatus};

use super::cases;
use crate::{Bench, bundle::Made};

pub(super) fn mapped(made: Made) -> Made {
    let rootfs = made.rootfs();
    // The image's files belong to the container's root.
    let mut all = vec![rootfs];
    while let Some(path) = all.pop() {
        let owner = (Some(100_000.into()), Some(100_000.into()));
        nix::unistd::fchownat(
            nix::fcntl::AT_FDCWD,
            &path,
            owner.0,
            owner.1,
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .unwrap();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            all.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    made.with(|spec| {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    })
}

const LOOK: &str = "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c '%u %t' /dev/null; \
    echo x > /dev/null && echo writable; touch /tmp/x && stat -c %u /tmp/x; hostname; \
    echo out > /dev/stdout; cat /proc/self/oom_score_adj";

cases! {
    async fn a_container_can_have_a_user_namespace(bench: &Bench) {
        let made = mapped(Made::script(LOOK)).with(|spec| {
            spec["process"]["oomScoreAdj"] = 300.into();
        });
        let printed = made.output(bench).await;
        let expected = "0\n 0 100000 65536\n65534 1\nwritable\n0\nbox\nout\n300\n";
        assert_eq!(printed, expected);
        let owner = fs::metadata(made.rootfs().join("tmp/x")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 100_000);
    }

    async fn another_user_of_it_works_too(bench: &Bench) {
        let made = mapped(Made::script("id -u; id -g; id -G; echo out > /dev/stdout")).with(|spec| {
            spec["process"]["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9] });
        });
        assert_eq!(made.output(bench).await, "7\n8\n8 9\nout\n");
    }

    async fn it_is_entered_by_added_processes(bench: &Bench) {
        let running = mapped(Made::command(&["/bin/sleep", "1000"])).create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let script = "id -u; [ $(readlink /proc/self/ns/user) = $(readlink /proc/1/ns/user) ] && echo same; \
            touch /tmp/y; stat -c %u /tmp/y";
        let (printed, status) = running.exec_output(&["/bin/sh", "-c", script]).await;
        assert_eq!((printed.as_str(), status), ("0\nsame\n0\n", ExitStatus::Code(0)));
        running.end().await;
    }

    async fn one_of_another_container_is_joined(bench: &Bench) {
        let sandbox = mapped(Made::command(&["/bin/sleep", "1000"])).create(bench).await.unwrap();
        sandbox.container.start().await.unwrap();
        let pid = sandbox.init.as_ref().unwrap().pid;
        let made = mapped(Made::script("id -u; cat /proc/self/uid_map | tr -s ' '; echo $$; \
            readlink /proc/self/ns/net; readlink /proc/self/ns/user"))
            .with(|spec| {
                let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
                spec["linux"]["namespaces"] = json!([
                    { "type": "user", "path": path("user") },
                    { "type": "network", "path": path("net") },
                    { "type": "ipc", "path": path("ipc") },
                    { "type": "uts", "path": path("uts") },
                    { "type": "pid" }, { "type": "mount" }, { "type": "cgroup" },
                ]);
                spec["hostname"] = "".into();
            });
        let link = |kind: &str| {
            fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
        };
        let expected = format!("0\n 0 100000 65536\n1\n{}\n{}\n", link("net"), link("user"));
        assert_eq!(made.output(bench).await, expected);
        sandbox.end().await;
    }

    async fn one_without_mappings_is_refused(bench: &Bench) {
        let made = Made::script("true").with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        });
        assert_eq!(made.refusal(bench).await, "a user namespace needs uid and gid mappings");
    }

    async fn mounts_can_be_idmapped(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "").unwrap();
        let script = "stat -c %u:%g /own /spec/file; touch /spec/new";
        let made = mapped(Made::script(script)).with(|spec| {
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/own", "type": "bind",
                "source": outside.path().join("file"), "options": ["bind", "idmap"] }));
            let map = json!([{ "containerID": 0, "hostID": 100_007, "size": 1 },
                { "containerID": 5, "hostID": 100_000, "size": 1 }]);
            mounts.push(json!({ "destination": "/spec", "type": "bind",
                "source": outside.path(), "options": ["rbind", "ridmap"],
                "uidMappings": map, "gidMappings": map }));
        });
        assert_eq!(made.output(bench).await, "0:0\n7:7\n");
        let owner = fs::metadata(outside.path().join("new")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 5);
    }
}
