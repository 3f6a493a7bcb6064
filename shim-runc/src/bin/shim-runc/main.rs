//! `shim-runc`: the engine as an OCI runtime, for whoever executes one: Podman, Docker, buildah, the
//! shims that drive runc. The verbs and flags are runc's.

#![forbid(unsafe_code)]

mod checkpoint;
mod cli;
mod events;
mod exec;
mod life;
mod log;
mod look;
mod session;
mod signals;
mod spec;
mod update;

use std::process::ExitCode;

fn main() -> ExitCode {
    shim_runc::runtime::run_stem_if_asked();
    cli::main()
}
