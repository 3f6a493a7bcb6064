//! `cargo xtask ci`: every check, the cheap ones first.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{build, sh, tidy};

/// Runs all checks and stops at the first that fails.
pub(crate) fn ci() -> Result<ExitCode> {
    step("fmt", || sh::run(sh::cargo().args(["fmt", "--all", "--check"])))?;
    step("tidy", tidy::check)?;
    step("clippy", || {
        let lint = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        sh::run(sh::cargo().args(lint))
    })?;
    // Off by default, so nothing else looks at it.
    step("otel", || {
        let lint = ["clippy", "--package", "shim-core", "--features", "otel", "--all-targets"];
        sh::run(sh::cargo().args(lint).args(["--quiet", "--", "-D", "warnings"]))?;
        let test = ["test", "--package", "shim-core", "--features", "otel", "--quiet", "trace"];
        sh::run(sh::cargo().args(test))
    })?;
    step("doc", || {
        let mut doc = sh::cargo();
        doc.env("RUSTDOCFLAGS", "-D warnings");
        sh::run(doc.args(["doc", "--workspace", "--no-deps", "--quiet"]))
    })?;
    // What users run is what is tested; its size is a budget of its own.
    step("build", || {
        build::shim()?;
        build::shimctl()
    })?;
    step("test", || sh::run(sh::cargo().args(["test", "--workspace"])))?;
    Ok(ExitCode::SUCCESS)
}

fn step(name: &'static str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let begun = Instant::now();
    check().context(name)?;
    let took = Duration::from_secs(begun.elapsed().as_secs());
    println!("== {name}: fine after {took:?}");
    Ok(())
}
