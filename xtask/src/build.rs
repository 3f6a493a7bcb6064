//! `cargo xtask build`: the programs as users run them.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use crate::sh;

/// A shim is executed for each container: half of the time until it answered went into finding and
/// relocating shared libraries. A static program at a fixed address has none of that, and no page
/// that relocation has written to. cargo can only be asked for it program by program, since its own
/// plugins, the procedural macros, have to stay shared libraries.
const STATIC: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];

/// Builds everything that users run, into `release` of cargo's target folder.
pub(crate) fn build() -> Result<ExitCode> {
    shim()?;
    runtime()?;
    sandbox()?;
    shimctl()?;
    let release = sh::target().join("release");
    println!("{}", release.join("containerd-shim-native-v2").display());
    println!("{}", release.join("shim-runc").display());
    println!("{}", release.join("containerd-shim-sandbox-v2").display());
    println!("{}", release.join("shimctl").display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the native shim.
pub(crate) fn shim() -> Result<()> {
    engine("containerd-shim-native-v2")
}

/// Builds the sandbox shim, which is also the first process of its guests: those have no libraries.
pub(crate) fn sandbox() -> Result<()> {
    static_program("shim-sandbox", "containerd-shim-sandbox-v2")
}

/// Builds the command line of the engine, which is executed for each verb; returns where it is.
pub(crate) fn runtime() -> Result<PathBuf> {
    engine("shim-runc")?;
    Ok(sh::target().join("release/shim-runc"))
}

/// The same, as tests run it.
pub(crate) fn runtime_for_tests() -> Result<PathBuf> {
    sh::run(sh::cargo().args([
        "build",
        "--quiet",
        "--package",
        "shim-runc",
        "--bin",
        "shim-runc",
    ]))?;
    Ok(sh::target().join("debug/shim-runc"))
}

/// Builds the program that looks around inside containers, which bring no libraries for it; returns
/// where it is.
pub(crate) fn probe() -> Result<PathBuf> {
    let program = ["--package", "xtask", "--bin", "compare-probe"];
    let mut cargo = sh::cargo();
    sh::run(cargo.args(["rustc", "--quiet"]).args(program).arg("--").args(STATIC))?;
    Ok(sh::target().join("debug/compare-probe"))
}

fn engine(program: &str) -> Result<()> {
    static_program("shim-runc", program)
}

fn static_program(package: &str, program: &str) -> Result<()> {
    let program = ["--package", package, "--bin", program];
    sh::run(sh::cargo().args(["rustc", "--release"]).args(program).arg("--").args(STATIC))
}

/// Builds the native shim into another folder, as it is but with its names and frame pointers, for
/// profilers; returns where it is.
pub(crate) fn shim_with_names(folder: &Path) -> Result<PathBuf> {
    let program = ["--package", "shim-runc", "--bin", "containerd-shim-native-v2"];
    let mut cargo = sh::cargo();
    cargo.args(["rustc", "--release"]).args(program).arg("--target-dir").arg(folder);
    cargo.env("CARGO_PROFILE_RELEASE_STRIP", "none").env("RUSTFLAGS", "-Cforce-frame-pointers=yes");
    sh::run(cargo.arg("--").args(STATIC))?;
    Ok(folder.join("release/containerd-shim-native-v2"))
}

/// Builds the command line tool.
pub(crate) fn shimctl() -> Result<()> {
    sh::run(sh::cargo().args(["build", "--release", "--package", "shimctl"]))
}
