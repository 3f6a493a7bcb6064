//! Hooks: when each runs, what it gets, and what becomes of the container when one fails.

use serde_json::{Value, json};

use super::super::{
    act::Act,
    bundle::{Bundle, Host},
};

/// Writes down its arguments, variables and directory, and the state that it is given.
const TELL: &str = "echo \"$# $* A=$A PATH=$PATH TERM=$TERM in $(pwd)\" >> ${dir}/log\n\
    ${top}/busybox cat > ${dir}/state";

/// The moments whose hooks are programs of the host.
const MOMENTS: [&str; 5] =
    ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = Vec::new();
    for moment in MOMENTS {
        let hook = json!({ "path": "${dir}/hook", "args": ["hook", "x"], "env": ["A=1"] });
        all.push(telling("plain", moment, hook));
        all.push(ending(moment, "${top}/busybox cat > /dev/null; exit 3", None));
    }
    for moment in ["createRuntime", "poststop"] {
        all.push(ending(moment, "exec ${top}/busybox sleep 9", Some(1)));
        all.push(telling("no-arguments", moment, json!({ "path": "${dir}/hook" })));
    }
    all.push(telling("missing", "createRuntime", json!({ "path": "/not/there" })));
    all.push(telling("relative", "createRuntime", json!({ "path": "hook" })));
    all.push(telling(
        "timeout-zero",
        "createRuntime",
        json!({ "path": "${dir}/hook", "timeout": 0 }),
    ));
    all.push(telling(
        "timeout-negative",
        "createRuntime",
        json!({ "path": "${dir}/hook", "timeout": -1 }),
    ));
    all.extend(inside());
    all.push(order());
    all
}

fn hooked(name: &str, hooks: Value) -> Bundle {
    let mut acts = Act::life();
    acts.extend([Act::File("log"), Act::File("state")]);
    Bundle::new(&format!("hooks.{name}"), &[]).patch(json!({ "hooks": hooks })).acting(acts)
}

fn telling(name: &str, moment: &str, hook: Value) -> Bundle {
    let hooks = json!({ moment: [hook] });
    hooked(&format!("{moment}-{name}"), hooks).host([Host::Script("hook", TELL)])
}

/// One that does not end well.
fn ending(moment: &str, line: &'static str, timeout: Option<u32>) -> Bundle {
    let name = if timeout.is_some() { "hangs" } else { "fails" };
    let mut hook = json!({ "path": "${dir}/hook" });
    if let Some(timeout) = timeout {
        hook["timeout"] = timeout.into();
    }
    let second = json!({ "path": "${dir}/second" });
    let hooks = json!({ moment: [hook, second] });
    hooked(&format!("{moment}-{name}"), hooks).host([
        Host::Script("hook", line),
        Host::Script("second", "echo second >> ${dir}/log; ${top}/busybox cat > /dev/null"),
    ])
}

/// In the container, with what is in there.
fn inside() -> Vec<Bundle> {
    let hook = |name: &str, hook: Value, script: &'static str| {
        hooked(&format!("startContainer-{name}"), json!({ "startContainer": [hook] }))
            .host([Host::Script("rootfs/hook", script)])
            .with(|spec| {
                spec["process"]["args"] = json!(["/probe", "read:/log", "read:/state"]);
            })
    };
    const TELL: &str = "echo \"$# $* A=$A PATH=$PATH TERM=$TERM in $(pwd)\" >> /log\n\
        /bin/busybox sed 's/.*\"status\": *\"\\([a-z]*\\)\".*/\\1/' > /state";
    vec![
        hook("plain", json!({ "path": "/hook", "args": ["hook", "x"], "env": ["A=1"] }), TELL),
        hook("no-variables", json!({ "path": "/hook" }), TELL),
        hook("fails", json!({ "path": "/hook" }), "exit 3"),
        hook("missing", json!({ "path": "/not/there" }), "exit 0"),
        hook("as-user", json!({ "path": "/hook" }), "/bin/busybox id > /tmp/id")
            .process(json!({ "user": { "uid": 1000, "gid": 1000 } }))
            .with(|spec| spec["process"]["args"] = json!(["/probe", "read:/tmp/id"])),
    ]
}

/// All moments, two hooks each.
fn order() -> Bundle {
    let two = |moment: &str, hook: &str| {
        let one =
            |number: u32| json!({ "path": hook, "args": [hook, format!("{moment} {number}")] });
        json!([one(1), one(2)])
    };
    let mut hooks = json!({});
    for moment in MOMENTS {
        hooks[moment] = two(moment, "${dir}/hook");
    }
    hooks["startContainer"] = two("startContainer", "/hook");
    hooked("order", hooks)
        .host([
            Host::Script("hook", "echo \"$1\" >> ${dir}/log; ${top}/busybox cat > /dev/null"),
            Host::Script("rootfs/hook", "echo \"$1\" >> /log; /bin/busybox cat > /dev/null"),
            Host::File("state", ""),
        ])
        .with(|spec| spec["process"]["args"] = json!(["/probe", "read:/log"]))
}
