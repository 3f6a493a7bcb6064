//! A life: states, exit codes, signals, and verbs at the wrong time.

use serde_json::json;

use super::super::{
    act::Act,
    bundle::{Bundle, Host},
};

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = ends();
    all.extend(states());
    all.extend(wrong_times());
    all
}

fn ends() -> Vec<Bundle> {
    let run = |name: &str, questions: &[&str]| {
        Bundle::new(&format!("life.{name}"), questions).acting([Act::run(), Act::tell("state")])
    };
    let script = |name: &str, args: &[&str]| {
        Bundle::program(&format!("life.{name}"), args).acting([Act::run(), Act::tell("state")])
    };
    let trap = "trap 'echo caught; exit 9' TERM HUP USR1; echo ready; \
        while :; do /bin/busybox sleep 1 & wait $!; done";
    let trapped = |name: &str, verb: &str| {
        let mut acts = Act::begin();
        acts.extend([Act::verb(verb), Act::Ended, Act::tell("state"), Act::verb("delete")]);
        Bundle::program(&format!("life.{name}"), &["/bin/sh", "-c", trap]).acting(acts)
    };
    vec![
        run("run", &[]),
        run("run-exit-code", &["exit:7"]),
        run("run-exit-255", &["exit:255"]),
        script("run-signal", &["/bin/sh", "-c", "/bin/busybox sleep 9 & kill -TERM $!; wait $!"]),
        run("run-killed-by-itself", &["signal:9"]).without("pid"),
        run("run-aborted", &["signal:6"]).without("pid"),
        script("run-leaves-a-child", &["/bin/sh", "-c", "/bin/busybox sleep 50 & exit 4"]),
        script(
            "run-leaves-a-child-in-the-hosts-pids",
            &["/bin/sh", "-c", "/bin/busybox sleep 50 > /dev/null 2>&1 & exit 4"],
        )
        .without("pid"),
        script("run-writes-both-streams", &["/bin/sh", "-c", "echo out; echo err >&2"]),
        run("run-missing-program", &[])
            .with(|spec| spec["process"]["args"] = json!(["/not/there"])),
        trapped("term", "kill ID TERM"),
        trapped("default-signal", "kill ID"),
        trapped("signal-with-prefix", "kill ID SIGHUP"),
        trapped("signal-lower-case", "kill ID usr1"),
        trapped("signal-number", "kill ID 10"),
        trapped("kill-all", "kill --all ID KILL"),
    ]
}

fn states() -> Vec<Bundle> {
    let state = || Act::tell("state");
    let lasting = |name: &str, acts: Vec<Act>| Bundle::lasting(&format!("life.{name}"), acts);
    let mut all_states = vec![Act::create(), state(), Act::verb("start"), Act::Ready, state()];
    all_states.extend([Act::verb("pause"), state(), Act::verb("resume"), state()]);
    all_states.extend([Act::verb("kill ID KILL"), Act::Ended, state(), Act::verb("delete")]);
    all_states.push(state());
    let listed = Act::during([Act::tell("list --quiet ALONE"), Act::verb("ps --format json ID")]);
    vec![
        lasting("states", all_states),
        lasting("annotations", vec![Act::create(), state(), Act::verb("delete --force")])
            .patch(json!({ "annotations": { "org.example.a": "b" } })),
        lasting(
            "kill-before-start",
            vec![
                Act::create(),
                Act::verb("kill ID KILL"),
                Act::Ended,
                state(),
                Act::verb("delete"),
            ],
        ),
        lasting("delete-before-start", vec![Act::create(), Act::verb("delete"), state()]),
        lasting(
            "kill-paused",
            Act::during([Act::verb("pause"), Act::verb("kill ID KILL"), Act::verb("resume")]),
        ),
        lasting("delete-force-paused", {
            let mut acts = Act::begin();
            acts.extend([Act::verb("pause"), Act::verb("delete --force")]);
            acts
        }),
        lasting("listed", listed).with(|spec| spec["process"]["args"] = json!(["/probe", "stay"])),
        Bundle::program("life.start-fails", &["/script"])
            .host([
                Host::File("rootfs/script", "#!/not/there\n"),
                Host::Mode("rootfs/script", 0o755),
            ])
            .acting([Act::create(), Act::verb("start"), state(), Act::verb("delete --force")]),
    ]
}

fn wrong_times() -> Vec<Bundle> {
    let lasting = |name: &str, acts: Vec<Act>| Bundle::lasting(&format!("life.{name}"), acts);
    let during = |name: &str, lines: &[&str]| {
        lasting(name, Act::during(lines.iter().map(|line| Act::verb(line))))
    };
    let ended = |name: &str, lines: &[&str]| {
        let mut acts = Act::begin();
        acts.extend([Act::verb("kill ID KILL"), Act::Ended]);
        acts.extend(lines.iter().map(|line| Act::verb(line)));
        acts.push(Act::verb("delete --force"));
        lasting(name, acts)
    };
    vec![
        during("start-twice", &["start"]),
        during("create-twice", &["create"]),
        during("delete-running", &["delete"]),
        during("pause-twice", &["pause", "pause", "resume", "resume"]),
        during("resume-running", &["resume"]),
        during("bad-signal", &["kill ID NOSUCH", "kill ID 0", "kill ID 999"]),
        ended("start-ended", &["start"]),
        ended("kill-ended", &["kill ID KILL", "kill ID TERM"]),
        ended("pause-ended", &["pause", "resume"]),
        ended("update-ended", &["update --memory 33554432 ID"]),
        lasting(
            "pause-before-start",
            vec![
                Act::create(),
                Act::verb("pause"),
                Act::tell("state"),
                Act::verb("resume"),
                Act::verb("delete --force"),
            ],
        ),
        lasting(
            "nobody",
            ["start", "state", "kill ID KILL", "delete", "delete --force", "pause", "resume", "ps"]
                .map(Act::verb)
                .into(),
        ),
    ]
}
