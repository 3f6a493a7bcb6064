//! The use of resources, as the kernel's cgroup files tell it.
//!
//! The fields are those of containerd's metrics, under their names there; a counter that the kernel
//! does not offer is 0. Memory is in bytes; time is in nanoseconds on v1, in microseconds on v2.

mod v1;
mod v2;

pub use v1::*;
pub use v2::*;

/// What a container uses. The variants differ as the two versions of the kernel's interface do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Stats {
    /// From cgroup v1, hybrid hosts too.
    V1(Box<StatsV1>),
    /// From cgroup v2.
    V2(Box<StatsV2>),
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; no limit is 0 on v1 and `u64::MAX` on v2, as containerd has it.
    pub limit: u64,
}

/// RDMA devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RdmaStats {
    /// What is in use.
    pub current: Vec<RdmaEntry>,
    /// What may be; `u32::MAX` is no limit.
    pub limit: Vec<RdmaEntry>,
}

/// One RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// Its name.
    pub device: String,
    /// Handles.
    pub hca_handles: u32,
    /// Objects.
    pub hca_objects: u32,
}
