//! Counters of v1 hierarchies. On hybrid hosts huge pages may be counted on v2 all the same.

use std::{collections::HashMap, fs};

use shim_core::model::{
    BlkioEntry, BlkioStats, CpuStatsV1, CpuUsage, HugetlbStatsV1, MemoryEntry, MemoryStatsV1,
    OomControl, StatsV1, Throttling,
};

use super::{Counters, device, page_sizes, pairs, pids, rdma};
use crate::engine::cgroup::Cgroup;

/// Nanoseconds in a tick of `cpuacct.stat`: its unit is a hundredth of a second on all of Linux.
const TICK: u64 = 10_000_000;

/// Reads what each hierarchy counts.
pub(super) fn read(cgroup: &Cgroup) -> StatsV1 {
    let of = |controller| Counters::v1(cgroup, controller);
    let memory = of("memory");
    let hugetlb = match of("hugetlb") {
        Some(counters) => hugetlb(&counters),
        None => hugetlb_unified(&Counters::unified(cgroup)),
    };
    StatsV1 {
        // containerd's v1 metrics tell no limit by 0.
        pids: of("pids").and_then(|counters| pids(&counters)).map(|mut pids| {
            pids.limit = if pids.limit == u64::MAX { 0 } else { pids.limit };
            pids
        }),
        cpu: CpuStatsV1 {
            usage: of("cpuacct").map(|counters| usage(&counters)).unwrap_or_default(),
            throttling: of("cpu")
                .and_then(|counters| counters.text("cpu.stat"))
                .map(|text| throttling(&text))
                .unwrap_or_default(),
        },
        memory_oom_control: memory
            .as_ref()
            .and_then(|counters| counters.text("memory.oom_control"))
            .map(|text| oom_control(&text)),
        memory: memory.map(|counters| memory_stats(&counters)),
        blkio: of("blkio").map(|counters| blkio(&counters)),
        hugetlb,
        rdma: of("rdma").and_then(|counters| rdma(&counters)),
    }
}

/// Reads a text as each kind of file, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_text(text: &str) {
    let _counts = (throttling(text), oom_control(text));
    let entries = blkio_entries(text, &parse_partitions(text));
    assert!(entries.len() <= text.len());
    let mut memory = MemoryStatsV1::default();
    let fields = pairs(text).filter_map(|(key, _)| memory_field(&mut memory, key).copied());
    assert!(fields.count() <= text.len());
}

fn usage(counters: &Counters) -> CpuUsage {
    let mut usage = CpuUsage { total: counters.count("cpuacct.usage"), ..CpuUsage::default() };
    for (key, ticks) in pairs(&counters.text("cpuacct.stat").unwrap_or_default()) {
        match key {
            "user" => usage.user = ticks.saturating_mul(TICK),
            "system" => usage.kernel = ticks.saturating_mul(TICK),
            _ => {}
        }
    }
    let per_cpu = counters.text("cpuacct.usage_percpu").unwrap_or_default();
    usage.per_cpu = per_cpu.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    usage
}

fn throttling(text: &str) -> Throttling {
    let mut throttling = Throttling::default();
    for (key, value) in pairs(text) {
        match key {
            "nr_periods" => throttling.periods = value,
            "nr_throttled" => throttling.throttled_periods = value,
            "throttled_time" => throttling.throttled_time = value,
            _ => {}
        }
    }
    throttling
}

fn oom_control(text: &str) -> OomControl {
    let mut oom = OomControl::default();
    for (key, value) in pairs(text) {
        match key {
            "oom_kill_disable" => oom.oom_kill_disable = value,
            "under_oom" => oom.under_oom = value,
            "oom_kill" => oom.oom_kill = value,
            _ => {}
        }
    }
    oom
}

fn memory_stats(counters: &Counters) -> MemoryStatsV1 {
    let mut memory = MemoryStatsV1::default();
    for (key, value) in pairs(&counters.text("memory.stat").unwrap_or_default()) {
        if let Some(field) = memory_field(&mut memory, key) {
            *field = value;
        }
    }
    let entry = |kind: &str| MemoryEntry {
        limit: counters.count(&format!("{kind}.limit_in_bytes")),
        usage: counters.count(&format!("{kind}.usage_in_bytes")),
        max: counters.count(&format!("{kind}.max_usage_in_bytes")),
        failcnt: counters.count(&format!("{kind}.failcnt")),
    };
    memory.usage = entry("memory");
    memory.swap = entry("memory.memsw");
    memory.kernel = entry("memory.kmem");
    memory.kernel_tcp = entry("memory.kmem.tcp");
    memory
}

