//! Counters as containerd's metrics: which message it is tells the client the cgroup version.
//!
//! Both ways: a shim may pass on what another one has counted.

use shim_protos::{
    Any, cgroups_v1 as v1, cgroups_v2 as v2,
    protobuf::{Message, MessageField},
};

use crate::{
    error::{Error, Result},
    model::{
        BlkioEntry, BlkioStats, CpuStatsV1, CpuStatsV2, CpuUsage, HugetlbStatsV1, HugetlbStatsV2,
        IoEntry, IoStats, MemoryEntry, MemoryEvents, MemoryStatsV1, MemoryStatsV2, OomControl,
        PidsStats, Pressure, PressureLine, RdmaEntry, RdmaStats, Stats, StatsV1, StatsV2,
        Throttling,
    },
};

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// Encodes what a backend has counted.
pub(crate) fn to_any(stats: Stats) -> Any {
    let (name, value) = match stats {
        Stats::V1(stats) => (V1, Wire::<v1::Metrics>::encode(*stats).write_to_bytes()),
        Stats::V2(stats) => (V2, Wire::<v2::Metrics>::encode(*stats).write_to_bytes()),
    };
    Any {
        type_url: name.to_owned(),
        value: value.expect("a message without required fields always encodes"),
        ..Default::default()
    }
}

/// Decodes what another shim has counted, as its answer to Stats has it: the name of a message, and the
/// message.
///
/// # Errors
/// `Unsupported` for a message of another name, `InvalidArgument` for one that is not what its name says.
pub fn decode_stats(type_url: &str, value: &[u8]) -> Result<Stats> {
    let parse = |err| Error::invalid(format!("decode {type_url}: {err}"));
    match type_url.rsplit('/').next() {
        Some(V1) => {
            let metrics = v1::Metrics::parse_from_bytes(value).map_err(parse)?;
            Ok(Stats::V1(Box::new(Wire::decode(metrics))))
        }
        Some(V2) => {
            let metrics = v2::Metrics::parse_from_bytes(value).map_err(parse)?;
            Ok(Stats::V2(Box::new(Wire::decode(metrics))))
        }
        _ => {
            let why = format!("metrics of type {type_url:?} are unknown");
            Err(Error::new(crate::error::Kind::Unsupported, why))
        }
    }
}

/// What is a message on the wire.
trait Wire<M> {
    fn encode(self) -> M;
    fn decode(message: M) -> Self;
}

/// What is a message's field on the wire.
trait Part<F> {
    fn pack(self) -> F;
    fn unpack(field: F) -> Self;
}

impl<T: Wire<M>, M> Part<MessageField<M>> for Option<T> {
    fn pack(self) -> MessageField<M> {
        MessageField::from_option(self.map(Wire::encode))
    }

    fn unpack(field: MessageField<M>) -> Self {
        field.into_option().map(Wire::decode)
    }
}

impl<T: Wire<M>, M> Part<Vec<M>> for Vec<T> {
    fn pack(self) -> Vec<M> {
        self.into_iter().map(Wire::encode).collect()
    }

    fn unpack(field: Vec<M>) -> Self {
        field.into_iter().map(Wire::decode).collect()
    }
}

/// What is the same on both sides.
macro_rules! plain {
    ($($plain:ty),*) => {
        $(impl Part<$plain> for $plain {
            fn pack(self) -> $plain {
                self
            }

            fn unpack(field: $plain) -> Self {
                field
            }
        })*
    };
}

/// A message with all the fields of a struct under the same names.
macro_rules! wire {
    ($($model:ident = $version:ident::$message:ident { $($field:ident),* $(,)? })*) => {
        $(impl Wire<$version::$message> for $model {
            fn encode(self) -> $version::$message {
                let Self { $($field),* } = self;
                $version::$message { $($field: Part::pack($field),)* ..Default::default() }
            }

            fn decode(message: $version::$message) -> Self {
                Self { $($field: Part::unpack(message.$field)),* }
            }
        }

        impl Part<MessageField<$version::$message>> for $model {
            fn pack(self) -> MessageField<$version::$message> {
                MessageField::some(self.encode())
            }

            fn unpack(field: MessageField<$version::$message>) -> Self {
                Self::decode(field.into_option().unwrap_or_default())
            }
        })*
    };
}

plain!(u32, u64, f64, String, Vec<u64>);

