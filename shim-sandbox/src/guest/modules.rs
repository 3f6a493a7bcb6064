//! The kernel's modules that came with the first filesystem, loaded in the order of their names.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
};
use shim_core::{Context, Result};

/// Loads all modules of a folder.
///
/// # Errors
/// When one cannot be read, or the kernel refuses it.
pub(super) fn load(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let named = || format!("load {}", path.display());
        let file = File::open(&path).with_context(named)?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            // Hardware that is not there: what needs it will say so.
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => {}
            failed => failed.with_context(named)?,
        }
    }
    Ok(())
}
