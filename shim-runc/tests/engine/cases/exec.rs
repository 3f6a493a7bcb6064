//! Added processes.

use serde_json::json;
use shim_core::{
    Container, Target,
    model::{ExecId, ExitStatus, Signal},
};

use super::cases;
use crate::{
    Bench,
    bundle::{Made, Running, process, read_all, read_until},
    host,
};

async fn sleeper(bench: &Bench) -> Running {
    let running = Made::command(&["/bin/sleep", "1000"]).create(bench).await.unwrap();
    running.container.start().await.unwrap();
    running
}

cases! {
    async fn a_process_joins_all_of_the_container(bench: &Bench) {
        let running = sleeper(bench).await;
        let script = "for n in mnt pid net ipc uts cgroup; do \
            [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done; \
            hostname; ls /; ps | grep -c 'slee[p] 1000'; \
            cmp -s /proc/self/cgroup /proc/1/cgroup; cat /proc/self/cgroup > /tmp/a; cat /proc/1/cgroup > /tmp/b; \
            [ \"$(cat /tmp/a)\" = \"$(cat /tmp/b)\" ] && echo same; exit 3";
        let (printed, status) = running.exec_output(&["/bin/sh", "-c", script]).await;
        let expected = "box\nbin\ndev\netc\nproc\nroot\nrun\nsys\ntmp\n1\nsame\n";
        assert_eq!(printed.replace("/bin/sh: cmp: not found\n", ""), expected);
        assert_eq!(status, ExitStatus::Code(3));
        // The shim is where it was, and so is the stem.
        assert_eq!(Made::script("echo $$").output(bench).await, "1\n");
        running.end().await;
    }

    async fn it_goes_where_a_container_that_divides_its_cgroup_has_gone(bench: &Bench) {
        if !host::is_unified() {
            return println!("       skipped: on v1 every cgroup may hold processes");
        }
        let script = "cd /sys/fs/cgroup && mkdir -p inner && echo 1 > inner/cgroup.procs && \
            echo +pids > cgroup.subtree_control && echo divided; exec sleep 1000";
        let made = Made::script(script).with(|spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }));
        });
        let running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        read_until(running.output.as_ref().unwrap(), "divided\n");
        let (printed, _) = running.exec_output(&["/bin/cat", "/proc/self/cgroup"]).await;
        assert_eq!(printed, "0::/inner\n");
        running.end().await;
    }

    async fn its_privileges_are_its_own(bench: &Bench) {
        let running = sleeper(bench).await;
        let mut one = process(&["/bin/sh", "-c", "id -u; id -g; echo $HOME; pwd; \
            grep -E 'Cap|NoNew' /proc/self/status | tr '\\t' ' '; ulimit -n; ls /proc/self/fd | wc -l"]);
        one["user"] = json!({ "uid": 1000, "gid": 1000 });
        one["cwd"] = "/tmp".into();
        one["capabilities"] = json!({ "bounding": ["CAP_KILL"] });
        one["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 78 }]);
        let (started, output) = running.exec_process("e", one).await.unwrap();
        assert_eq!(started.exit.await.status, ExitStatus::Code(0));
        let zero = "0000000000000000";
        let expected = format!("1000\n1000\n/home/user\n/tmp\nCapInh: {zero}\nCapPrm: {zero}
CapEff: {zero}\nCapBnd: 0000000000000020\nCapAmb: {zero}\nNoNewPrivs: 1\n77\n4\n");
        assert_eq!(read_all(output), expected);
        running.end().await;
    }

    async fn its_end_can_be_asked_for(bench: &Bench) {
        let running = sleeper(bench).await;
        let (started, output) = running.exec("e", &["/bin/sleep", "1000"]).await.unwrap();
        let id = ExecId::parse("e").unwrap();
        let target = Target::Exec { id: &id, pid: started.pid };
        let mut pids = running.container.pids().await.unwrap();
        pids.sort();
        let mut expected = [running.init.as_ref().unwrap().pid, started.pid];
        expected.sort();
        assert_eq!(pids, expected);
        running.container.kill(target, Signal::parse(34).unwrap()).await.unwrap();
        assert_eq!(started.exit.await.status.wire(), 128 + 34);
        let err = running.container.kill(target, Signal::TERM).await.unwrap_err();
        assert_eq!(err.kind(), shim_core::Kind::NotFound);
        drop(output);
        running.end().await;
    }

    async fn one_that_cannot_run_says_why(bench: &Bench) {
        let running = sleeper(bench).await;
        for (args, expected) in [
            (["nope"], r#"exec: "nope": executable file not found in $PATH"#),
            (["/nope"], r#"exec: "/nope": stat /nope: no such file or directory"#),
            (["/etc/passwd"], r#"exec: "/etc/passwd": permission denied"#),
            (["/etc"], r#"exec: "/etc": is a directory"#),
        ] {
            let err = running.exec("e", &args).await.unwrap_err();
            assert_eq!(format!("{err:#}"), expected);
        }
        let mut one = process(&["/bin/true"]);
        one["cwd"] = "/nowhere".into();
        let err = running.exec_process("e", one).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "change to directory /nowhere: ENOENT: No such file or directory");
        assert_eq!(running.container.pids().await.unwrap().len(), 1);
        running.end().await;
    }

    async fn one_into_a_dead_container_is_refused(bench: &Bench) {
        let mut running = sleeper(bench).await;
        running.container.kill(Target::Init, Signal::KILL).await.unwrap();
        running.wait().await;
        let err = running.exec("e", &["/bin/true"]).await.unwrap_err();
        assert!(format!("{err:#}").contains("join"), "{err:#}");
        running.container.delete().await.unwrap();
    }

    async fn many_in_a_row(bench: &Bench) {
        let running = sleeper(bench).await;
        let mut times = Vec::new();
        for _ in 0..200 {
            let begun = std::time::Instant::now();
            let (started, output) = running.exec("e", &["/bin/true"]).await.unwrap();
            let up = begun.elapsed();
            started.exit.await;
            times.push((up, begun.elapsed()));
            drop(output);
        }
        times.sort();
        let (up, all) = times[100];
        println!("       exec    min {:>9.1?}  med {up:>9.1?}  until its end {all:.1?}", times[0].0);
        running.end().await;
    }

    async fn it_is_filtered_like_the_container(bench: &Bench) {
        let made = Made::command(&["/bin/sleep", "1000"]).with(|spec| {
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
            });
        });
        let running = made.create(bench).await.unwrap();
        running.container.start().await.unwrap();
        let (printed, _) = running.exec_output(&["/bin/mkdir", "/tmp/x"]).await;
        assert_eq!(printed, "mkdir: can't create directory '/tmp/x': Operation not permitted\n");
        running.end().await;
    }
}
