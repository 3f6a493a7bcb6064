//! `shimctl`: runs any containerd shim without containerd.

#![forbid(unsafe_code)]

mod bench;
mod cli;
mod session;
mod terminal;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
