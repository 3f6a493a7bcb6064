//! The shim contract of containerd as a library: a backend in, a shim out.
//!
//! containerd executes a *shim* for each container or pod; it serves a small ttrpc API and owns the
//! container's processes, stdio and exit status. All of that is here. A shim is written by
//! implementing [`Backend`] and [`Container`], the verbs of the kernel work, and handing the
//! backend to [`run`]:
//!
//! ```text
//! fn main() -> std::process::ExitCode {
//!     shim_core::run(Plain)
//! }
//! ```
//!
//! `examples/containerd-shim-plain-v1.rs` is a whole shim on one screen.
//!
//! What it does not do: make containers. That is the backend's part, and the framework knows none.
//!
//! The way of a request: `service` decodes it, `lifecycle` says whether it is legal now, takes the
//! process's turn and tells the events, the backend does the work. `entry` is a shim process from
//! exec to exit, `event` the queue to containerd, `linux` what the framework needs of the kernel.

pub mod backend;
mod entry;
pub mod error;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod lifecycle;
pub mod linux;
mod log;
pub mod model;
mod service;

pub use backend::{
    Backend, Checkpoint, Coming, Container, Create, CreateSandbox, Created, Exec, Host, Init,
    Process, Resize, Sandbox, SandboxBackend, SandboxProcess, Streams, Target, Terminal, Update,
};
pub use entry::{TaskServer, run, run_sandbox};
pub use error::{Context, Error, Kind, Result};
pub use log::rfc3339;
pub use oci_spec::runtime as oci;
pub use service::stats::decode_stats;
