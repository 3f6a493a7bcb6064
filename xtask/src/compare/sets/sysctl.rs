//! Kernel parameters.

use serde_json::{Value, json};

use super::super::bundle::Bundle;

pub(super) fn bundles() -> Vec<Bundle> {
    let shm = "read:/proc/sys/kernel/shmmax";
    let forward = "read:/proc/sys/net/ipv4/ip_forward";
    let domain = "read:/proc/sys/kernel/domainname";
    vec![
        sysctl("sysctl.network", &[forward], json!({ "net.ipv4.ip_forward": "1" })),
        sysctl("sysctl.with-slashes", &[forward], json!({ "net/ipv4/ip_forward": "1" })),
        sysctl("sysctl.ipc", &[shm], json!({ "kernel.shmmax": "12345678" })),
        sysctl(
            "sysctl.mqueue",
            &["read:/proc/sys/fs/mqueue/msg_max"],
            json!({ "fs.mqueue.msg_max": "77" }),
        ),
        sysctl("sysctl.domainname", &[domain], json!({ "kernel.domainname": "lan" })),
        sysctl("sysctl.hostname", &[], json!({ "kernel.hostname": "other" })),
        sysctl("sysctl.of-the-host", &[], json!({ "vm.swappiness": "60" })),
        sysctl("sysctl.unknown", &[], json!({ "net.no.such": "1" })),
        sysctl("sysctl.bad-value", &[], json!({ "net.ipv4.ip_forward": "word" })),
        sysctl("sysctl.ipc-without-namespace", &[shm], json!({ "kernel.shmmax": "12345678" }))
            .without("ipc")
            .with(|spec| {
                let mounts = spec["mounts"].as_array_mut().expect("the base has mounts");
                mounts.retain(|mount| mount["type"] != "mqueue");
            }),
        sysctl("sysctl.network-without-namespace", &[], json!({ "net.ipv4.ip_forward": "0" }))
            .without("network"),
        sysctl("sysctl.outside", &[], json!({ "net/../vm/swappiness": "60" })),
    ]
}

fn sysctl(name: &str, questions: &[&str], sysctl: Value) -> Bundle {
    Bundle::new(name, questions).linux(json!({ "sysctl": sysctl }))
}
