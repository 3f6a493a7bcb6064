//! From a runtime's name to the shim binary, by containerd's rule.
//!
//! `io.containerd.native.v2` names `containerd-shim-native-v2`: the last two parts count. An
//! absolute path names itself.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access};

/// A shim that can be executed, and the name it was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimBinary {
    runtime: String,
    path: PathBuf,
}

impl ShimBinary {
    /// Finds the shim of that runtime name, or at that path.
    ///
    /// A name is looked up beside this very executable, then in `PATH`. containerd looks in `PATH`
    /// first; the other order lets a freshly built tree find its own shim.
    pub fn resolve(runtime: &str) -> Result<Self> {
        let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = beside.into_iter().chain(env::split_paths(&path)).collect();
        Self::resolve_in(runtime, &folders)
    }

    fn resolve_in(runtime: &str, folders: &[PathBuf]) -> Result<Self> {
        if runtime.contains('/') {
            return Self::at(runtime);
        }
        let name = file_name(runtime)?;
        for folder in folders {
            let path = folder.join(&name);
            if is_executable(&path) {
                return Ok(Self { runtime: runtime.to_owned(), path });
            }
        }
        let tried: Vec<String> =
            folders.iter().map(|folder| folder.display().to_string()).collect();
        bail!(
            "no shim for runtime {runtime}: {name} is in none of {}; build or install it, or give \
             its path with --shim",
            tried.join(", "),
        );
    }

    /// Takes the shim at that path, relative ones too: a person types it, not a daemon.
    fn at(path: &str) -> Result<Self> {
        let full = fs::canonicalize(path)
            .with_context(|| format!("no shim at {path}; --shim takes a path or a runtime name"))?;
        if !is_executable(&full) {
            bail!("{} is not an executable file", full.display());
        }
        Ok(Self { runtime: full.display().to_string(), path: full })
    }

    /// The name or path by which the shim was asked for.
    pub fn runtime(&self) -> &str {
        &self.runtime
    }

    /// The file to execute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether clients send this runtime `containerd.runc.v1.Options`; others get a TOML text.
    ///
    /// CRI goes by the runtime's name; for a path the file's name has to do.
    pub(crate) fn takes_runc_options(&self) -> bool {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.runtime.starts_with("io.containerd.runc.") || file.starts_with("containerd-shim-runc-")
    }
}

/// The file name that a dotted runtime name stands for.
fn file_name(runtime: &str) -> Result<String> {
    let parts: Vec<&str> = runtime.split('.').collect();
    match parts[..] {
        [first, .., name, version] | [first @ name, version]
            if !first.is_empty() && !name.is_empty() && !version.is_empty() =>
        {
            Ok(format!("containerd-shim-{name}-{version}"))
        }
        _ => bail!(
            "{runtime:?} names no runtime: expected a dotted name such as io.containerd.runc.v2, \
             or a path"
        ),
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_last_two_parts_name_the_file() {
        assert_eq!(file_name("io.containerd.native.v2").unwrap(), "containerd-shim-native-v2");
        assert_eq!(file_name("runc.v2").unwrap(), "containerd-shim-runc-v2");
        for bad in ["", "runc", ".v2", "io..v2", "io.runc."] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_folder_with_an_executable_wins_and_a_miss_names_all() {
        let first = tempfile::tempdir().unwrap();
        let second = tempfile::tempdir().unwrap();
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let miss = ShimBinary::resolve_in("x.y.v1", &folders).unwrap_err().to_string();
        for folder in &folders {
            assert!(miss.contains(&folder.display().to_string()), "{miss}");
        }
        assert!(miss.contains("containerd-shim-y-v1"), "{miss}");

        for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
            let file = folder.path().join("containerd-shim-y-v1");
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let found = ShimBinary::resolve_in("x.y.v1", &folders).unwrap();
        assert_eq!(found.path(), second.path().join("containerd-shim-y-v1"));
    }

    #[test]
    fn options_follow_the_name() {
        let shim = |runtime: &str, path: &str| ShimBinary {
            runtime: runtime.to_owned(),
            path: path.into(),
        };
        assert!(shim("io.containerd.runc.v2", "/b/containerd-shim-runc-v2").takes_runc_options());
        assert!(
            shim("/b/containerd-shim-runc-v2", "/b/containerd-shim-runc-v2").takes_runc_options()
        );
        assert!(
            !shim("io.containerd.native.v2", "/b/containerd-shim-native-v2").takes_runc_options()
        );
    }
}