fn memory_field<'a>(memory: &'a mut MemoryStatsV1, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "cache" => &mut memory.cache,
        "rss" => &mut memory.rss,
        "rss_huge" => &mut memory.rss_huge,
        "mapped_file" => &mut memory.mapped_file,
        "dirty" => &mut memory.dirty,
        "writeback" => &mut memory.writeback,
        "pgpgin" => &mut memory.pg_pg_in,
        "pgpgout" => &mut memory.pg_pg_out,
        "pgfault" => &mut memory.pg_fault,
        "pgmajfault" => &mut memory.pg_maj_fault,
        "inactive_anon" => &mut memory.inactive_anon,
        "active_anon" => &mut memory.active_anon,
        "inactive_file" => &mut memory.inactive_file,
        "active_file" => &mut memory.active_file,
        "unevictable" => &mut memory.unevictable,
        "hierarchical_memory_limit" => &mut memory.hierarchical_memory_limit,
        "hierarchical_memsw_limit" => &mut memory.hierarchical_swap_limit,
        "total_cache" => &mut memory.total_cache,
        "total_rss" => &mut memory.total_rss,
        "total_rss_huge" => &mut memory.total_rss_huge,
        "total_mapped_file" => &mut memory.total_mapped_file,
        "total_dirty" => &mut memory.total_dirty,
        "total_writeback" => &mut memory.total_writeback,
        "total_pgpgin" => &mut memory.total_pg_pg_in,
        "total_pgpgout" => &mut memory.total_pg_pg_out,
        "total_pgfault" => &mut memory.total_pg_fault,
        "total_pgmajfault" => &mut memory.total_pg_maj_fault,
        "total_inactive_anon" => &mut memory.total_inactive_anon,
        "total_active_anon" => &mut memory.total_active_anon,
        "total_inactive_file" => &mut memory.total_inactive_file,
        "total_active_file" => &mut memory.total_active_file,
        "total_unevictable" => &mut memory.total_unevictable,
        _ => return None,
    })
}

/// The first scheduler that has files with something in them counts: BFQ, then the late CFQ; the
/// throttling layer counts below any scheduler, but only bytes and requests.
fn blkio(counters: &Counters) -> BlkioStats {
    let names = device_names();
    let read = |file: String| {
        let text = counters.text(&file).unwrap_or_default();
        blkio_entries(&text, &names)
    };
    for scheduler in ["blkio.bfq.", "blkio."] {
        let of = |name: &str| read(format!("{scheduler}{name}_recursive"));
        let stats = BlkioStats {
            io_service_bytes_recursive: of("io_service_bytes"),
            io_serviced_recursive: of("io_serviced"),
            io_queued_recursive: of("io_queued"),
            io_service_time_recursive: of("io_service_time"),
            io_wait_time_recursive: of("io_wait_time"),
            io_merged_recursive: of("io_merged"),
            io_time_recursive: of("time"),
            sectors_recursive: of("sectors"),
        };
        if stats != BlkioStats::default() {
            return stats;
        }
    }
    let throttled = |name: &str| {
        let recursive = read(format!("blkio.throttle.{name}_recursive"));
        // Before Linux 4.19 only the cgroup's own were counted.
        if recursive.is_empty() { read(format!("blkio.throttle.{name}")) } else { recursive }
    };
    BlkioStats {
        io_service_bytes_recursive: throttled("io_service_bytes"),
        io_serviced_recursive: throttled("io_serviced"),
        ..BlkioStats::default()
    }
}

