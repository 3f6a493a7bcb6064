//! Containers made by the shim itself: namespaces, cgroups, mounts and seccomp, without `runc`.
//!
//! [`NativeBackend`] is a [`Backend`](shim_core::Backend) for shim-core, which does everything
//! else. `backend` and `container` are its verbs, `engine` is where the kernel work is. `external`
//! has another OCI runtime do it, where the options name one.
//! [`runtime`] is the same engine for a command line, each of whose verbs is a process of its own.

mod ahead;
mod backend;
mod cage;
mod container;
mod engine;
mod external;
mod features;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ground;
mod making;
mod options;
mod programs;
mod record;
#[cfg(test)]
#[path = "../../shim-core/src/fuzzing/replay.rs"]
mod replay;
mod rootless;
pub mod runtime;
mod saved;
mod spec;

pub use backend::NativeBackend;
pub use cage::Cage;
pub use external::OciRuntime;
pub use rootless::is_rootless;

/// Removes what a dead shim left of a container of [`OciRuntime`]'s, and waits until its processes are gone.
/// Succeeds when nothing is left.
///
/// # Errors
/// What could not be removed, and why.
pub fn clean_up(
    id: &shim_core::model::ContainerId,
    bundle: &shim_core::model::Bundle,
) -> shim_core::Result<()> {
    record::clean_up(id, bundle)
}

/// Whether a bundle's container of [`OciRuntime`]'s has been made and not yet deleted.
pub fn has_record(bundle: &shim_core::model::Bundle) -> bool {
    record::Record::is_there(bundle)
}

/// Makes a tap interface in the network namespace of this thread, for a virtual machine: each read and
/// write is a frame behind virtio's header. It is gone when the file is closed.
///
/// # Errors
/// What the kernel says: the name is taken, or none that an interface can have.
pub fn open_tap(name: &str) -> shim_core::Result<std::os::fd::OwnedFd> {
    use shim_core::Context;
    engine::sys::open_tap(name).with_context(|| format!("make the tap interface {name}"))
}
