//! Counters as containerd's metrics: which message it is tells the client the cgroup version.

use shim_protos::{
    Any, cgroups_v1 as v1, cgroups_v2 as v2,
    protobuf::{Message, MessageField},
};

use crate::model::{
    BlkioEntry, BlkioStats, CpuStatsV1, CpuStatsV2, HugetlbStatsV1, HugetlbStatsV2, IoStats,
    MemoryEntry, MemoryEvents, MemoryStatsV1, MemoryStatsV2, OomControl, PidsStats, Pressure,
    PressureLine, RdmaEntry, RdmaStats, Stats, StatsV1, StatsV2,
};

/// Fills a message from fields of the same names.
macro_rules! same {
    ($from:ident => $version:ident::$message:ident { $($field:ident),* $(,)? } $($more:tt)*) => {
        $version::$message { $($field: $from.$field,)* $($more)* ..Default::default() }
    };
}

/// Encodes what a backend has counted.
pub(crate) fn to_any(stats: Stats) -> Any {
    let (name, value) = match stats {
        Stats::V1(stats) => {
            ("io.containerd.cgroups.v1.Metrics", metrics_v1(*stats).write_to_bytes())
        }
        Stats::V2(stats) => {
            ("io.containerd.cgroups.v2.Metrics", metrics_v2(*stats).write_to_bytes())
        }
    };
    Any {
        type_url: name.to_owned(),
        value: value.expect("a message without required fields always encodes"),
        ..Default::default()
    }
}

fn field<T, M>(part: Option<T>, encode: impl FnOnce(T) -> M) -> MessageField<M> {
    MessageField::from_option(part.map(encode))
}

fn list<T, M>(parts: Vec<T>, encode: impl FnMut(T) -> M) -> Vec<M> {
    parts.into_iter().map(encode).collect()
}

fn metrics_v1(stats: StatsV1) -> v1::Metrics {
    v1::Metrics {
        hugetlb: list(stats.hugetlb, hugetlb_v1),
        pids: field(stats.pids, |pids: PidsStats| same!(pids => v1::PidsStat { current, limit })),
        cpu: MessageField::some(cpu_v1(stats.cpu)),
        memory: field(stats.memory, memory_v1),
        blkio: field(stats.blkio, blkio),
        rdma: field(stats.rdma, |rdma: RdmaStats| v1::RdmaStat {
            current: list(rdma.current, rdma_v1),
            limit: list(rdma.limit, rdma_v1),
            ..Default::default()
        }),
        memory_oom_control: field(stats.oom_control, oom_control),
        ..Default::default()
    }
}

fn oom_control(oom: OomControl) -> v1::MemoryOomControl {
    same!(oom => v1::MemoryOomControl { oom_kill_disable, under_oom, oom_kill })
}

fn hugetlb_v1(pages: HugetlbStatsV1) -> v1::HugetlbStat {
    same!(pages => v1::HugetlbStat { usage, max, failcnt, pagesize })
}

fn rdma_v1(device: RdmaEntry) -> v1::RdmaEntry {
    same!(device => v1::RdmaEntry { device, hca_handles, hca_objects })
}

fn cpu_v1(cpu: CpuStatsV1) -> v1::CPUStat {
    let CpuStatsV1 { usage, throttling } = cpu;
    v1::CPUStat {
        usage: MessageField::some(same!(usage => v1::CPUUsage { total, kernel, user, per_cpu })),
        throttling: MessageField::some(
            same!(throttling => v1::Throttle { periods, throttled_periods, throttled_time }),
        ),
        ..Default::default()
    }
}

fn memory_v1(memory: MemoryStatsV1) -> v1::MemoryStat {
    same!(memory => v1::MemoryStat {
        cache, rss, rss_huge, mapped_file, dirty, writeback, pg_pg_in, pg_pg_out, pg_fault,
        pg_maj_fault, inactive_anon, active_anon, inactive_file, active_file, unevictable,
        hierarchical_memory_limit, hierarchical_swap_limit, total_cache, total_rss, total_rss_huge,
        total_mapped_file, total_dirty, total_writeback, total_pg_pg_in, total_pg_pg_out,
        total_pg_fault, total_pg_maj_fault, total_inactive_anon, total_active_anon,
        total_inactive_file, total_active_file, total_unevictable,
    }
        usage: MessageField::some(memory_entry(memory.usage)),
        swap: MessageField::some(memory_entry(memory.swap)),
        kernel: MessageField::some(memory_entry(memory.kernel)),
        kernel_tcp: MessageField::some(memory_entry(memory.kernel_tcp)),
    )
}

fn memory_entry(entry: MemoryEntry) -> v1::MemoryEntry {
    same!(entry => v1::MemoryEntry { limit, usage, max, failcnt })
}

