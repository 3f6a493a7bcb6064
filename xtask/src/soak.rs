//! `cargo xtask soak`: ten thousand lives through one shim, and its page with plots.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{build, sh};

/// Builds the shim and the soak as users would run them, and writes `docs/soak.md`.
///
/// Further arguments go to the soak: `--cycles 100000`, `--at-once 16`.
pub(crate) fn soak(arguments: &[&str]) -> Result<ExitCode> {
    build::shim()?;
    sh::run(sh::cargo().args(["build", "--package", "integration", "--bin", "soak"]))?;
    let docs = sh::root().join("docs");
    std::fs::create_dir_all(&docs)?;
    let mut soak = Command::new(sh::target().join("debug/soak"));
    soak.env("SHIM_DIR", sh::target().join("release")).arg("--out").arg(docs).args(arguments);
    let status = sh::status(&mut soak)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
