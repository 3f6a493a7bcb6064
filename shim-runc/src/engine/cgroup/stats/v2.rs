//! Counters of v2.

use shim_core::model::{
    CpuStatsV2, HugetlbStatsV2, IoEntry, IoStats, MemoryEvents, MemoryStatsV2, PidsStats, Pressure,
    PressureLine, StatsV2,
};

use super::{Counters, device, page_sizes, pairs, pids, rdma, words};
use crate::engine::cgroup::Cgroup;

/// Reads what the container's directory counts.
pub(super) fn read(cgroup: &Cgroup) -> StatsV2 {
    let counters = Counters::unified(cgroup);
    let text = |file| counters.text(file).unwrap_or_default();
    StatsV2 {
        pids: pids(&counters).unwrap_or_else(|| PidsStats {
            // Without the controller the list tells: containerd takes 0 for a dead container.
            current: text("cgroup.procs").lines().count() as u64,
            limit: 0,
        }),
        cpu: CpuStatsV2 { psi: pressure(&counters, "cpu.pressure"), ..cpu(&text("cpu.stat")) },
        memory: memory(&counters),
        memory_events: counters.text("memory.events").map(|text| memory_events(&text)),
        io: IoStats { usage: io(&text("io.stat")), psi: pressure(&counters, "io.pressure") },
        hugetlb: page_sizes().iter().filter_map(|size| hugetlb(&counters, size)).collect(),
        rdma: rdma(&counters).unwrap_or_default(),
    }
}

/// Reads a text as each kind of file, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_text(text: &str) {
    let _counts = (cpu(text), memory_events(text), parse_pressure(text));
    assert!(io(text).len() <= text.len());
    let mut memory = MemoryStatsV2::default();
    let fields = pairs(text).filter_map(|(key, _)| memory_field(&mut memory, key).copied());
    assert!(fields.count() <= text.len());
}

fn cpu(text: &str) -> CpuStatsV2 {
    let mut cpu = CpuStatsV2::default();
    for (key, value) in pairs(text) {
        match key {
            "usage_usec" => cpu.usage_usec = value,
            "user_usec" => cpu.user_usec = value,
            "system_usec" => cpu.system_usec = value,
            "nr_periods" => cpu.nr_periods = value,
            "nr_throttled" => cpu.nr_throttled = value,
            "throttled_usec" => cpu.throttled_usec = value,
            "nr_bursts" => cpu.nr_bursts = value,
            "burst_usec" => cpu.burst_usec = value,
            _ => {}
        }
    }
    cpu
}

fn memory(counters: &Counters) -> MemoryStatsV2 {
    let mut memory = MemoryStatsV2::default();
    for (key, value) in pairs(&counters.text("memory.stat").unwrap_or_default()) {
        if let Some(field) = memory_field(&mut memory, key) {
            *field = value;
        }
    }
    memory.usage = counters.count("memory.current");
    memory.usage_limit = counters.count("memory.max");
    memory.max_usage = counters.count("memory.peak");
    memory.swap_usage = counters.count("memory.swap.current");
    memory.swap_limit = counters.count("memory.swap.max");
    memory.swap_max_usage = counters.count("memory.swap.peak");
    memory.psi = pressure(counters, "memory.pressure");
    memory
}

fn memory_field<'a>(memory: &'a mut MemoryStatsV2, key: &str) -> Option<&'a mut u64> {
    Some(match key {
        "anon" => &mut memory.anon,
        "file" => &mut memory.file,
        "kernel_stack" => &mut memory.kernel_stack,
        "slab" => &mut memory.slab,
        "sock" => &mut memory.sock,
        "shmem" => &mut memory.shmem,
        "file_mapped" => &mut memory.file_mapped,
        "file_dirty" => &mut memory.file_dirty,
        "file_writeback" => &mut memory.file_writeback,
        "anon_thp" => &mut memory.anon_thp,
        "inactive_anon" => &mut memory.inactive_anon,
        "active_anon" => &mut memory.active_anon,
        "inactive_file" => &mut memory.inactive_file,
        "active_file" => &mut memory.active_file,
        "unevictable" => &mut memory.unevictable,
        "slab_reclaimable" => &mut memory.slab_reclaimable,
        "slab_unreclaimable" => &mut memory.slab_unreclaimable,
        "pgfault" => &mut memory.pgfault,
        "pgmajfault" => &mut memory.pgmajfault,
        "workingset_refault" => &mut memory.workingset_refault,
        "workingset_activate" => &mut memory.workingset_activate,
        "workingset_nodereclaim" => &mut memory.workingset_nodereclaim,
        "pgrefill" => &mut memory.pgrefill,
        "pgscan" => &mut memory.pgscan,
        "pgsteal" => &mut memory.pgsteal,
        "pgactivate" => &mut memory.pgactivate,
        "pgdeactivate" => &mut memory.pgdeactivate,
        "pglazyfree" => &mut memory.pglazyfree,
        "pglazyfreed" => &mut memory.pglazyfreed,
        "thp_fault_alloc" => &mut memory.thp_fault_alloc,
        "thp_collapse_alloc" => &mut memory.thp_collapse_alloc,
        "workingset_refault_anon" => &mut memory.workingset_refault_anon,
        "workingset_refault_file" => &mut memory.workingset_refault_file,
        "workingset_activate_anon" => &mut memory.workingset_activate_anon,
        "workingset_activate_file" => &mut memory.workingset_activate_file,
        _ => return None,
    })
}