fn blkio(blkio: BlkioStats) -> v1::BlkIOStat {
    let encode = |entries| {
        list(
            entries,
            |entry: BlkioEntry| same!(entry => v1::BlkIOEntry { op, device, major, minor, value }),
        )
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: encode(blkio.io_service_bytes_recursive),
        io_serviced_recursive: encode(blkio.io_serviced_recursive),
        io_queued_recursive: encode(blkio.io_queued_recursive),
        io_service_time_recursive: encode(blkio.io_service_time_recursive),
        io_wait_time_recursive: encode(blkio.io_wait_time_recursive),
        io_merged_recursive: encode(blkio.io_merged_recursive),
        io_time_recursive: encode(blkio.io_time_recursive),
        sectors_recursive: encode(blkio.sectors_recursive),
        ..Default::default()
    }
}

fn metrics_v2(stats: StatsV2) -> v2::Metrics {
    let PidsStats { current, limit } = stats.pids;
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat { current, limit, ..Default::default() }),
        cpu: MessageField::some(cpu_v2(stats.cpu)),
        memory: MessageField::some(memory_v2(stats.memory)),
        rdma: MessageField::some(v2::RdmaStat {
            current: list(stats.rdma.current, rdma_v2),
            limit: list(stats.rdma.limit, rdma_v2),
            ..Default::default()
        }),
        io: MessageField::some(io_v2(stats.io)),
        hugetlb: list(stats.hugetlb, hugetlb_v2),
        memory_events: field(stats.memory_events, events),
        ..Default::default()
    }
}

fn events(events: MemoryEvents) -> v2::MemoryEvents {
    same!(events => v2::MemoryEvents { low, high, max, oom, oom_kill, oom_group_kill })
}

fn hugetlb_v2(pages: HugetlbStatsV2) -> v2::HugeTlbStat {
    same!(pages => v2::HugeTlbStat { current, max, failcnt, pagesize })
}

fn rdma_v2(device: RdmaEntry) -> v2::RdmaEntry {
    same!(device => v2::RdmaEntry { device, hca_handles, hca_objects })
}

fn cpu_v2(cpu: CpuStatsV2) -> v2::CPUStat {
    same!(cpu => v2::CPUStat {
        usage_usec, user_usec, system_usec, nr_periods, nr_throttled, throttled_usec, nr_bursts,
        burst_usec,
    }
        psi: field(cpu.psi, pressure),
    )
}

fn memory_v2(memory: MemoryStatsV2) -> v2::MemoryStat {
    same!(memory => v2::MemoryStat {
        anon, file, kernel_stack, slab, sock, shmem, file_mapped, file_dirty, file_writeback,
        anon_thp, inactive_anon, active_anon, inactive_file, active_file, unevictable,
        slab_reclaimable, slab_unreclaimable, pgfault, pgmajfault, workingset_refault,
        workingset_activate, workingset_nodereclaim, pgrefill, pgscan, pgsteal, pgactivate,
        pgdeactivate, pglazyfree, pglazyfreed, thp_fault_alloc, thp_collapse_alloc, usage,
        usage_limit, swap_usage, swap_limit, max_usage, swap_max_usage, workingset_refault_anon,
        workingset_refault_file, workingset_activate_anon, workingset_activate_file,
    }
        psi: field(memory.psi, pressure),
    )
}

fn io_v2(io: IoStats) -> v2::IOStat {
    v2::IOStat {
        usage: list(
            io.usage,
            |device| same!(device => v2::IOEntry { major, minor, rbytes, wbytes, rios, wios }),
        ),
        psi: field(io.psi, pressure),
        ..Default::default()
    }
}

fn pressure(pressure: Pressure) -> v2::PSIStats {
    let line = |line: PressureLine| same!(line => v2::PSIData { avg10, avg60, avg300, total });
    v2::PSIStats {
        some: field(pressure.some, line),
        full: field(pressure.full, line),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_counters_travel_as_v1_metrics() {
        let stats = StatsV1 {
            pids: Some(PidsStats { current: 3, limit: 0 }),
            memory: Some(MemoryStatsV1 {
                total_rss: 7,
                swap: MemoryEntry { limit: 9, ..Default::default() },
                ..Default::default()
            }),
            blkio: Some(BlkioStats {
                sectors_recursive: vec![BlkioEntry { major: 8, value: 5, ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let any = to_any(Stats::V1(Box::new(stats)));
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.pids.current, 3);
        assert_eq!((metrics.memory.total_rss, metrics.memory.swap.limit), (7, 9));
        assert_eq!(metrics.blkio.sectors_recursive[0].value, 5);
        assert!(metrics.cpu.usage.is_some(), "containerd reads it without looking");
        assert!(metrics.rdma.is_none());
    }

    #[test]
    fn v2_counters_travel_as_v2_metrics() {
        let line = PressureLine { avg10: 0.5, total: 4, ..Default::default() };
        let stats = StatsV2 {
            cpu: CpuStatsV2 {
                burst_usec: 2,
                psi: Some(Pressure { some: Some(line), full: None }),
                ..Default::default()
            },
            memory_events: Some(MemoryEvents { oom_group_kill: 1, ..Default::default() }),
            ..Default::default()
        };
        let any = to_any(Stats::V2(Box::new(stats)));
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.burst_usec, 2);
        assert_eq!((metrics.cpu.psi.some.avg10, metrics.cpu.psi.some.total), (0.5, 4));
        assert!(metrics.cpu.psi.full.is_none());
        assert_eq!(metrics.memory_events.oom_group_kill, 1);
    }
}
