//! Who hears of mounts: the root filesystem's propagation, and each mount's own.

use serde_json::json;

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let root = |name: &str, asked: &str| {
        shared(&format!("propagation.{name}"), &["rbind"])
            .linux(json!({ "rootfsPropagation": asked }))
    };
    vec![
        root("root-private", "private"),
        root("root-rprivate", "rprivate"),
        root("root-slave", "slave"),
        root("root-rslave", "rslave"),
        root("root-shared", "shared"),
        root("root-rshared", "rshared"),
        root("root-unbindable", "unbindable"),
        root("root-unknown", "loud"),
        root("root-empty", ""),
        shared("propagation.of-a-shared-source", &["rbind"]),
        shared("propagation.mount-private", &["rbind", "rprivate"]),
        shared("propagation.mount-slave", &["rbind", "rslave"]),
        shared("propagation.mount-shared", &["rbind", "rshared"]),
        shared("propagation.mount-shared-in-shared-root", &["rbind", "rshared"])
            .linux(json!({ "rootfsPropagation": "rshared" })),
        shared("propagation.mount-unbindable", &["rbind", "unbindable"]),
        shared("propagation.mount-two", &["rbind", "rslave", "rshared"])
            .linux(json!({ "rootfsPropagation": "shared" })),
        Bundle::new("propagation.tmpfs-shared", &[]).mount("/t", "tmpfs", "tmpfs", &["shared"]),
    ]
}

/// A bind of a folder whose mount the host shares.
fn shared(name: &str, options: &[&str]) -> Bundle {
    Bundle::new(name, &["list:/b"])
        .host([Host::Folder("data"), Host::Mounted("data", &["shared"])])
        .mount("/b", "bind", "${dir}/data", options)
}
