//! Capabilities: the five sets, as root and as a user.

use serde_json::{Value, json};

use super::super::bundle::Bundle;

pub(super) fn bundles() -> Vec<Bundle> {
    let some = ["CAP_KILL", "CAP_CHOWN"];
    let user = json!({ "uid": 1000, "gid": 1000 });
    vec![
        sets("capabilities.none", json!({})),
        Bundle::new("capabilities.not-named", &[]).process(json!({ "capabilities": null })),
        sets("capabilities.bounding-only", json!({ "bounding": some })),
        sets(
            "capabilities.inheritable",
            json!({ "bounding": some, "permitted": some, "inheritable": some, "effective": [] }),
        ),
        sets(
            "capabilities.ambient",
            json!({ "bounding": some, "permitted": some, "inheritable": some,
                "effective": some, "ambient": ["CAP_KILL"] }),
        ),
        sets(
            "capabilities.ambient-as-user",
            json!({ "bounding": some, "permitted": some, "inheritable": some,
                "effective": some, "ambient": some }),
        )
        .process(json!({ "user": user })),
        sets(
            "capabilities.ambient-not-inheritable",
            json!({ "bounding": some, "permitted": some, "effective": some, "ambient": some }),
        )
        .process(json!({ "user": user })),
        sets(
            "capabilities.effective-more-than-permitted",
            json!({ "bounding": some, "permitted": ["CAP_KILL"], "effective": some }),
        ),
        sets(
            "capabilities.permitted-more-than-bounding",
            json!({ "bounding": ["CAP_KILL"], "permitted": some, "effective": some }),
        ),
        sets("capabilities.unknown", json!({ "bounding": ["CAP_KILL", "CAP_NO_SUCH"] })),
        sets("capabilities.lower-case", json!({ "bounding": ["cap_kill"], "permitted": [] })),
        sets("capabilities.without-prefix", json!({ "bounding": ["KILL"] })),
        sets(
            "capabilities.newest",
            json!({ "bounding": ["CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE"] }),
        ),
        sets(
            "capabilities.privileges-of-a-user",
            json!({
            "bounding": some, "permitted": some, "effective": some }),
        )
        .process(json!({ "user": user, "noNewPrivileges": false })),
    ]
}

/// These sets and no others.
fn sets(name: &str, sets: Value) -> Bundle {
    Bundle::new(name, &["call:chroot", "call:setgid"]).with(|spec| {
        spec["process"]["capabilities"] = sets;
    })
}
