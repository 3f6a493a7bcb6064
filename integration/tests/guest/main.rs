//! What needs systemd or a machine with cgroup v2 alone, in a guest that has both.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    integration::guest::agent::serve().unwrap_or_else(integration::guest::lists::main)
}
