//! What a process may do and who it is, what its image says of that, and which cgroups it sees.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd};
use serde_json::json;

use super::{cases, mount};
use crate::{
    Bench,
    bundle::{Made, process, read_all},
    cases::users::mapped,
    host,
};

/// Groups of this process's own, for as long as it lives.
struct Groups(Vec<unistd::Gid>);

impl Groups {
    fn set(groups: &[u32]) -> Self {
        let before = unistd::getgroups().unwrap();
        let groups: Vec<_> = groups.iter().copied().map(unistd::Gid::from_raw).collect();
        unistd::setgroups(&groups).unwrap();
        Self(before)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        unistd::setgroups(&self.0).unwrap();
    }
}

const SETS: &str = "grep -E '^Cap(Inh|Amb)' /proc/self/status | tr '\\t' ' '";
const NONE: &str = "CapInh: 0000000000000000\nCapAmb: 0000000000000000\n";

cases! {
    async fn exec_capabilities_are_neither_inheritable_nor_ambient(bench: &Bench) {
        let running = Made::command(&["/bin/sleep", "1000"]).create(bench).await.unwrap();
        shim_core::Container::start(&*running.container).await.unwrap();
        for uid in [0, 1000] {
            let mut one = process(&["/bin/sh", "-c", SETS]);
            one["user"] = json!({ "uid": uid, "gid": uid });
            let (started, output) = running.exec_process("e", one).await.unwrap();
            started.exit.await;
            assert_eq!(read_all(output), NONE, "{uid}");
        }
        running.end().await;
        assert_eq!(Made::script(SETS).output(bench).await, NONE);
    }

    async fn groups_of_the_shim_are_nobodys_inside(bench: &Bench) {
        let groups = Groups::set(&[4242, 4343]);
        let (bench, stem) = super::another(bench).await;
        assert_eq!(Made::script("id -G").output(&bench).await, "0\n");
        assert_eq!(mapped(Made::script("id -G")).output(&bench).await, "0\n");
        let running = Made::command(&["/bin/sleep", "1000"]).create(&bench).await.unwrap();
        shim_core::Container::start(&*running.container).await.unwrap();
        let (printed, _) = running.exec_output(&["/bin/id", "-G"]).await;
        assert_eq!(printed, "0\n");
        running.end().await;
        drop(bench);
        nix::sys::wait::waitpid(unistd::Pid::from_raw(stem), None).unwrap();
        drop(groups);
    }

    async fn groups_that_are_not_mapped_can_not_be_had(bench: &Bench) {
        let made = mapped(Made::script("id -G"))
            .with(|spec| spec["process"]["user"]["additionalGids"] = json!([70_000]));
        let why = made.refusal(bench).await;
        assert!(why.contains("set supplementary groups: EINVAL"), "{why}");
    }

    async fn cgroup_path_can_not_climb(bench: &Bench) {
        for path in ["/{}/../x", "{}/../../x", "..", "/{}/a/../../../x", "/../{}"] {
            let path = path.replace("{}", &host::namespace());
            let made = Made::script("true").with(|spec| spec["linux"]["cgroupsPath"] = path.clone().into());
            let why = made.refusal(bench).await;
            assert!(why.contains("has a `..`"), "{path}: {why}");
        }
    }

    async fn cgroup_tree_of_the_host_is_not_shown(bench: &Bench) {
        // Without a cgroup namespace a fresh mount would show the host's root.
        for has_namespace in [false, true] {
            let made = Made::script("for d in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do ls $d; done 2>&1; \
                ls -d /sys/fs/cgroup/NAMESPACE /sys/fs/cgroup/*/NAMESPACE 2>/dev/null; true").with(|spec| {
                let script = spec["process"]["args"][2].as_str().unwrap();
                spec["process"]["args"][2] = script.replace("NAMESPACE", &host::namespace()).into();
                mount(spec, json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
                    "source": "cgroup", "options": ["nosuid", "rw"] }));
                let all = spec["linux"]["namespaces"].as_array_mut().unwrap();
                all.retain(|one| has_namespace || one["type"] != "cgroup");
            });
            let printed = made.output(bench).await;
            assert!(printed.contains("cgroup.procs"), "{printed}");
            assert!(!printed.contains(&host::namespace()), "{printed}");
        }
    }

    async fn cgroup_tree_is_not_writable_in_a_user_namespace(bench: &Bench) {
        let script = "find /sys/fs/cgroup -mindepth 1 -type d 2>/dev/null | while read d; do \
            mkdir $d/made 2>/dev/null && echo made in $d; \
            for f in tasks cgroup.procs release_agent notify_on_release devices.allow; do \
            (echo 1 > $d/$f) 2>/dev/null && echo wrote $d/$f; done; done; true";
        for has_namespace in [false, true] {
            for bound in [false, true] {
                let made = mapped(Made::script(script)).with(|spec| {
                    let mounts = spec["mounts"].as_array_mut().unwrap();
                    if bound {
                        // As rootless tools show sysfs, where they may not mount one.
                        mounts.retain(|one| one["destination"] != "/sys");
                        mounts.push(json!({ "destination": "/sys", "type": "bind",
                            "source": "/sys", "options": ["rbind", "ro"] }));
                    } else {
                        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
                            "source": "cgroup", "options": ["rw"] }));
                    }
                    let all = spec["linux"]["namespaces"].as_array_mut().unwrap();
                    all.retain(|one| has_namespace || one["type"] != "cgroup");
                });
                match made.create(bench).await {
                    Ok(mut running) => {
                        shim_core::Container::start(&*running.container).await.unwrap();
                        running.wait().await;
                        assert_eq!(running.printed(), "", "{has_namespace} {bound}");
                        running.end_quietly().await;
                    }
                    Err(err) => println!("       {has_namespace} {bound}: {err:#}"),
                }
            }
        }
    }

    async fn rootfs_file_that_is_a_fifo_does_not_hang(bench: &Bench) {
        let made = Made::script("echo $HOME");
        fs::remove_file(made.rootfs().join("etc/passwd")).unwrap();
        unistd::mkfifo(&made.rootfs().join("etc/passwd"), Mode::S_IRWXU).unwrap();
        let limit = Duration::from_secs(10);
        let printed = tokio::time::timeout(limit, made.output(bench)).await.expect("it hangs");
        assert_eq!(printed, "/\n");
    }

    async fn rootfs_file_without_an_end_is_not_read_to_it(bench: &Bench) {
        let made = Made::script("echo $HOME");
        let passwd = File::create(made.rootfs().join("etc/passwd")).unwrap();
        passwd.set_len(1 << 40).unwrap();
        let limit = Duration::from_secs(10);
        let printed = tokio::time::timeout(limit, made.output(bench)).await.expect("it hangs");
        assert_eq!(printed, "/\n");
    }

    async fn rootfs_file_is_never_the_hosts(bench: &Bench) {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("passwd"), "x:x:0:0::/of-the-host:\n").unwrap();
        let made = Made::script("echo $HOME");
        fs::remove_file(made.rootfs().join("etc/passwd")).unwrap();
        let up = "../".repeat(12);
        symlink(format!("{up}{}/passwd", outside.path().display()), made.rootfs().join("etc/passwd")).unwrap();
        assert_eq!(made.output(bench).await, "/\n");
    }
}
