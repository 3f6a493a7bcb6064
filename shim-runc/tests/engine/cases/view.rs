//! What a container sees of itself.

use shim_core::{
    Backend, Container, Target,
    model::{ExitStatus, Signal},
};

use super::cases;
use crate::{Bench, bench, bundle::Made};

cases! {
    async fn a_container_runs_and_says_how_it_ended(bench: &Bench) {
        let (printed, status) = Made::script("echo hello; exit 7").run(bench).await;
        assert_eq!((printed.as_str(), status), ("hello\n", ExitStatus::Code(7)));
        let (_, status) = Made::script("kill -9 $$").run(bench).await;
        // Without a handler a signal from inside can't kill a namespace's first process.
        assert_eq!(status, ExitStatus::Code(0));
    }

    async fn a_signal_from_outside_ends_it(bench: &Bench) {
        let mut running = Made::command(&["/bin/sleep", "100"]).create(bench).await.unwrap();
        running.container.start().await.unwrap();
        running.container.kill(Target::Init, Signal::KILL).await.unwrap();
        assert_eq!(running.wait().await, ExitStatus::Signal(Signal::KILL));
        let err = running.container.kill(Target::Init, Signal::TERM).await.unwrap_err();
        assert_eq!(err.kind(), shim_core::Kind::NotFound);
        running.container.kill(Target::All, Signal::KILL).await.unwrap();
        running.container.delete().await.unwrap();
    }

    async fn it_is_the_first_process_and_alone(bench: &Bench) {
        let printed = Made::script("echo $$; echo /proc/[0-9]*; hostname; ip link | grep -c UP")
            .output(bench)
            .await;
        assert_eq!(printed, "1\n/proc/1\nbox\n1\n");
    }

    async fn its_root_is_the_root_filesystem(bench: &Bench) {
        let printed = Made::script("ls /; readlink /proc/1/root; ls /proc/1/fd; true").output(bench).await;
        let expected = "bin\ndev\netc\nproc\nroot\nrun\nsys\ntmp\n/\n0\n1\n2\n";
        // ash keeps a script of -c in no descriptor.
        assert_eq!(printed, expected);
    }

    async fn only_its_own_mounts_are_there(bench: &Bench) {
        let printed = Made::script("cut -d' ' -f5 /proc/self/mountinfo | sort").output(bench).await;
        let all: Vec<_> = printed.lines().collect();
        assert_eq!(all[0], "/");
        let known = ["/", "/dev", "/proc", "/sys", "/run"];
        assert!(all.iter().all(|target| known.iter().any(|known| target.starts_with(known))));
        assert!(!printed.contains("cgroup") && !printed.contains("rootfs"), "{printed}");
    }

    async fn its_devices_are_the_usual_ones(bench: &Bench) {
        let script = "for d in null zero full random urandom tty; do stat -c '%n %F %t,%T %a' /dev/$d; done;
            for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; head -c 3 /dev/zero | wc -c";
        let printed = Made::script(script).output(bench).await;
        let expected = "/dev/null character special file 1,3 666
/dev/zero character special file 1,5 666
/dev/full character special file 1,7 666
/dev/random character special file 1,8 666
/dev/urandom character special file 1,9 666
/dev/tty character special file 5,0 666
/proc/self/fd
/proc/self/fd/0
/proc/self/fd/1
/proc/self/fd/2
pts/ptmx
3
";
        assert_eq!(printed, expected);
    }

    async fn devices_of_the_spec_are_made(bench: &Bench) {
        let made = Made::script("stat -c '%n %F %t,%T %a %u:%g' /dev/fuse /dev/sub/loop /dev/pipe")
            .with(|spec| {
                spec["linux"]["devices"] = serde_json::json!([
                    { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
                      "fileMode": 0o620, "uid": 3, "gid": 4 },
                    { "path": "/dev/sub/loop", "type": "b", "major": 7, "minor": 1 },
                    { "path": "/dev/pipe", "type": "p", "major": 0, "minor": 0, "fileMode": 0o600 },
                ]);
            });
        let expected = "/dev/fuse character special file a,e5 620 3:4
/dev/sub/loop block special file 7,1 666 0:0
/dev/pipe fifo 0,0 600 0:0
";
        assert_eq!(made.output(bench).await, expected);
    }

    async fn masked_and_read_only_paths_are(bench: &Bench) {
        let script = "cat /proc/keys | wc -c; ls /sys/firmware | wc -l; ls /proc/acpi | wc -l;
            touch /sys/firmware/x 2>&1; echo 1 > /proc/sys/kernel/panic;
            stat -c %t,%T /proc/keys; grep -c '/proc/sys ro' /proc/self/mountinfo";
        let (printed, _) = Made::script(script).run(bench).await;
        let expected = "0\n0\n0\ntouch: /sys/firmware/x: Read-only file system
/bin/sh: can't create /proc/sys/kernel/panic: Read-only file system\n1,3\n1\n";
        assert_eq!(printed.replace("sh: line 1", "/bin/sh"), expected);
    }

    async fn the_root_filesystem_can_be_read_only(bench: &Bench) {
        let made = Made::script("touch /x 2>&1; touch /dev/x /run/x && echo ok")
            .with(|spec| spec["root"]["readonly"] = true.into());
        let (printed, _) = made.run(bench).await;
        assert_eq!(printed, "touch: /x: Read-only file system\nok\n");
    }

    async fn names_and_parameters_are_its_own(bench: &Bench) {
        let made = Made::script("hostname; cat /proc/sys/kernel/domainname \
            /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_default_ttl /proc/sys/net/ipv4/conf/lo/forwarding")
            .with(|spec| {
                spec["hostname"] = "web-1".into();
                spec["domainname"] = "example".into();
                spec["linux"]["sysctl"] = serde_json::json!({
                    "kernel.shmmni": "77", "net.ipv4.ip_default_ttl": "42",
                    "net/ipv4/conf/lo/forwarding": "1",
                });
            });
        assert_eq!(made.output(bench).await, "web-1\nexample\n77\n42\n1\n");
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), "77\n");
    }

    async fn a_time_namespace_has_its_own_clock(bench: &Bench) {
        let made = Made::script("cut -d. -f1 /proc/uptime").with(|spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(
                serde_json::json!({ "type": "time" }));
            spec["linux"]["timeOffsets"] = serde_json::json!({ "boottime": { "secs": 7_000_000 } });
        });
        let uptime: u64 = made.output(bench).await.trim().parse().unwrap();
        assert!(uptime >= 7_000_000, "{uptime}");
        // The stem is back in its own.
        let uptime: u64 =
            Made::script("cut -d. -f1 /proc/uptime").output(bench).await.trim().parse().unwrap();
        assert!(uptime < 7_000_000, "{uptime}");
    }

    async fn namespaces_are_joined_by_path(bench: &Bench) {
        let sandbox = Made::command(&["/bin/sleep", "100"]).create(bench).await.unwrap();
        sandbox.container.start().await.unwrap();
        let pid = sandbox.init.as_ref().unwrap().pid;
        let made = Made::script("for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; echo $$")
            .with(|spec| {
                let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
                spec["hostname"] = "".into();
                spec["linux"]["namespaces"] = serde_json::json!([
                    { "type": "network", "path": path("net") },
                    { "type": "ipc", "path": path("ipc") },
                    { "type": "uts", "path": path("uts") },
                    { "type": "pid", "path": path("pid") },
                    { "type": "mount" },
                ]);
            });
        let printed = made.output(bench).await;
        let lines: Vec<_> = printed.lines().collect();
        for (line, kind) in lines.iter().zip(["net", "ipc", "uts", "pid"]) {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_eq!(*line, link.to_str().unwrap());
        }
        assert_ne!(lines[4], "1");
        sandbox.end().await;
    }

    async fn what_outlives_init_in_a_shared_pid_namespace_is_killed(bench: &Bench) {
        let made = Made::script("sleep 1000 & sleep 1000 & echo started").with(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|namespace| namespace["type"] != "pid");
        });
        assert_eq!(made.output(bench).await, "started\n");
    }

    async fn a_container_that_never_started_can_be_deleted(bench: &Bench) {
        let mut running = Made::script("echo never").create(bench).await.unwrap();
        assert_eq!(running.container.pids().await.unwrap(), [running.init.as_ref().unwrap().pid]);
        running.container.delete().await.unwrap();
        assert_eq!(running.wait().await, ExitStatus::Signal(Signal::KILL));
        assert_eq!(running.printed(), "");
    }

    async fn what_a_dead_shim_left_is_cleaned_up(bench: &Bench) {
        let made = Made::script("sleep 1000 & sleep 1000");
        let mut running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let cleaned = std::thread::scope(|scope| {
            scope.spawn(|| bench.backend.clean_up(&bench.host.namespace, &made.id, &made.bundle())).join().unwrap()
        });
        cleaned.unwrap();
        assert_eq!(running.wait().await, ExitStatus::Signal(Signal::KILL));
        bench.backend.clean_up(&bench.host.namespace, &made.id, &made.bundle()).unwrap();
    }

    async fn without_pivot_root_it_works_too(bench: &Bench) {
        let mut made = Made::script("ls /; mount | grep -c ' / '; ls /proc/1/root/../..; cat /proc/keys | wc -c");
        made.options = Some(crate::bundle::options("NoPivotRoot = true"));
        let (printed, _) = made.run(bench).await;
        assert!(printed.starts_with("bin\ndev\netc\nproc\nroot\nrun\nsys\ntmp\n"), "{printed}");
        assert!(printed.ends_with("\n0\n"), "{printed}");
        let running = Made::command(&["/bin/sleep", "9"]);
        let running = Made { options: made.options, ..running }.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let (printed, _) = running.exec_output(&["/bin/ls", "/"]).await;
        assert_eq!(printed, "bin\ndev\netc\nproc\nroot\nrun\nsys\ntmp\n");
        running.end().await;
    }

    async fn many_containers_in_a_row(bench: &Bench) {
        bench::many(bench, 200).await;
    }
}