wire! {
    StatsV1 = v1::Metrics { pids, cpu, memory, memory_oom_control, blkio, hugetlb, rdma }
    PidsStats = v1::PidsStat { current, limit }
    OomControl = v1::MemoryOomControl { oom_kill_disable, under_oom, oom_kill }
    HugetlbStatsV1 = v1::HugetlbStat { usage, max, failcnt, pagesize }
    RdmaStats = v1::RdmaStat { current, limit }
    RdmaEntry = v1::RdmaEntry { device, hca_handles, hca_objects }
    CpuStatsV1 = v1::CPUStat { usage, throttling }
    CpuUsage = v1::CPUUsage { total, kernel, user, per_cpu }
    Throttling = v1::Throttle { periods, throttled_periods, throttled_time }
    MemoryStatsV1 = v1::MemoryStat {
        cache, rss, rss_huge, mapped_file, dirty, writeback, pg_pg_in, pg_pg_out, pg_fault,
        pg_maj_fault, inactive_anon, active_anon, inactive_file, active_file, unevictable,
        hierarchical_memory_limit, hierarchical_swap_limit, total_cache, total_rss, total_rss_huge,
        total_mapped_file, total_dirty, total_writeback, total_pg_pg_in, total_pg_pg_out,
        total_pg_fault, total_pg_maj_fault, total_inactive_anon, total_active_anon,
        total_inactive_file, total_active_file, total_unevictable, usage, swap, kernel, kernel_tcp,
    }
    MemoryEntry = v1::MemoryEntry { limit, usage, max, failcnt }
    BlkioStats = v1::BlkIOStat {
        io_service_bytes_recursive, io_serviced_recursive, io_queued_recursive,
        io_service_time_recursive, io_wait_time_recursive, io_merged_recursive, io_time_recursive,
        sectors_recursive,
    }
    BlkioEntry = v1::BlkIOEntry { op, device, major, minor, value }
}

wire! {
    StatsV2 = v2::Metrics { pids, cpu, memory, memory_events, io, hugetlb, rdma }
    PidsStats = v2::PidsStat { current, limit }
    MemoryEvents = v2::MemoryEvents { low, high, max, oom, oom_kill, oom_group_kill }
    HugetlbStatsV2 = v2::HugeTlbStat { current, max, failcnt, pagesize }
    RdmaStats = v2::RdmaStat { current, limit }
    RdmaEntry = v2::RdmaEntry { device, hca_handles, hca_objects }
    CpuStatsV2 = v2::CPUStat {
        usage_usec, user_usec, system_usec, nr_periods, nr_throttled, throttled_usec, nr_bursts,
        burst_usec, psi,
    }
    MemoryStatsV2 = v2::MemoryStat {
        anon, file, kernel_stack, slab, sock, shmem, file_mapped, file_dirty, file_writeback,
        anon_thp, inactive_anon, active_anon, inactive_file, active_file, unevictable,
        slab_reclaimable, slab_unreclaimable, pgfault, pgmajfault, workingset_refault,
        workingset_activate, workingset_nodereclaim, pgrefill, pgscan, pgsteal, pgactivate,
        pgdeactivate, pglazyfree, pglazyfreed, thp_fault_alloc, thp_collapse_alloc, usage,
        usage_limit, swap_usage, swap_limit, max_usage, swap_max_usage, workingset_refault_anon,
        workingset_refault_file, workingset_activate_anon, workingset_activate_file, psi,
    }
    IoStats = v2::IOStat { usage, psi }
    IoEntry = v2::IOEntry { major, minor, rbytes, wbytes, rios, wios }
    Pressure = v2::PSIStats { some, full }
    PressureLine = v2::PSIData { avg10, avg60, avg300, total }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that are messages of all kinds: numbers, fractions, and messages in messages.
    fn random(seed: &mut u64, depth: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut next = |below: u64| {
            *seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*seed >> 33) % below
        };
        let fields: Vec<_> =
            (0..next(30)).map(|_| (next(45) + 1, next(3), next(1 << 20))).collect();
        for (field, kind, value) in fields {
            match kind {
                0 => {
                    varint(&mut bytes, field << 3);
                    varint(&mut bytes, value);
                }
                1 => {
                    varint(&mut bytes, field << 3 | 1);
                    let fraction = f64::from(u32::try_from(value).unwrap()) / 8.0;
                    bytes.extend(fraction.to_le_bytes());
                }
                _ => {
                    let inner = if depth > 0 { random(seed, depth - 1) } else { b"text".into() };
                    varint(&mut bytes, field << 3 | 2);
                    varint(&mut bytes, inner.len() as u64);
                    bytes.extend(inner);
                }
            }
        }
        bytes
    }

    fn varint(bytes: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
    }

    #[test]
    fn what_another_shim_counted_is_passed_on_as_it_is() {
        let (mut seed, mut telling) = (1, 0);
        for round in 0..4000 {
            let bytes = random(&mut seed, round % 4);
            for name in [V1, V2] {
                // A text that is none is refused.
                let Ok(stats) = decode_stats(name, &bytes) else { continue };
                let any = to_any(stats.clone());
                assert_eq!(any.type_url, name);
                telling += usize::from(any.value.len() > 20);
                assert_eq!(decode_stats(name, &any.value).unwrap(), stats);
            }
        }
        assert!(telling > 300, "{telling} rounds said something");
    }

    #[test]
    fn foreign_metrics_are_refused_by_name() {
        let err = decode_stats("example.Windows", &[]).unwrap_err();
        assert_eq!(err.kind(), crate::Kind::Unsupported);
        assert!(err.to_string().contains("example.Windows"));
        let err = decode_stats(V2, &[0xff]).unwrap_err();
        assert_eq!(err.kind(), crate::Kind::InvalidArgument);
        assert!(decode_stats(&format!("type.googleapis.com/{V2}"), &[]).is_ok());
    }

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
