//! What makes no sense: who refuses it, and what is left then.

use serde_json::{Value, json};

use super::super::{
    act::Act,
    bundle::{Bundle, Host},
};

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = programs();
    all.extend(specs());
    for (name, version) in [
        ("version-newer", "1.3.0"),
        ("version-of-the-future", "1.99.0"),
        ("version-2", "2.0.0"),
        ("version-0", "0.9.0"),
        ("version-none", ""),
        ("version-word", "one"),
    ] {
        all.push(patched(name, json!({ "ociVersion": version })));
    }
    all.push(Bundle::new("errors.config-is-no-json", &[]).host([Host::File("other", "{")]).acting(
        [Act::Make(vec![
            "create".to_owned(),
            "--bundle".to_owned(),
            "${dir}/no-such-bundle".to_owned(),
        ])],
    ));
    for (name, id) in [("id-with-slash", "a/b"), ("id-dots", ".."), ("id-with-blank", "a~b")] {
        all.push(
            Bundle::new(&format!("errors.{name}"), &[])
                // Not delete: crun 1.8.1 takes away what is above its folder.
                .acting([Act::verb(&format!("state {id} ALONE"))]),
        );
    }
    all
}

/// Programs that cannot be executed.
fn programs() -> Vec<Bundle> {
    let args = |name: &str, args: Value| {
        Bundle::new(&format!("errors.{name}"), &[]).with(|spec| spec["process"]["args"] = args)
    };
    vec![
        args("no-arguments", json!([])),
        args("empty-argument", json!([""])),
        args("missing-program", json!(["/not/there"])),
        args("program-not-in-path", json!(["nosuchprogram"])),
        args("program-not-executable", json!(["/etc/passwd"])),
        args("program-is-a-folder", json!(["/work"])),
        args("interpreter-missing", json!(["/script"])).host([
            Host::File("rootfs/script", "#!/not/there\n"),
            Host::Mode("rootfs/script", 0o755),
        ]),
        args("program-of-no-format", json!(["/script"]))
            .host([Host::File("rootfs/script", "no format\n"), Host::Mode("rootfs/script", 0o755)]),
        args("program-of-another", json!(["/closed/program"]))
            .host([
                Host::Folder("rootfs/closed"),
                Host::Mode("rootfs/closed", 0o700),
                Host::File("rootfs/closed/program", "#!/bin/sh\n"),
                Host::Mode("rootfs/closed/program", 0o755),
            ])
            .process(json!({ "user": { "uid": 1000, "gid": 1000 } })),
    ]
}

fn patched(name: &str, patch: Value) -> Bundle {
    Bundle::new(&format!("errors.{name}"), &[]).patch(patch)
}

fn specs() -> Vec<Bundle> {
    vec![
        patched("no-process", json!({ "process": null })),
        patched("no-root", json!({ "root": null })),
        patched("no-linux", json!({ "linux": null })),
        patched("root-missing", json!({ "root": { "path": "no-such-folder" } })),
        patched("root-is-a-file", json!({ "root": { "path": "file" } }))
            .host([Host::File("file", "")]),
        patched("cwd-relative", json!({ "process": { "cwd": "work" } })),
        patched("cwd-is-a-file", json!({ "process": { "cwd": "/etc/passwd" } })),
        patched("cwd-empty", json!({ "process": { "cwd": "" } })),
        patched("env-without-sign", json!({ "process": { "env": ["PATH=/bin", "WORD"] } })),
        patched("env-without-name", json!({ "process": { "env": ["PATH=/bin", "=x"] } })),
        patched("argument-with-nul", json!({ "process": { "args": ["/probe", "a\u{0}b"] } })),
        patched(
            "mappings-without-namespace",
            json!({ "linux": {
            "uidMappings": [{ "containerID": 0, "hostID": 0, "size": 1 }] } }),
        ),
        patched("namespace-without-mappings", json!({})).namespace("user", None),
        patched("mount-without-destination", json!({}))
            .mounts(json!({ "type": "tmpfs", "source": "tmpfs" })),
        patched(
            "apparmor-without-apparmor",
            json!({ "process": { "apparmorProfile": "no-such-profile" } }),
        ),
        patched("unknown-field", json!({ "noSuchField": 1, "process": { "noSuch": true } })),
        patched("wrong-type-of-field", json!({ "process": { "cwd": 5 } })),
        patched(
            "io-priority-too-large",
            json!({ "process": { "ioPriority": {
            "class": "IOPRIO_CLASS_BE", "priority": 9 } } }),
        ),
        patched("oom-score-too-large", json!({ "process": { "oomScoreAdj": 1001 } })),
    ]
}
