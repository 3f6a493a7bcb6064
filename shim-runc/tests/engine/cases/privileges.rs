//! Who the process is and what it may do.

use serde_json::json;
use shim_core::Container;

use super::cases;
use crate::{Bench, bundle::Made};

cases! {
    async fn capabilities_are_exactly_those_of_the_spec(bench: &Bench) {
        let made = Made::script("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | tr '\\t' ' '");
        let expected = "CapInh: 0000000000000000
CapPrm: 00000000a80425fb
CapEff: 00000000a80425fb
CapBnd: 00000000a80425fb
CapAmb: 0000000000000000
NoNewPrivs: 1
Seccomp: 0
";
        assert_eq!(made.output(bench).await, expected);
        let made = made.with(|spec| {
            let caps = json!(["CAP_KILL", "CAP_NET_RAW"]);
            spec["process"]["capabilities"] = json!({ "bounding": caps, "effective": caps,
                "permitted": caps, "inheritable": caps, "ambient": ["CAP_KILL"] });
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            spec["process"]["noNewPrivileges"] = false.into();
        });
        let expected = "CapInh: 0000000000002020
CapPrm: 0000000000000020
CapEff: 0000000000000020
CapBnd: 0000000000002020
CapAmb: 0000000000000020
NoNewPrivs: 0
Seccomp: 0
";
        assert_eq!(made.output(bench).await, expected);
        let made = made.with(|spec| {
            spec["process"].as_object_mut().unwrap().remove("capabilities");
        });
        let printed = made.output(bench).await;
        assert!(printed.contains("CapBnd: 0000000000000000"), "{printed}");
    }

    async fn unknown_capabilities_are_no_error(bench: &Bench) {
        let made = Made::script("grep CapEff /proc/self/status | tr '\\t' ' '").with(|spec| {
            let caps = json!(["CAP_KILL", "CAP_UNHEARD_OF"]);
            spec["process"]["capabilities"] =
                json!({ "bounding": caps, "effective": caps, "permitted": caps });
        });
        assert_eq!(made.output(bench).await, "CapEff: 0000000000000020\n");
    }

    async fn the_user_is_the_one_of_the_spec(bench: &Bench) {
        let made = Made::script("id -u; id -g; id -G; echo $HOME; pwd; umask; touch /tmp/x; \
            stat -c %a /tmp/x; echo out > /dev/stdout")
            .with(|spec| {
                spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001,
                    "additionalGids": [1002, 5], "umask": 0o027 });
                spec["process"]["cwd"] = "/work/dir".into();
            });
        let expected = "1000\n1001\n1001 5 1002\n/home/user\n/work/dir\n0027\n640\nout\n";
        assert_eq!(made.output(bench).await, expected);
        let made = Made::script("echo $HOME; umask")
            .with(|spec| spec["process"]["user"] = json!({ "uid": 4242, "gid": 1 }));
        assert_eq!(made.output(bench).await, "/\n0022\n");
        let made = Made::script("echo $HOME").with(|spec| {
            spec["process"]["env"].as_array_mut().unwrap().push("HOME=/mine".into());
        });
        assert_eq!(made.output(bench).await, "/mine\n");
    }

    async fn a_directory_that_only_the_user_may_enter_is_entered(bench: &Bench) {
        let made = Made::script("pwd").with(|spec| {
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            spec["process"]["cwd"] = "/closed".into();
            spec["process"]["capabilities"] = json!({});
        });
        let closed = made.rootfs().join("closed");
        std::fs::create_dir(&closed).unwrap();
        nix::unistd::chown(&closed, Some(1000.into()), Some(1000.into())).unwrap();
        std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(made.output(bench).await, "/closed\n");
    }

    async fn limits_and_oom_score_are_set(bench: &Bench) {
        let made = Made::script("ulimit -n; ulimit -Hc; cat /proc/self/oom_score_adj").with(|spec| {
            spec["process"]["rlimits"] = json!([
                { "type": "RLIMIT_NOFILE", "soft": 99, "hard": 100 },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ]);
            spec["process"]["oomScoreAdj"] = 500.into();
        });
        assert_eq!(made.output(bench).await, "99\n0\n500\n");
    }

    async fn scheduling_is_set(bench: &Bench) {
        let made = Made::script("cut -d' ' -f19,41 /proc/self/stat; cat /proc/self/personality")
            .with(|spec| {
                spec["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
                spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
                spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
            });
        assert_eq!(made.output(bench).await, "7 3\n00000008\n");
    }

    async fn an_added_process_runs_on_its_own_processors(bench: &Bench) {
        let made = Made::command(&["/bin/sleep", "1000"]).with(|spec| {
            // For added processes alone.
            spec["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "1" });
        });
        let running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let look = ["/bin/grep", "Cpus_allowed_list", "/proc/1/status", "/proc/self/status"];
        let mut process = crate::bundle::process(&look);
        process["execCPUAffinity"] = made.spec["process"]["execCPUAffinity"].clone();
        let (process, output) = running.exec_process("e", process).await.unwrap();
        assert_eq!(process.exit.await.status, shim_core::model::ExitStatus::Code(0));
        let printed = crate::bundle::read_all(output);
        let lists: Vec<_> = printed.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
        assert_eq!(lists[1], "1", "{printed}");
        assert_ne!(lists[0], "1", "{printed}");
        running.end().await;
    }

    async fn memory_comes_from_the_nodes_of_the_spec(bench: &Bench) {
        let made = Made::script("cut -d' ' -f2 /proc/self/numa_maps | sort -u").with(|spec| {
            spec["linux"]["memoryPolicy"] =
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
        });
        let printed = made.output(bench).await;
        assert_eq!(printed, "bind=static:0\n");
    }

    async fn a_session_keyring_of_its_own_is_joined(bench: &Bench) {
        let look = "grep -o '_ses[.].*:' /proc/keys";
        let made = Made::command(&["/bin/sleep", "1000"]).with(|spec| {
            spec["linux"].as_object_mut().unwrap().remove("maskedPaths");
        });
        let running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        for _ in 0..2 {
            let (printed, _) = running.exec_output(&["/bin/sh", "-c", look]).await;
            // Joined by its name: one for all processes.
            assert_eq!(printed.matches(&format!("_ses.{}:", made.id)).count(), 1, "{printed}");
        }
        running.end().await;
        // Another id: a key lives on for a moment after its last user.
        let mut made = Made::command(&["/bin/sleep", "1000"]);
        made.options = Some(crate::bundle::options("NoNewKeyring = true"));
        let running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let (printed, _) = running.exec_output(&["/bin/sh", "-c", look]).await;
        assert!(!printed.contains(&format!("_ses.{}:", made.id)), "{printed}");
        running.end().await;
    }

    async fn system_calls_are_filtered(bench: &Bench) {
        for no_new_privileges in [true, false] {
            let made = Made::script("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status | tr '\\t' ' '")
                .with(|spec| {
                    spec["process"]["noNewPrivileges"] = no_new_privileges.into();
                    spec["linux"]["seccomp"] = json!({
                        "defaultAction": "SCMP_ACT_ALLOW",
                        "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
                            "errnoRet": 1 }],
                    });
                });
            let printed = made.output(bench).await;
            assert_eq!(printed, "mkdir: can't create directory '/tmp/x': Operation not permitted\nSeccomp: 2\n");
        }
    }

    async fn no_descriptor_of_the_shim_is_there(bench: &Bench) {
        let printed = Made::command(&["/bin/ls", "-l", "/proc/self/fd"]).output(bench).await;
        let targets: Vec<_> =
            printed.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, to)| to).collect();
        assert_eq!(targets.len(), 3, "{printed}");
        assert!(targets.iter().all(|target| target.starts_with("pipe:")), "{printed}");
        // The directory that ls read, which it had closed when it asked for the link.
        assert_eq!(printed.lines().last().unwrap().split(' ').next_back(), Some("3"), "{printed}");
    }

    async fn signals_are_all_at_their_defaults(bench: &Bench) {
        let made = Made::command(&["/bin/grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]);
        let printed = made.output(bench).await;
        assert!(printed.lines().all(|line| line.ends_with("0000000000000000")), "{printed}");
    }
}
