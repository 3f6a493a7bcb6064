//! Counters of cgroup v1. Memory is in bytes; time is in nanoseconds.

use super::{PidsStats, RdmaStats};

/// Counters of cgroup v1; a part whose hierarchy is not mounted is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsV1 {
    /// Processes and threads.
    pub pids: Option<PidsStats>,
    /// Processor time.
    pub cpu: CpuStatsV1,
    /// Memory.
    pub memory: Option<MemoryStatsV1>,
    /// What the kernel does and did when memory ran out.
    pub memory_oom_control: Option<OomControl>,
    /// Block devices.
    pub blkio: Option<BlkioStats>,
    /// Huge pages, one entry a page size.
    pub hugetlb: Vec<HugetlbStatsV1>,
    /// RDMA devices.
    pub rdma: Option<RdmaStats>,
}

/// Processor time on v1, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuStatsV1 {
    /// What was used.
    pub usage: CpuUsage,
    /// What was held back.
    pub throttling: Throttling,
}

/// Processor time that was used, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuUsage {
    /// In all.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In user space.
    pub user: u64,
    /// By processor.
    pub per_cpu: Vec<u64>,
}

/// Processor time that a quota held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// How long threads had to wait, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory on v1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryStatsV1 {
    /// Page cache.
    pub cache: u64,
    /// Anonymous memory, huge pages and cached swap among it.
    pub rss: u64,
    /// Anonymous transparent huge pages.
    pub rss_huge: u64,
    /// Mapped files.
    pub mapped_file: u64,
    /// Waiting to be written to disk.
    pub dirty: u64,
    /// Being written to disk.
    pub writeback: u64,
    /// Pages charged.
    pub pg_pg_in: u64,
    /// Pages uncharged.
    pub pg_pg_out: u64,
    /// Page faults.
    pub pg_fault: u64,
    /// Page faults that needed the disk.
    pub pg_maj_fault: u64,
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
    /// The lowest limit of memory from here to the root.
    pub hierarchical_memory_limit: u64,
    /// The lowest limit of memory and swap from here to the root.
    pub hierarchical_swap_limit: u64,
    /// `cache`, descendants too.
    pub total_cache: u64,
    /// `rss`, descendants too.
    pub total_rss: u64,
    /// `rss_huge`, descendants too.
    pub total_rss_huge: u64,
    /// `mapped_file`, descendants too.
    pub total_mapped_file: u64,
    /// `dirty`, descendants too.
    pub total_dirty: u64,
    /// `writeback`, descendants too.
    pub total_writeback: u64,
    /// `pg_pg_in`, descendants too.
    pub total_pg_pg_in: u64,
    /// `pg_pg_out`, descendants too.
    pub total_pg_pg_out: u64,
    /// `pg_fault`, descendants too.
    pub total_pg_fault: u64,
    /// `pg_maj_fault`, descendants too.
    pub total_pg_maj_fault: u64,
    /// `inactive_anon`, descendants too.
    pub total_inactive_anon: u64,
    /// `active_anon`, descendants too.
    pub total_active_anon: u64,
    /// `inactive_file`, descendants too.
    pub total_inactive_file: u64,
    /// `active_file`, descendants too.
    pub total_active_file: u64,
    /// `unevictable`, descendants too.
    pub total_unevictable: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap.
    pub swap: MemoryEntry,
    /// The kernel's memory.
    pub kernel: MemoryEntry,
    /// The kernel's buffers of TCP.
    pub kernel_tcp: MemoryEntry,
}

/// One kind of memory and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    /// How much there may be.
    pub limit: u64,
    /// How much there is.
    pub usage: u64,
    /// How much there was at most.
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

/// What the kernel does and did when memory ran out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomControl {
    /// 1 when processes wait instead of being killed.
    pub oom_kill_disable: u64,
    /// 1 while they wait.
    pub under_oom: u64,
    /// How many processes were killed.
    pub oom_kill: u64,
}

/// Block devices on v1, descendants included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlkioStats {
    /// Bytes moved.
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Requests that wait.
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Time from dispatch to completion.
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Time spent waiting.
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Requests merged into others.
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Time on the disk, in milliseconds.
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors moved.
    pub sectors_recursive: Vec<BlkioEntry>,
}

/// One counter of one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`; empty where the file has none.
    pub op: String,
    /// The device's path, empty when it has none.
    pub device: String,
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// The count.
    pub value: u64,
}

/// Huge pages of one size on v1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStatsV1 {
    /// How much there is.
    pub usage: u64,
    /// How much there was at most.
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
    /// The size as the kernel writes it: `2MB`.
    pub pagesize: String,
}
