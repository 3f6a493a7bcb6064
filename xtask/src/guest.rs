//! `cargo xtask guest`: a command in a virtual machine with systemd and cgroup v2.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::sh;

/// All, as `cargo test --workspace` has it: another selection would have other features, and be built
/// again.
const SELECTION: [&str; 1] = ["--workspace"];

/// Builds all of it, tests too and without optimising, and runs the command there.
pub(crate) fn guest(arguments: &[&str]) -> Result<ExitCode> {
    sh::run(sh::cargo().args(["test", "--no-run", "--quiet"]).args(SELECTION))?;
    let cargo = sh::cargo();
    let mut guest = Command::new(sh::target().join("debug/guest"));
    guest.env("CARGO", cargo.get_program()).current_dir(sh::root());
    let status = sh::status(guest.args(arguments))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
