//! Limits, as the files of the container's cgroup have them, and changes of them.

use serde_json::{Value, json};

use super::super::{
    act::Act,
    bundle::{Bundle, Host},
};

const MB: u64 = 1 << 20;

pub(super) fn bundles() -> Vec<Bundle> {
    let mut all = limits();
    all.extend(processors());
    all.extend(places());
    all.extend(updates());
    all
}

fn limit(name: &str, resources: Value) -> Bundle {
    Bundle::new(&format!("cgroups.{name}"), &[]).resources(resources)
}

fn limits() -> Vec<Bundle> {
    vec![
        limit("memory", json!({ "memory": { "limit": 64 * MB } })),
        limit("memory-and-swap", json!({ "memory": { "limit": 64 * MB, "swap": 96 * MB } })),
        limit("memory-unlimited", json!({ "memory": { "limit": -1, "swap": -1 } })),
        limit("memory-zero", json!({ "memory": { "limit": 0 } })),
        limit("memory-swap-below-limit", json!({ "memory": { "limit": 64 * MB, "swap": MB } })),
        limit("memory-swap-alone", json!({ "memory": { "swap": 64 * MB } })),
        limit("memory-tiny", json!({ "memory": { "limit": 4096 } })),
        limit(
            "memory-reservation",
            json!({ "memory": { "limit": 64 * MB,
            "reservation": 32 * MB } }),
        ),
        limit("memory-swappiness", json!({ "memory": { "limit": 64 * MB, "swappiness": 10 } })),
        limit("memory-swappiness-too-large", json!({ "memory": { "swappiness": 300 } })),
        limit(
            "memory-kernel",
            json!({ "memory": { "limit": 64 * MB, "kernel": 32 * MB,
            "kernelTCP": 16 * MB } }),
        ),
        limit(
            "memory-no-oom-killer",
            json!({ "memory": { "limit": 64 * MB,
            "disableOOMKiller": true } }),
        ),
        limit(
            "memory-use-hierarchy",
            json!({ "memory": { "limit": 64 * MB,
            "useHierarchy": true } }),
        ),
        limit(
            "memory-check-before-update",
            json!({ "memory": { "limit": 64 * MB,
            "checkBeforeUpdate": true } }),
        ),
    ]
}

fn processors() -> Vec<Bundle> {
    vec![
        limit("cpu-shares", json!({ "cpu": { "shares": 512 } })),
        limit("cpu-shares-too-small", json!({ "cpu": { "shares": 1 } })),
        limit("cpu-quota", json!({ "cpu": { "quota": 50_000, "period": 100_000 } })),
        limit("cpu-quota-alone", json!({ "cpu": { "quota": 20_000 } })),
        limit("cpu-period-alone", json!({ "cpu": { "period": 50_000 } })),
        limit("cpu-quota-unlimited", json!({ "cpu": { "quota": -1, "period": 200_000 } })),
        limit("cpu-quota-zero", json!({ "cpu": { "quota": 0 } })),
        limit("cpu-quota-too-small", json!({ "cpu": { "quota": 10, "period": 100_000 } })),
        limit(
            "cpu-burst",
            json!({ "cpu": { "quota": 50_000, "period": 100_000,
            "burst": 10_000 } }),
        ),
        limit("cpu-idle", json!({ "cpu": { "idle": 1 } })),
        limit("cpu-set", json!({ "cpu": { "cpus": "0", "mems": "0" } })),
        limit("cpu-set-missing", json!({ "cpu": { "cpus": "4000" } })),
        limit("pids", json!({ "pids": { "limit": 33 } })),
        limit("pids-unlimited", json!({ "pids": { "limit": -1 } })),
        limit("pids-zero", json!({ "pids": { "limit": 0 } })),
        limit("io-weight", json!({ "blockIO": { "weight": 300 } })),
        limit(
            "io-throttle",
            json!({ "blockIO": {
            "throttleReadBpsDevice": [{ "major": 254, "minor": 0, "rate": 1_048_576 }],
            "throttleWriteBpsDevice": [{ "major": 254, "minor": 0, "rate": 2_097_152 }],
            "throttleReadIOPSDevice": [{ "major": 254, "minor": 0, "rate": 100 }],
            "throttleWriteIOPSDevice": [{ "major": 254, "minor": 0, "rate": 200 }] } }),
        ),
        limit(
            "io-no-such-device",
            json!({ "blockIO": {
            "throttleReadBpsDevice": [{ "major": 250, "minor": 99, "rate": 1_048_576 }] } }),
        ),
        limit("huge-pages", json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2 * MB }] })),
        limit(
            "huge-pages-bad-size",
            json!({ "hugepageLimits": [{ "pageSize": "3MB",
            "limit": MB }] }),
        ),
        limit(
            "network",
            json!({ "network": { "classID": 1_048_577,
            "priorities": [{ "name": "lo", "priority": 5 }] } }),
        ),
        limit("unified-on-version-1", json!({ "unified": { "memory.high": "1000000" } })),
        limit("none", Value::Null),
    ]
}

