//! Where cargo builds: the caches and the binaries under test lie there.

use std::path::{Path, PathBuf};
use std::{env, io};

/// Cargo's target folder, with whatever `CARGO_TARGET_DIR` or config set it to.
///
/// Found from the running executable, which lies in it; cargo marks the folder for backup tools.
#[must_use]
pub fn dir() -> PathBuf {
    let marked = env::current_exe().ok().and_then(|exe| {
        exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
    });
    marked
        .or_else(|| env::var_os("CARGO_TARGET_DIR").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("target"))
}

/// The folder of the running executable's profile: `target/debug` or `target/release`.
///
/// # Errors
/// When the running executable cannot be found.
pub fn profile_dir() -> io::Result<PathBuf> {
    let exe = env::current_exe()?;
    let dir = exe.parent().unwrap_or(Path::new("/"));
    // Test executables lie one folder deeper, in `deps`.
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() })
}
