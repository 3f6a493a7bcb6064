//! `cargo xtask faults`: the fault matrix with many rounds a cell, and its page.

use std::process::ExitCode;

use anyhow::Result;

use crate::{build, sh};

/// Enough for a blow at each tenth of a step, and for ten depths of each want.
const ROUNDS: &str = "12";

/// Builds the shim as users run it, plays the matrix, and writes `docs/faults.md`.
///
/// Further arguments name cells; the page has the others as not run.
pub(crate) fn faults(arguments: &[&str]) -> Result<ExitCode> {
    build::shim()?;
    let docs = sh::root().join("docs");
    std::fs::create_dir_all(&docs)?;
    let mut test = sh::cargo();
    test.args(["test", "--package", "integration", "--test", "faults", "--"]).args(arguments);
    test.env("SHIM_DIR", sh::target().join("release"));
    test.env("FAULTS_REPORT", docs.join("faults.md"));
    if std::env::var_os("FAULTS_ROUNDS").is_none() {
        test.env("FAULTS_ROUNDS", ROUNDS);
    }
    let status = sh::status(&mut test)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
