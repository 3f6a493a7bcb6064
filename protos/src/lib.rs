//! containerd's wire types for shims: messages, and the ttrpc services in both directions.
//!
//! One module an interface. The `.proto` files are in `proto/`, with containerd's names and
//! numbers; what is built from them is re-exported here, so that no path shows the generator's
//! own layout.
//!
//! Two rules for those who use it:
//! - A service's generated default answers `NOT_FOUND`, but containerd asks for `UNIMPLEMENTED`:
//!   write all of its methods.
//! - The messages carry no reflection (lite runtime), so `Any::pack` does not work on them. Write
//!   [`Any`] with its type URL, which containerd wants bare: `containerd.events.TaskExit`.

#![forbid(unsafe_code)]

pub use protobuf;
pub use protobuf::well_known_types::any::Any;
pub use protobuf::well_known_types::empty::Empty;
pub use protobuf::well_known_types::timestamp::Timestamp;

#[allow(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    clippy::use_self,
    missing_debug_implementations,
    unreachable_pub,
    reason = "written by a generator"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

/// `containerd.task.v3`: drives a container's processes (containerd 2.x).
pub mod task {
    pub use crate::generated::task::*;
    pub use crate::generated::task_ttrpc::*;
}

/// `containerd.task.v2`: the same service under its older name (containerd 1.x).
///
/// The messages are the very types of [`task`]: one implementation can serve both.
pub mod task_v2 {
    pub use crate::generated::task::*;
    pub use crate::generated::task_v2_ttrpc::*;
}

/// `containerd.runtime.sandbox.v1`: drives what the containers of a pod share.
pub mod sandbox {
    pub use crate::generated::sandbox::*;
    pub use crate::generated::sandbox_ttrpc::*;
}

/// `containerd.runtime.bootstrap.v1`: stdin and stdout of a shim's `start` (containerd 2.3 on).
pub mod bootstrap {
    pub use crate::generated::bootstrap::*;
}

/// `containerd.events`: the payloads that a shim publishes.
pub mod events {
    pub use crate::generated::events::*;
}

/// `containerd.services.events.ttrpc.v1`: the service that takes a shim's events.
pub mod forward {
    pub use crate::generated::forward::*;
    pub use crate::generated::forward_ttrpc::*;
    pub use crate::generated::types::Envelope;
}

/// `containerd.services.streaming.v1` and `containerd.types.transfer`: streams of bytes over ttrpc
/// (containerd 2.x).
///
/// The messages go as [`Any`], with their bare names as type URLs.
pub mod streaming {
    pub use crate::generated::streaming::*;
    pub use crate::generated::streaming_ttrpc::*;
    pub use crate::generated::transfer::*;
}

/// `containerd.types` and `containerd.v1.types`: what the other interfaces share.
pub mod types {
    pub use crate::generated::task_types::*;
    pub use crate::generated::types::*;
}

/// `containerd.runc.v1`: options and process details of shims for OCI runtimes.
pub mod runc {
    pub use crate::generated::runc::*;
}

/// `containerd.linux.runc`: options as clients of containerd 1.x still send them.
pub mod runctypes {
    pub use crate::generated::runctypes::*;
}

/// `runtimeoptions.v1`: options that CRI passes to runtimes it has no message for.
pub mod runtimeoptions {
    pub use crate::generated::runtimeoptions::*;
}

/// `io.containerd.cgroups.v1`: a container's counters on cgroup v1.
pub mod cgroups_v1 {
    pub use crate::generated::cgroups_v1::*;
}

/// `io.containerd.cgroups.v2`: a container's counters on cgroup v2.
pub mod cgroups_v2 {
    pub use crate::generated::cgroups_v2::*;
}

/// `runtime.v1`, Kubernetes' interface to containerd: what a pod is to be, which containerd passes on to
/// shims that make sandboxes. As much of it as they use.
pub mod cri {
    pub use crate::generated::cri::*;
}

/// CRIU's requests and answers: how processes are saved and restored. No interface of containerd's.
pub mod criu {
    pub use crate::generated::criu::*;
}

/// `shim.guest.v1`: what the two halves of a sandbox say to each other beside [`task`]. An interface of
/// ours.
pub mod guest {
    pub use crate::generated::guest::*;
    pub use crate::generated::guest_ttrpc::*;
}

#[cfg(test)]
mod tests;
