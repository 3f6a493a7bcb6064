//! The shim that the Rust registry has: containerd's own in Rust, over the same runtimes.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::target;

/// The package and its version.
const PACKAGE: [&str; 2] = ["containerd-runc-shim", "0.2.0"];

/// What it installs.
pub const BINARY: &str = "containerd-shim-runc-v2-rs";

/// The name that containerd finds it by.
pub const RUNTIME: &str = "io.containerd.runc.v2-rs";

/// Builds the registry's shim, once: it lies in `peers` of cargo's target folder.
///
/// # Errors
/// When cargo cannot fetch or build it.
pub fn shim() -> Result<PathBuf> {
    let root = target::dir().join("peers");
    let shim = root.join("bin").join(BINARY);
    if shim.exists() {
        return Ok(shim);
    }
    let [package, version] = PACKAGE;
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install.args(["install", package, "--version", version, "--locked", "--root"]).arg(&root);
    install.env("CARGO_TARGET_DIR", root.join("target")).stdout(Stdio::null());
    let status = install.status().context("run cargo")?;
    ensure!(status.success(), "cargo install {package}: {status}");
    Ok(shim)
}
