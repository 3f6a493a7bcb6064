//! Containers made by the shim itself: namespaces, cgroups, mounts and seccomp, without `runc`.
//!
//! [`NativeBackend`] is a [`Backend`](shim_core::Backend) for shim-core, which does everything
//! else. `backend` and `container` are its verbs, `engine` is where the kernel work is. `external`
//! has another OCI runtime do it, where the options name one.
//! [`runtime`] is the same engine for a command line, each of whose verbs is a process of its own.

mod ahead;
mod backend;
mod container;
mod engine;
mod external;
mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ground;
mod making;
mod options;
mod record;
#[cfg(test)]
#[path = "../../shim-core/src/fuzzing/replay.rs"]
mod replay;
mod rootless;
pub mod runtime;
mod spec;

pub use backend::NativeBackend;
pub use rootless::is_rootless;
