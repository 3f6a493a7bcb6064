//! The command line, as its callers use it: real containers, as root, each verb a process of its own.
//! Each test ends with a look for what it left on the host.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says when it is skipped"
)]

mod checkpoint;
#[path = "../common/mod.rs"]
mod common;
mod containerd;
mod crash;
mod exec;
mod hooks;
mod life;
mod look;
mod notify;
mod podman;
mod rootless;
mod run;
mod security;
mod systemd;
mod terminal;
mod world;