fn memory_events(text: &str) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    for (key, value) in pairs(text) {
        match key {
            "low" => events.low = value,
            "high" => events.high = value,
            "max" => events.max = value,
            "oom" => events.oom = value,
            "oom_kill" => events.oom_kill = value,
            "oom_group_kill" => events.oom_group_kill = value,
            _ => {}
        }
    }
    events
}

/// `8:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0`
fn io(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let (major, minor) = device(line.split_whitespace().next()?)?;
        let mut entry = IoEntry { major, minor, ..IoEntry::default() };
        for (key, value) in words(line) {
            let field = match key {
                "rbytes" => &mut entry.rbytes,
                "wbytes" => &mut entry.wbytes,
                "rios" => &mut entry.rios,
                "wios" => &mut entry.wios,
                _ => continue,
            };
            *field = value.parse().unwrap_or_default();
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(counters: &Counters, size: &str) -> Option<HugetlbStatsV2> {
    let current = counters.number(&format!("hugetlb.{size}.current"))?;
    let events = counters.text(&format!("hugetlb.{size}.events")).unwrap_or_default();
    Some(HugetlbStatsV2 {
        current,
        max: counters.count(&format!("hugetlb.{size}.max")),
        failcnt: pairs(&events).find(|(key, _)| *key == "max").map_or(0, |(_, count)| count),
        pagesize: size.to_owned(),
    })
}

/// A kernel that does not count pressure has no file, or one that can't be read.
fn pressure(counters: &Counters, file: &str) -> Option<Pressure> {
    counters.text(file).map(|text| parse_pressure(&text))
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=1234`, then a like line for `full`.
fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut found = PressureLine::default();
        for (key, value) in words(line) {
            let average = || value.parse().unwrap_or_default();
            match key {
                "avg10" => found.avg10 = average(),
                "avg60" => found.avg60 = average(),
                "avg300" => found.avg300 = average(),
                "total" => found.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        match line.split_whitespace().next() {
            Some("some") => pressure.some = Some(found),
            Some("full") => pressure.full = Some(found),
            _ => {}
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_has_two_lines() {
        let text = "some avg10=0.12 avg60=1.50 avg300=100.00 total=1234\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        let pressure = parse_pressure(text);
        let some = PressureLine { avg10: 0.12, avg60: 1.5, avg300: 100.0, total: 1234 };
        assert_eq!(pressure.some, Some(some));
        assert_eq!(pressure.full.unwrap().total, 9);
        assert_eq!(parse_pressure("odd 1\n"), Pressure::default());
    }

    #[test]
    fn io_lines_may_have_more_or_less_than_known() {
        let text = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n\
                    259:1 cost.usage=7\nodd\n253:0\n";
        let entries = io(text);
        let first = IoEntry { major: 8, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 };
        assert_eq!(entries[0], first);
        assert_eq!(entries[1], IoEntry { major: 259, minor: 1, ..IoEntry::default() });
        assert_eq!(entries.len(), 3);
    }

    #[test]
    fn events_and_times_are_pairs() {
        let cpu = cpu("usage_usec 9\nuser_usec 4\nsystem_usec 5\nnice_usec 0\nburst_usec 3\n");
        assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec, cpu.burst_usec), (9, 4, 5, 3));
        let events = memory_events("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n");
        let expected =
            MemoryEvents { low: 1, high: 2, max: 3, oom: 4, oom_kill: 5, oom_group_kill: 6 };
        assert_eq!(events, expected);
    }

    #[test]
    fn keys_of_memory_stat_have_fields_of_their_own() {
        let keys = "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback \
                    anon_thp inactive_anon active_anon inactive_file active_file unevictable \
                    slab_reclaimable slab_unreclaimable pgfault pgmajfault workingset_refault \
                    workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate \
                    pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc \
                    workingset_refault_anon workingset_refault_file workingset_activate_anon \
                    workingset_activate_file";
        let mut memory = MemoryStatsV2::default();
        for (key, value) in keys.split_whitespace().zip(1..) {
            *memory_field(&mut memory, key).unwrap() = value;
        }
        for (key, value) in keys.split_whitespace().zip(1..) {
            assert_eq!(*memory_field(&mut memory, key).unwrap(), value, "{key} has its own field");
        }
    }
}
