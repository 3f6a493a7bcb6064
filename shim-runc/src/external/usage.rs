//! What a container in the process of another uses: the host's cgroup counts all of them in one.

use serde_json::Value;
use shim_core::{
    Error, Result,
    model::{
        CpuStatsV1, CpuStatsV2, CpuUsage, MemoryEntry, MemoryStatsV1, MemoryStatsV2, PidsStats,
        Stats, StatsV1, StatsV2,
    },
};

use crate::engine::cgroup::Mode;

/// Reads what runsc's `events --stats` prints, as counters of the host's kind.
///
/// # Errors
/// When it is no such document.
pub(super) fn parse(text: &str, mode: Mode) -> Result<Stats> {
    let event: Value = serde_json::from_str(text.trim())
        .map_err(|err| Error::other(format!("the runtime's statistics: {err}")))?;
    let number = |at: &str| event.pointer(at).and_then(Value::as_u64);
    // runsc leaves a number out that is 0, as that of a container is that has just begun.
    let usage = event.pointer("/data/cpu/usage").filter(|usage| usage.is_object());
    let total = usage.and_then(|usage| usage.get("total").map_or(Some(0), Value::as_u64));
    let total =
        total.ok_or_else(|| Error::other("the runtime's statistics have no cpu.usage.total"))?;
    let usage = number("/data/memory/usage/usage").unwrap_or_default();
    let current = number("/data/pids/current").unwrap_or_default();
    Ok(match mode {
        Mode::V2 => Stats::V2(Box::new(StatsV2 {
            pids: PidsStats { current, limit: u64::MAX },
            cpu: CpuStatsV2 { usage_usec: total / 1000, ..CpuStatsV2::default() },
            memory: MemoryStatsV2 { usage, usage_limit: u64::MAX, ..MemoryStatsV2::default() },
            ..StatsV2::default()
        })),
        Mode::V1 | Mode::Hybrid => Stats::V1(Box::new(StatsV1 {
            pids: Some(PidsStats { current, limit: 0 }),
            cpu: CpuStatsV1 {
                usage: CpuUsage { total, ..CpuUsage::default() },
                ..CpuStatsV1::default()
            },
            memory: Some(MemoryStatsV1 {
                usage: MemoryEntry { usage, ..MemoryEntry::default() },
                ..MemoryStatsV1::default()
            }),
            ..StatsV1::default()
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"{"type":"stats","id":"c2","data":{"cpu":{"usage":{"total":645099165}},
        "memory":{"usage":{"limit":0,"usage":2025472,"failcnt":0}},"pids":{"current":2}}}"#;

    #[test]
    fn what_a_runtime_counts_has_the_hosts_form() {
        let Ok(Stats::V1(stats)) = parse(PRINTED, Mode::Hybrid) else { panic!() };
        assert_eq!(stats.cpu.usage.total, 645_099_165);
        assert_eq!(stats.memory.unwrap().usage.usage, 2_025_472);
        let Ok(Stats::V2(stats)) = parse(PRINTED, Mode::V2) else { panic!() };
        assert_eq!((stats.cpu.usage_usec, stats.pids.current), (645_099, 2));
        let fresh = r#"{"data":{"cpu":{"usage":{}},"pids":{"current":1}}}"#;
        let Ok(Stats::V2(stats)) = parse(fresh, Mode::V2) else { panic!() };
        assert_eq!((stats.cpu.usage_usec, stats.pids.current), (0, 1));
    }

    #[test]
    fn what_says_nothing_of_time_is_no_statistics() {
        for bad in ["", "[]", "{\"data\":{}}", "{\"data\":{\"cpu\":{\"usage\":{\"total\":-1}}}}"] {
            assert!(parse(bad, Mode::V1).is_err(), "{bad}");
        }
    }
}
