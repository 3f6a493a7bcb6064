//! Containers made by the shim itself: namespaces, cgroups, mounts and seccomp, without `runc`.
//!
//! [`NativeBackend`] is a [`Backend`](shim_core::Backend) for shim-core, which does everything
//! else. `backend` and `container` are its verbs, `engine` is where the kernel work is.

mod backend;
mod container;
mod engine;
mod features;
mod making;
mod options;
mod record;
pub mod runtime;
mod spec;

pub use backend::NativeBackend;
pub use container::NativeContainer;