fn places() -> Vec<Bundle> {
    let at = |name: &str, path: &str| {
        Bundle::new(&format!("cgroups.{name}"), &["read:/proc/self/cgroup"])
            .linux(json!({ "cgroupsPath": path }))
    };
    vec![
        at("path-deep", "/${group}/a/b/c1"),
        at("path-with-dots", "/${group}/x/../c1"),
        at("path-above-root", "/../${group}/c1"),
        at("path-with-blanks", "/${group}/a b/c1"),
        Bundle::lasting(
            "cgroups.is-in-use-by-another",
            Act::during([Act::tell("state"), Act::Outside]),
        ),
        Bundle::new("cgroups.annotations", &[])
            .patch(json!({ "annotations": { "a.b/c": "d", "e": "" } })),
    ]
}

fn updates() -> Vec<Bundle> {
    let update = |name: &str, flags: &str| {
        Bundle::lasting(
            &format!("cgroups.update-{name}"),
            Act::during([Act::verb(&format!("update {flags} ID")), Act::Outside]),
        )
        .resources(json!({ "memory": { "limit": 64 * MB }, "pids": { "limit": 50 },
            "cpu": { "shares": 256, "quota": 50_000, "period": 100_000 } }))
    };
    vec![
        update("memory", "--memory 33554432"),
        update("memory-and-swap", "--memory 33554432 --memory-swap 50331648"),
        update("memory-upwards", "--memory 134217728"),
        update("memory-upwards-with-swap", "--memory 134217728 --memory-swap 268435456"),
        update("memory-unlimited", "--memory -1 --memory-swap -1"),
        update("memory-unlimited-alone", "--memory -1"),
        update("reservation", "--memory-reservation 16777216"),
        update("cpu", "--cpu-share 512 --cpu-quota 25000 --cpu-period 50000"),
        update("cpu-quota-alone", "--cpu-quota 30000"),
        update("cpu-period-alone", "--cpu-period 200000"),
        update("cpu-quota-unlimited", "--cpu-quota -1"),
        update("cpu-set", "--cpuset-cpus 0 --cpuset-mems 0"),
        update("pids", "--pids-limit 20"),
        update("pids-unlimited", "--pids-limit -1"),
        update("io-weight", "--blkio-weight 500"),
        update("nothing", ""),
        update("bad", "--memory 12x"),
        update("from-a-file", "--resources ${dir}/limits.json").host([Host::File(
            "limits.json",
            r#"{"memory":{"limit":25165824},"pids":{"limit":11},"cpu":{"shares":99}}"#,
        )]),
        update("from-a-file-devices", "--resources ${dir}/limits.json").host([Host::File(
            "limits.json",
            r#"{"devices":[{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#,
        )]),
        update("from-a-bad-file", "--resources ${dir}/limits.json")
            .host([Host::File("limits.json", "{")]),
    ]
}
