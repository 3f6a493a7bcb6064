//! The bundle: the directory that containerd makes for a container.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use oci_spec::runtime::Spec;
use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// A bundle directory: `config.json`, `rootfs/` and the files of the shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    path: PathBuf,
}

impl Bundle {
    /// Names a bundle. Nothing is read.
    ///
    /// # Errors
    /// `InvalidArgument` when the path is not absolute: a bundle never depends on where we stand.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if !path.is_absolute() {
            return Err(Error::invalid(format!("bundle path {path:?} is not absolute")));
        }
        Ok(Self { path })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the root filesystem is mounted when containerd hands mounts over.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// The fifo that containerd copies into its own log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// `InvalidArgument` when it is missing or is not an OCI runtime spec.
    pub fn spec(&self) -> Result<Spec> {
        let path = self.path.join("config.json");
        let text = fs::read(&path)
            .map_err(|err| Error::invalid(format!("read {}: {err}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|err| Error::invalid(format!("parse {}: {err}", path.display())))
    }

    /// Reads the annotations alone; the rest of `config.json` is skipped, not built.
    ///
    /// # Errors
    /// `InvalidArgument` when `config.json` exists and does not parse.
    pub fn annotations(&self) -> Result<HashMap<String, String>> {
        #[derive(Deserialize)]
        struct Annotated {
            #[serde(default)]
            annotations: Option<HashMap<String, String>>,
        }
        let path = self.path.join("config.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            // A sandbox's bundle has no spec.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(err) => return Err(Error::from(err).context(format!("read {}", path.display()))),
        };
        let spec: Annotated = serde_json::from_slice(&text)
            .map_err(|err| Error::invalid(format!("parse {}: {err}", path.display())))?;
        Ok(spec.annotations.unwrap_or_default())
    }

    /// Writes one of the shim's own files so that a reader sees all of it or nothing.
    ///
    /// # Errors
    /// The step that failed, with the file's name.
    pub fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        // The pid keeps two shims of one bundle apart; a leftover of a dead one is overwritten.
        let fresh = self.path.join(format!(".{name}.{}", process::id()));
        let write = || -> io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            io::Write::write_all(&mut file, text)?;
            fs::rename(&fresh, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_absolute() {
        assert!(Bundle::new("relative/path").is_err());
    }

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path()).unwrap();
        bundle.write("address", b"one").unwrap();
        bundle.write("address", b"two").unwrap();
        assert_eq!(fs::read(dir.path().join("address")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