/// `8:0 Read 1282048`, `8:0 6792`, and a `Total 3477504` over all devices, which is left out.
fn blkio_entries(text: &str, names: &HashMap<(u64, u64), String>) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut parts = line.split_whitespace();
        let (major, minor) = device(parts.next()?)?;
        let (op, value) = match (parts.next()?, parts.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlkioEntry {
            op: op.to_owned(),
            device: names.get(&(major, minor)).cloned().unwrap_or_default(),
            major,
            minor,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// The names of block devices, as containerd's metrics have them.
fn device_names() -> HashMap<(u64, u64), String> {
    parse_partitions(&fs::read_to_string("/proc/partitions").unwrap_or_default())
}

/// Two lines of heading, then ` 254        0  268435456 vda`.
fn parse_partitions(text: &str) -> HashMap<(u64, u64), String> {
    let mut names = HashMap::new();
    for line in text.lines().skip(2) {
        let mut parts = line.split_whitespace();
        let mut number = || parts.next()?.parse().ok();
        if let (Some(major), Some(minor), Some(name)) = (number(), number(), parts.nth(1)) {
            names.entry((major, minor)).or_insert_with(|| format!("/dev/{name}"));
        }
    }
    names
}

fn hugetlb(counters: &Counters) -> Vec<HugetlbStatsV1> {
    let of = |size: &String| {
        let usage = counters.number(&format!("hugetlb.{size}.usage_in_bytes"))?;
        Some(HugetlbStatsV1 {
            usage,
            max: counters.count(&format!("hugetlb.{size}.max_usage_in_bytes")),
            failcnt: counters.count(&format!("hugetlb.{size}.failcnt")),
            pagesize: size.clone(),
        })
    };
    page_sizes().iter().filter_map(of).collect()
}

/// v2 does not keep the highest use.
fn hugetlb_unified(counters: &Counters) -> Vec<HugetlbStatsV1> {
    let of = |size: &String| {
        let usage = counters.number(&format!("hugetlb.{size}.current"))?;
        let events = counters.text(&format!("hugetlb.{size}.events")).unwrap_or_default();
        let failcnt = pairs(&events).find(|(key, _)| *key == "max").map_or(0, |(_, count)| count);
        Some(HugetlbStatsV1 { usage, max: 0, failcnt, pagesize: size.clone() })
    };
    page_sizes().iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_memory_stat_have_fields_of_their_own() {
        let keys = "cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault \
                    pgmajfault inactive_anon active_anon inactive_file active_file unevictable";
        let keys: Vec<_> = keys.split_whitespace().collect();
        let limits = ["hierarchical_memory_limit", "hierarchical_memsw_limit"];
        let all = keys.iter().map(|key| (*key).to_owned());
        let all = all.chain(limits.map(str::to_owned));
        let all: Vec<_> = all.chain(keys.iter().map(|key| format!("total_{key}"))).collect();
        let mut memory = MemoryStatsV1::default();
        for (key, value) in all.iter().zip(1..) {
            *memory_field(&mut memory, key).unwrap() = value;
        }
        for (key, value) in all.iter().zip(1..) {
            assert_eq!(*memory_field(&mut memory, key).unwrap(), value, "{key} has its own field");
        }
        assert!(memory_field(&mut memory, "swap").is_none());
    }

    #[test]
    fn blkio_lines_come_with_and_without_an_operation() {
        let names = parse_partitions(
            "major minor  #blocks  name\n\n 254        0  268435456 vda\n   8        1  1 sda1\n",
        );
        let text = "254:0 Read 1282048\n254:0 Total 5\n8:16 6792\nTotal 3477504\n8:x Read 1\n";
        let entries = blkio_entries(text, &names);
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[0].op.as_str(), entries[0].device.as_str()), ("Read", "/dev/vda"));
        assert_eq!((entries[0].major, entries[0].minor, entries[0].value), (254, 0, 1_282_048));
        assert_eq!((entries[2].op.as_str(), entries[2].device.as_str()), ("", ""));
        assert_eq!((entries[2].minor, entries[2].value), (16, 6792));
    }

    #[test]
    fn throttling_and_oom_are_pairs() {
        let text = "nr_periods 3\nnr_throttled 2\nthrottled_time 17\nnr_bursts 1\n";
        let expected = Throttling { periods: 3, throttled_periods: 2, throttled_time: 17 };
        assert_eq!(throttling(text), expected);
        let text = "oom_kill_disable 1\nunder_oom 0\noom_kill 4\noom_group_kill 0\n";
        let expected = OomControl { oom_kill_disable: 1, under_oom: 0, oom_kill: 4 };
        assert_eq!(oom_control(text), expected);
    }
}
