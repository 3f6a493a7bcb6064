//! Added processes: what they inherit, and what the flags of exec change.

use serde_json::{Value, json};

use super::super::{
    act::Act,
    bundle::{Bundle, Host},
};

pub(super) fn bundles() -> Vec<Bundle> {
    let user = json!({ "user": { "uid": 1000, "gid": 1000, "additionalGids": [7] } });
    let mut all = vec![
        added("plain", ""),
        added("variables", "--env A=1 --env PATH=/bin"),
        added("directory", "--cwd /work"),
        added("directory-missing", "--cwd /not/there"),
        added("user", "--user 1000:1001"),
        added("user-without-group", "--user 1000"),
        added("user-by-name", "--user user"),
        added("capability", "--cap CAP_CHOWN"),
        added("capability-as-user", "--cap CAP_CHOWN --user 1000"),
        added("capability-unknown", "--cap CAP_NO_SUCH"),
        added("no-new-privileges", "--no-new-privs").process(json!({ "noNewPrivileges": false })),
        added("of-a-user", "").process(user.clone()),
        added("of-a-user-as-root", "--user 0").process(user),
        added("of-a-user-namespace", "").users(),
        added("of-a-cgroup-namespace", "").namespace("cgroup", None),
        added("without-pid-namespace", "").without("pid"),
        added("with-seccomp", "").linux(json!({ "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] } })),
        added("with-oom-score", "").process(json!({ "oomScoreAdj": 200 })),
        added("with-personality", "").linux(json!({ "personality": { "domain": "LINUX32" } })),
        added("with-scheduler", "")
            .process(json!({ "scheduler": { "policy": "SCHED_BATCH", "nice": 4 } })),
        added("with-umask", "").process(json!({ "user": { "uid": 0, "gid": 0, "umask": 0o77 } })),
        added("with-time-offsets", "")
            .namespace("time", None)
            .linux(json!({ "timeOffsets": { "monotonic": { "secs": 1000 } } })),
        called("exit-code", "exec ID /probe exit:42"),
        called("exit-by-signal", "exec ID /probe signal:15"),
        called("missing-program", "exec ID /not/there"),
        called("not-executable", "exec ID /etc/passwd"),
        called("folder", "exec ID /work"),
        called("not-in-path", "exec ID nosuchprogram"),
        called("no-program", "exec ID"),
        called("no-such-container", "exec nobody /probe ALONE"),
        called("program-with-flags", "exec ID /bin/busybox echo -n --x"),
        called("in-path", "exec ID busybox echo found"),
        called("on-terminal-without-socket", "exec --tty --detach ID /probe"),
        called("of-a-cgroup", "exec --cgroup sub ID /probe read:/proc/self/cgroup"),
    ];
    all.extend(by_file());
    all.extend(at_other_times());
    all
}

/// The probe is added, with these flags.
fn added(name: &str, flags: &str) -> Bundle {
    let line = format!("exec {flags} ID /probe call:mkdir look:/tmp");
    called(name, &line.replace("  ", " "))
}

fn called(name: &str, line: &str) -> Bundle {
    let exec = Act::tell(line);
    Bundle::lasting(&format!("exec.{name}"), Act::during([exec]))
        .process(json!({ "capabilities": { "inheritable": ["CAP_KILL"] } }))
}

fn by_file() -> Vec<Bundle> {
    let by_file = |name: &str, process: Value| {
        let text = process.to_string().leak();
        Bundle::lasting(
            &format!("exec.file-{name}"),
            Act::during([Act::tell("exec --process ${dir}/process.json ID")]),
        )
        .host([Host::File("process.json", text)])
    };
    let least = json!({ "args": ["/probe"], "cwd": "/", "user": { "uid": 0, "gid": 0 } });
    let with = |more: Value| {
        let mut process = least.clone();
        process.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        process
    };
    vec![
        by_file("least", least.clone()),
        by_file(
            "most",
            with(json!({
            "cwd": "/work", "env": ["X=1"], "oomScoreAdj": 77, "noNewPrivileges": true,
            "user": { "uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o27 },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 55, "hard": 66 }],
            "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] } })),
        ),
        by_file(
            "scheduling",
            with(json!({
            "scheduler": { "policy": "SCHED_BATCH", "nice": 6 },
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 } })),
        ),
        by_file("no-arguments", with(json!({ "args": [] }))),
        by_file("relative-directory", with(json!({ "cwd": "work" }))),
        by_file("not-json", json!("x")),
        by_file("affinity", with(json!({ "execCPUAffinity": { "initial": "0", "final": "0" } }))),
    ]
}

fn at_other_times() -> Vec<Bundle> {
    let exec = || Act::tell("exec ID /bin/busybox echo there");
    let stage = |name: &str, acts: Vec<Act>| Bundle::lasting(&format!("exec.{name}"), acts);
    let mut ended = Act::begin();
    ended.extend([Act::verb("kill ID KILL"), Act::Ended, exec(), Act::verb("delete")]);
    vec![
        stage("before-start", vec![Act::create(), exec(), Act::verb("delete --force")]),
        stage("after-the-end", ended),
        stage("paused", Act::during([Act::verb("pause"), exec(), Act::verb("resume"), exec()])),
        stage("two", Act::during([exec(), exec()])),
    ]
}
