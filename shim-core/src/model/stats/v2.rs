//! Counters of cgroup v2. Memory is in bytes; time is in microseconds.

use super::{PidsStats, RdmaStats};

/// Counters of cgroup v2; a part whose controller is not enabled is zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsV2 {
    /// Processes and threads.
    pub pids: PidsStats,
    /// Processor time.
    pub cpu: CpuStatsV2,
    /// Memory.
    pub memory: MemoryStatsV2,
    /// How often limits of memory were met.
    pub memory_events: Option<MemoryEvents>,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages, one entry a page size.
    pub hugetlb: Vec<HugetlbStatsV2>,
    /// RDMA devices.
    pub rdma: RdmaStats,
}

/// Processor time on v2, in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuStatsV2 {
    /// In all.
    pub usage_usec: u64,
    /// In user space.
    pub user_usec: u64,
    /// In the kernel.
    pub system_usec: u64,
    /// Periods of the quota that have passed.
    pub nr_periods: u64,
    /// Those in which the quota was used up.
    pub nr_throttled: u64,
    /// How long threads had to wait.
    pub throttled_usec: u64,
    /// Periods in which the quota was overdrawn.
    pub nr_bursts: u64,
    /// By how much in all.
    pub burst_usec: u64,
    /// Stalls for want of a processor.
    pub psi: Option<Pressure>,
}

/// Memory on v2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryStatsV2 {
    /// Anonymous memory.
    pub anon: u64,
    /// Page cache, shared memory among it.
    pub file: u64,
    /// Stacks of threads in the kernel.
    pub kernel_stack: u64,
    /// The kernel's own objects.
    pub slab: u64,
    /// Network buffers.
    pub sock: u64,
    /// Shared memory.
    pub shmem: u64,
    /// Mapped files.
    pub file_mapped: u64,
    /// Waiting to be written to disk.
    pub file_dirty: u64,
    /// Being written to disk.
    pub file_writeback: u64,
    /// Anonymous transparent huge pages.
    pub anon_thp: u64,
    /// Anonymous memory not used for a while.
    pub inactive_anon: u64,
    /// Anonymous memory in use.
    pub active_anon: u64,
    /// Files' memory not used for a while.
    pub inactive_file: u64,
    /// Files' memory in use.
    pub active_file: u64,
    /// Memory that can't be reclaimed.
    pub unevictable: u64,
    /// The kernel's objects that can be dropped.
    pub slab_reclaimable: u64,
    /// The kernel's objects that can't.
    pub slab_unreclaimable: u64,
    /// Page faults.
    pub pgfault: u64,
    /// Page faults that needed the disk.
    pub pgmajfault: u64,
    /// Pages read again after they were dropped, on kernels that don't tell the kinds apart.
    pub workingset_refault: u64,
    /// Those of them in use at once; likewise.
    pub workingset_activate: u64,
    /// Shadow nodes reclaimed.
    pub workingset_nodereclaim: u64,
    /// Pages scanned in active lists.
    pub pgrefill: u64,
    /// Pages scanned in inactive lists.
    pub pgscan: u64,
    /// Pages reclaimed.
    pub pgsteal: u64,
    /// Pages moved to the active list.
    pub pgactivate: u64,
    /// Pages moved to the inactive list.
    pub pgdeactivate: u64,
    /// Pages whose freeing was put off.
    pub pglazyfree: u64,
    /// Those that were freed.
    pub pglazyfreed: u64,
    /// Huge pages made for page faults.
    pub thp_fault_alloc: u64,
    /// Huge pages made from small ones.
    pub thp_collapse_alloc: u64,
    /// How much there is.
    pub usage: u64,
    /// How much there may be; `u64::MAX` is no limit.
    pub usage_limit: u64,
    /// Swap in use.
    pub swap_usage: u64,
    /// How much there may be of it.
    pub swap_limit: u64,
    /// How much memory there was at most.
    pub max_usage: u64,
    /// How much swap there was at most.
    pub swap_max_usage: u64,
    /// Anonymous pages read again after they were dropped.
    pub workingset_refault_anon: u64,
    /// Files' pages read again after they were dropped.
    pub workingset_refault_file: u64,
    /// Anonymous ones of them in use at once.
    pub workingset_activate_anon: u64,
    /// Files' ones of them in use at once.
    pub workingset_activate_file: u64,
    /// Stalls for want of memory.
    pub psi: Option<Pressure>,
}

/// How often limits of memory were met, on v2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Reclaimed below `memory.low`.
    pub low: u64,
    /// Throttled over `memory.high`.
    pub high: u64,
    /// About to go over `memory.max`.
    pub max: u64,
    /// Out of memory.
    pub oom: u64,
    /// Processes killed.
    pub oom_kill: u64,
    /// Whole groups killed.
    pub oom_group_kill: u64,
}

/// Block devices on v2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IoStats {
    /// One entry a device.
    pub usage: Vec<IoEntry>,
    /// Stalls for want of a disk.
    pub psi: Option<Pressure>,
}

/// One block device on v2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Reads.
    pub rios: u64,
    /// Writes.
    pub wios: u64,
}

/// Huge pages of one size on v2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStatsV2 {
    /// How much there is.
    pub current: u64,
    /// How much there may be; `u64::MAX` is no limit.
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
    /// The size as the kernel writes it: `2MB`.
    pub pagesize: String,
}

/// A pressure file: how long work stood still for want of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// While at least one thread waited.
    pub some: Option<PressureLine>,
    /// While all waited.
    pub full: Option<PressureLine>,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureLine {
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// In all, in microseconds.
    pub total: u64,
}
