//! Users and groups, and user namespaces.

use serde_json::json;

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let open: [&str; 3] = ["look:/dev/null", "create:/tmp/new", "look:/tmp/new"];
    vec![
        Bundle::new("users.numbers", &["create:/tmp/new", "look:/tmp/new"])
            .process(json!({ "user": { "uid": 1000, "gid": 1001 } })),
        Bundle::new("users.more-groups", &[]).process(
            json!({ "user": { "uid": 1000, "gid": 1001, "additionalGids": [30, 10, 20, 10] } }),
        ),
        Bundle::new("users.root-with-groups", &[])
            .process(json!({ "user": { "uid": 0, "gid": 0, "additionalGids": [5, 6] } })),
        Bundle::new("users.large-number", &[])
            .process(json!({ "user": { "uid": 4_294_967_294_u32, "gid": 4_000_000_000_u32 } })),
        Bundle::new("users.not-in-passwd", &[])
            .process(json!({ "user": { "uid": 4242, "gid": 4242 } })),
        Bundle::new("users.no-passwd", &[])
            .host([Host::Mode("rootfs/etc/passwd", 0)])
            .process(json!({ "user": { "uid": 1000, "gid": 1000 } })),
        mapped("users.namespace", &open),
        mapped("users.namespace-as-user", &open)
            .process(json!({ "user": { "uid": 1000, "gid": 1000, "additionalGids": [7] } })),
        mapped("users.namespace-device-and-limit", &["look:/dev/fuse", "open:/dev/zero"]).process(
            json!({ "rlimits": [
                { "type": "RLIMIT_CORE", "hard": 1000, "soft": 1000 },
                { "type": "RLIMIT_NOFILE", "hard": 2048, "soft": 2048 }] }),
        ),
        mapped("users.namespace-read-only-root", &["create:/new", "write:/proc/sysrq-trigger"])
            .patch(json!({ "root": { "readonly": true } })),
        mapped("users.namespace-hostname-and-sysctl", &["read:/proc/sys/net/ipv4/ip_forward"])
            .patch(json!({ "domainname": "lan" }))
            .linux(json!({ "sysctl": { "net.ipv4.ip_forward": "1" } })),
        mapped("users.namespace-tmpfs-and-bind", &["look:/t", "read:/b/file"])
            .host([Host::Folder("data"), Host::File("data/file", "text")])
            .mount("/t", "tmpfs", "tmpfs", &["nosuid", "mode=711"])
            .mount("/b", "bind", "data", &["rbind", "ro"]),
        mapped("users.namespace-seccomp-and-capabilities", &["call:chroot", "call:mkdir"])
            .linux(json!({ "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }] } })),
        mapped("users.namespace-with-cgroup-namespace", &[]).namespace("cgroup", None),
        Bundle::new("users.two-ranges", &[]).namespace("user", None).linux(json!({
            "uidMappings": [{ "containerID": 0, "hostID": 100_000, "size": 10 },
                { "containerID": 1000, "hostID": 200_000, "size": 10 }],
            "gidMappings": [{ "containerID": 0, "hostID": 100_000, "size": 10 },
                { "containerID": 1000, "hostID": 200_000, "size": 10 }] })),
    ]
}

/// With a user namespace whose root owns the root filesystem.
fn mapped(name: &str, questions: &[&str]) -> Bundle {
    let owned = ["rootfs", "rootfs/tmp", "rootfs/work", "rootfs/dev", "rootfs/proc", "rootfs/sys"];
    Bundle::new(name, questions).users().host(owned.map(|path| Host::Owner(path, 100_000)))
}
