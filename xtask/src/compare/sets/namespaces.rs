//! Namespaces: new ones, the host's, and those of another process.

use serde_json::json;

use super::super::bundle::{Bundle, Host};

pub(super) fn bundles() -> Vec<Bundle> {
    let interfaces: [&str; 3] =
        ["list:/sys/class/net", "read:/proc/net/dev_mcast", "run:/bin/busybox ip -o link"];
    let mut all = vec![
        Bundle::new("namespaces.cgroup", &["read:/proc/self/cgroup"]).namespace("cgroup", None),
        Bundle::new("namespaces.time", &["read:/proc/self/timens_offsets"]).namespace("time", None),
        Bundle::new("namespaces.time-offsets", &["read:/proc/self/timens_offsets"])
            .namespace("time", None)
            .linux(json!({ "timeOffsets": { "monotonic": { "secs": 1000, "nanosecs": 5 },
                "boottime": { "secs": 2000 } } })),
        Bundle::new("namespaces.time-offsets-without", &[])
            .linux(json!({ "timeOffsets": { "monotonic": { "secs": 1000 } } })),
        Bundle::new("namespaces.no-pid", &[]).without("pid"),
        Bundle::new("namespaces.no-network", &["look:/sys/class/net/lo"]).without("network"),
        Bundle::new("namespaces.no-ipc", &[]).without("ipc").with(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("the base has mounts");
            mounts.retain(|mount| mount["type"] != "mqueue");
        }),
        Bundle::new("namespaces.no-uts", &[]).without("uts").patch(json!({ "hostname": null })),
        Bundle::new("namespaces.hostname-without-uts", &[]).without("uts"),
        Bundle::new("namespaces.no-mount", &[]).without("mount"),
        Bundle::new("namespaces.loopback", &interfaces),
        Bundle::new("namespaces.names", &[])
            .patch(json!({ "hostname": "web-1.example", "domainname": "example" })),
        Bundle::new("namespaces.no-hostname", &[]).patch(json!({ "hostname": null })),
        Bundle::new("namespaces.empty-hostname", &[]).patch(json!({ "hostname": "" })),
        Bundle::new("namespaces.twice", &[]).with(|spec| {
            let all = spec["linux"]["namespaces"].as_array_mut().expect("the base has some");
            all.push(json!({ "type": "uts" }));
        }),
        Bundle::new("namespaces.unknown", &[]).namespace("no-such", None),
        Bundle::new("namespaces.path-of-another-kind", &[])
            .host([Host::Holder(&["--net"])])
            .namespace("ipc", Some("/proc/${holder}/ns/net")),
        Bundle::new("namespaces.path-missing", &[]).namespace("network", Some("/not/there")),
        Bundle::new("namespaces.path-is-a-file", &[])
            .host([Host::File("file", "")])
            .namespace("network", Some("${dir}/file")),
    ];
    all.extend(joined());
    all
}

fn joined() -> Vec<Bundle> {
    vec![
        Bundle::new("namespaces.join-network", &["list:/sys/class/net"])
            .host([Host::Holder(&["--net"])])
            .namespace("network", Some("/proc/${holder}/ns/net")),
        Bundle::new("namespaces.join-ipc-and-uts", &[])
            .host([Host::Holder(&["--ipc", "--uts"])])
            .namespace("ipc", Some("/proc/${holder}/ns/ipc"))
            .namespace("uts", Some("/proc/${holder}/ns/uts")),
        Bundle::new("namespaces.join-pid", &[])
            .host([Host::Holder(&["--pid", "--fork"])])
            .namespace("pid", Some("/proc/${holder}/ns/pid_for_children")),
        Bundle::new("namespaces.join-cgroup", &[])
            .host([Host::Holder(&["--cgroup"])])
            .namespace("cgroup", Some("/proc/${holder}/ns/cgroup")),
        Bundle::new("namespaces.join-the-hosts-network", &[])
            .namespace("network", Some("/proc/self/ns/net")),
        Bundle::new("namespaces.join-network-sysctl", &["read:/proc/sys/net/ipv4/ip_forward"])
            .host([Host::Holder(&["--net"])])
            .namespace("network", Some("/proc/${holder}/ns/net"))
            .linux(json!({ "sysctl": { "net.ipv4.ip_forward": "1" } })),
        Bundle::new("namespaces.empty-path", &[]).namespace("uts", Some("")),
    ]
}
