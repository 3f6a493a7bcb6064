//! Pods in virtual machines: a guest with a kernel of its own, and in it the engine that makes containers
//! on the host.
//!
//! One program is both halves. On the host it is a shim: it boots the guest, shares root filesystems and
//! volumes with it, and has each container of the pod made there. In the guest it is the first process:
//! shim-core's task service over shim-runc's engine. Between them is one line, on which `channel` lays as
//! many streams as are needed.

pub mod channel;
pub mod config;
pub mod host;
pub mod journal;
pub mod net;

use std::process::ExitCode;

/// The whole of `main`.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
