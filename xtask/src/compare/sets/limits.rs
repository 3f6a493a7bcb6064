//! Resource limits.

use serde_json::{Value, json};

use super::super::bundle::Bundle;

pub(super) fn bundles() -> Vec<Bundle> {
    let one =
        |kind: &str, soft: u64, hard: u64| json!([{ "type": kind, "soft": soft, "hard": hard }]);
    vec![
        limits("limits.none", json!([])),
        Bundle::new("limits.not-named", &[]).process(json!({ "rlimits": null })),
        limits("limits.open-files", one("RLIMIT_NOFILE", 77, 99)),
        limits("limits.unlimited", one("RLIMIT_CORE", u64::MAX, u64::MAX)),
        limits(
            "limits.many-kinds",
            json!([
                { "type": "RLIMIT_AS", "soft": 1_u64 << 40, "hard": 1_u64 << 41 },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 10 },
                { "type": "RLIMIT_CPU", "soft": 100, "hard": 200 },
                { "type": "RLIMIT_DATA", "soft": 1_u64 << 36, "hard": 1_u64 << 37 },
                { "type": "RLIMIT_FSIZE", "soft": 1_u64 << 30, "hard": 1_u64 << 31 },
                { "type": "RLIMIT_LOCKS", "soft": 5, "hard": 6 },
                { "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 },
                { "type": "RLIMIT_MSGQUEUE", "soft": 1000, "hard": 2000 },
                { "type": "RLIMIT_NPROC", "soft": 100, "hard": 200 },
                { "type": "RLIMIT_RSS", "soft": 1_u64 << 33, "hard": 1_u64 << 34 },
                { "type": "RLIMIT_RTTIME", "soft": 1_000_000, "hard": 2_000_000 },
                { "type": "RLIMIT_SIGPENDING", "soft": 100, "hard": 200 },
                { "type": "RLIMIT_STACK", "soft": 8_388_608, "hard": 16_777_216 },
            ]),
        ),
        limits("limits.soft-above-hard", one("RLIMIT_NOFILE", 100, 50)),
        limits("limits.unknown-kind", one("RLIMIT_NO_SUCH", 1, 1)),
        limits(
            "limits.twice",
            json!([
            { "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 },
            { "type": "RLIMIT_NOFILE", "soft": 30, "hard": 40 }]),
        ),
    ]
}

fn limits(name: &str, limits: Value) -> Bundle {
    Bundle::new(name, &[]).with(|spec| spec["process"]["rlimits"] = limits)
}
