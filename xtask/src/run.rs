//! `cargo xtask run`: the main job in one command, with nothing but what this repository builds.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{build, sh};

/// Builds `shimctl` and the native shim, and runs a container with them.
pub(crate) fn run(arguments: &[&str]) -> Result<ExitCode> {
    build::shim()?;
    build::shimctl()?;
    // It looks for the shim beside itself.
    let shimctl = sh::target().join("release/shimctl");
    let status = sh::status(Command::new(shimctl).arg("run").args(arguments))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
