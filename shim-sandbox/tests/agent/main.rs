//! The agent as a plain process, and the host's half over it: real containers, as root, without a machine.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says when it is skipped"
)]

mod bytes;
#[path = "../../../shim-runc/tests/common/mod.rs"]
mod common;
mod death;
mod hostile;
mod life;
mod pod;
mod world;
