//! The process: its arguments, variables, directory, signals, scheduling.

use serde_json::json;

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = vec![
        Bundle::new("process.plain", &[]),
        Bundle::new("process.env-order-and-doubles", &[])
            .process(json!({ "env": ["PATH=/bin", "B=2", "A=1", "B=3", "EMPTY="] })),
        Bundle::new("process.env-home-empty", &[])
            .process(json!({ "env": ["PATH=/bin", "HOME="] })),
        Bundle::new("process.env-none", &[]).process(json!({ "env": null })),
        Bundle::new("process.env-not-ascii", &[])
            .process(json!({ "env": ["PATH=/bin", "N=a b=c\té"] })),
        Bundle::new("process.argv-not-plain", &["read:", "read:a b\tc", "read:é"]),
        Bundle::new("process.cwd", &["look:."]).process(json!({ "cwd": "/work" })),
        Bundle::new("process.cwd-missing", &["look:."]).process(json!({ "cwd": "/not/there" })),
        Bundle::new("process.cwd-through-a-symlink", &["look:."])
            .host([Host::Link("rootfs/way", "work")])
            .process(json!({ "cwd": "/way" })),
        Bundle::new("process.cwd-of-nobody-else", &["look:."])
            .host([
                Host::Folder("rootfs/closed"),
                Host::Owner("rootfs/closed", 1000),
                Host::Mode("rootfs/closed", 0o700),
            ])
            .process(json!({ "cwd": "/closed", "user": { "uid": 1000, "gid": 1000 } })),
        Bundle::program("process.found-in-path", &["busybox", "echo", "found"])
            .process(json!({ "env": ["PATH=/sbin:/bin"] })),
        Bundle::program("process.relative-program", &["./busybox", "echo", "found"])
            .process(json!({ "cwd": "/bin" })),
        Bundle::program("process.script", &["/script", "word"])
            .host([Host::Script("rootfs/script", "echo \"$0 $1\"")]),
        Bundle::new("process.keyring", &["run:/bin/busybox grep -c _ses.c1 /proc/keys"])
            .linux(json!({ "maskedPaths": [] })),
        Bundle::new("process.no-root-user-home", &[])
            .process(json!({ "user": { "uid": 1000, "gid": 1000 } })),
        Bundle::new("process.no-new-privileges-off", &[])
            .process(json!({ "noNewPrivileges": false })),
        Bundle::new("process.dumpable-user", &[])
            .process(json!({ "user": { "uid": 1000, "gid": 1000 }, "noNewPrivileges": false })),
    ];
    all.extend(scheduling());
    all
}

fn scheduling() -> Vec<Bundle> {
    const IO: &str = "run:/bin/busybox ionice";
    vec![
        Bundle::new("process.oom-score", &[]).process(json!({ "oomScoreAdj": 321 })),
        Bundle::new("process.oom-score-zero", &[]).process(json!({ "oomScoreAdj": 0 })),
        Bundle::new("process.personality-32-bit", &[])
            .linux(json!({ "personality": { "domain": "LINUX32" } })),
        Bundle::new("process.scheduler-batch", &[])
            .process(json!({ "scheduler": { "policy": "SCHED_BATCH", "nice": 5 } })),
        Bundle::new("process.scheduler-fifo", &[])
            .process(json!({ "scheduler": { "policy": "SCHED_FIFO", "priority": 7 } })),
        Bundle::new("process.scheduler-fifo-reset-on-fork", &[]).process(json!({ "scheduler": {
            "policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] } })),
        Bundle::new("process.io-priority-idle", &[IO])
            .process(json!({ "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 } })),
        Bundle::new("process.io-priority-best-effort", &[IO])
            .process(json!({ "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 } })),
        Bundle::new("process.umask", &[])
            .process(json!({ "user": { "uid": 0, "gid": 0, "umask": 0o77 } })),
        Bundle::new("process.affinity", &[]).process(json!({
            "execCPUAffinity": { "initial": "0", "final": "1" } })),
        Bundle::new("process.memory-policy", &["read:/proc/self/numa_maps"])
            .linux(json!({ "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0" } }))
            .with(|spec| spec["process"]["args"] = json!(["/probe"])),
    ]
}
