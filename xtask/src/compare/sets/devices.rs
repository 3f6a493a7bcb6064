//! Devices: the nodes in `/dev`, and what the cgroup lets through.

use serde_json::{Value, json};

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = fuse();
    all.extend(others());
    all.extend(rules());
    all
}

/// The same node, in many ways.
fn fuse() -> Vec<Bundle> {
    let fuse = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 });
    let with = |mut device: Value, more: Value| {
        device.as_object_mut().expect("it is one").extend(more.as_object().expect("one").clone());
        device
    };
    let plain = |name: &str, device: &Value| one(name, device.clone(), &["look:/dev/fuse"]);
    vec![
        plain("more", &fuse),
        plain(
            "mode-and-owner",
            &with(fuse.clone(), json!({ "fileMode": 0o640, "uid": 1000, "gid": 2000 })),
        ),
        plain("mode-with-type-bits", &with(fuse.clone(), json!({ "fileMode": 0o020_600 }))),
        plain("unbuffered", &with(fuse.clone(), json!({ "type": "u" }))),
        plain("type-unknown", &with(fuse.clone(), json!({ "type": "x" }))),
        plain("type-any", &with(fuse.clone(), json!({ "type": "a" }))),
        plain("twice", &fuse).with(|spec| {
            let again = spec["linux"]["devices"][0].clone();
            spec["linux"]["devices"].as_array_mut().expect("it is one").push(again);
        }),
    ]
}

fn others() -> Vec<Bundle> {
    vec![
        one(
            "block",
            json!({ "path": "/dev/disk", "type": "b", "major": 7, "minor": 200 }),
            &["look:/dev/disk"],
        ),
        one(
            "fifo",
            json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o644 }),
            &["look:/dev/pipe"],
        ),
        one(
            "instead-of-a-default",
            json!({ "path": "/dev/null", "type": "c", "major": 1,
            "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8 }),
            &["look:/dev/null"],
        ),
        one(
            "in-a-folder",
            json!({ "path": "/dev/net/tun", "type": "c", "major": 10,
            "minor": 200 }),
            &["look:/dev/net", "look:/dev/net/tun", "open:/dev/net/tun"],
        ),
        one(
            "not-in-dev",
            json!({ "path": "/work/fuse", "type": "c", "major": 10, "minor": 229 }),
            &["look:/work/fuse"],
        ),
        one(
            "relative",
            json!({ "path": "dev/x", "type": "c", "major": 1, "minor": 3 }),
            &["look:/dev/x"],
        ),
        one("no-number", json!({ "path": "/dev/x", "type": "c" }), &["look:/dev/x"]),
        one(
            "over-a-file-of-the-image",
            json!({ "path": "/work/x", "type": "c", "major": 1,
            "minor": 3 }),
            &["look:/work/x"],
        )
        .host([Host::File("rootfs/work/x", "text")]),
    ]
}

fn one(name: &str, device: Value, questions: &[&str]) -> Bundle {
    Bundle::new(&format!("devices.{name}"), questions).linux(json!({ "devices": [device] }))
}

fn rules() -> Vec<Bundle> {
    let questions = [
        "node:/tmp/null=c:1:3",
        "node:/tmp/kmsg=c:1:11",
        "node:/tmp/fuse=c:10:229",
        "node:/tmp/loop=b:7:0",
        "open:/dev/random",
    ];
    let rules = |name: &str, rules: Value| {
        Bundle::new(&format!("devices.rules-{name}"), &questions)
            .resources(json!({ "devices": rules }))
            .with(|spec| {
                for set in ["bounding", "effective", "permitted"] {
                    spec["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
                }
            })
    };
    let deny = json!({ "allow": false, "access": "rwm" });
    vec![
        rules("none", json!([])),
        rules("deny-all", json!([deny])),
        rules("allow-all", json!([{ "allow": true, "access": "rwm" }])),
        rules(
            "one",
            json!([deny, { "allow": true, "type": "c", "major": 1, "minor": 11,
            "access": "rw" }]),
        ),
        rules(
            "any-minor",
            json!([deny, { "allow": true, "type": "c", "major": 10,
            "access": "rwm" }]),
        ),
        rules(
            "read-only",
            json!([deny, { "allow": true, "type": "c", "major": 1, "minor": 11,
            "access": "r" }]),
        ),
        rules(
            "all-but-one",
            json!([{ "allow": true, "access": "rwm" },
            { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm" }]),
        ),
        rules("block", json!([deny, { "allow": true, "type": "b", "access": "rwm" }])),
        rules("type-all", json!([{ "allow": false, "type": "a", "access": "rwm" }])),
        rules(
            "deny-a-default",
            json!([deny, { "allow": false, "type": "c", "major": 1,
            "minor": 8, "access": "rwm" }]),
        ),
        rules(
            "bad-access",
            json!([{ "allow": true, "type": "c", "major": 1, "minor": 11,
            "access": "xyz" }]),
        ),
    ]
}
