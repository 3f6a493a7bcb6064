//! The shim under test: `SHIM_RUNTIME`, else our own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result, bail, ensure};

use crate::debs::Store;
use crate::engine::Engine;
use crate::target;

/// The runtime's name when nothing else is asked for.
pub const NATIVE: &str = "io.containerd.native.v2";

/// The name of containerd's own shim: the oracle that the tests themselves are checked with.
pub const GO: &str = "io.containerd.runc.v2";

/// Which shim the containers run under.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shim {
    runtime: String,
}

impl Shim {
    /// The shim that `SHIM_RUNTIME` names.
    #[must_use]
    pub fn under_test() -> Self {
        Self::named(&env::var("SHIM_RUNTIME").unwrap_or_else(|_| NATIVE.to_owned()))
    }

    /// The shim of a runtime name.
    #[must_use]
    pub fn named(runtime: &str) -> Self {
        Self { runtime: runtime.to_owned() }
    }

    /// The name that containerd is given.
    #[must_use]
    pub fn runtime(&self) -> &str {
        &self.runtime
    }

    /// Whether this is containerd's own shim.
    #[must_use]
    pub fn is_go(&self) -> bool {
        self.runtime == GO
    }

    /// The binary's name by containerd's rule: `a.b.native.v2` is `containerd-shim-native-v2`.
    #[must_use]
    pub fn binary(&self) -> String {
        let mut parts = self.runtime.rsplitn(3, '.');
        let version = parts.next().unwrap_or_default();
        let name = parts.next().unwrap_or_default();
        format!("containerd-shim-{name}-{version}")
    }

    /// The folder that has to be on an engine's `PATH`.
    ///
    /// # Errors
    /// When the binary is not there.
    pub fn dir(&self, engine: Engine, store: &Store) -> Result<PathBuf> {
        let dir = match env::var_os("SHIM_DIR") {
            Some(dir) => PathBuf::from(dir),
            None if self.is_go() => engine.bin_dir(store)?,
            None => target::profile_dir()?,
        };
        let binary = dir.join(self.binary());
        ensure!(binary.is_file(), "there is no {}", binary.display());
        Ok(dir)
    }

    /// Removes what this shim is known to leave behind; nothing of ours is forgiven.
    ///
    /// containerd's own shim forgets its socket when it is killed, and that of 2.x also when the
    /// first container of a pod goes first.
    pub fn forgive(&self) {
        let sockets = if self.is_go() { sockets().unwrap_or_default() } else { Vec::new() };
        for socket in sockets {
            let answer = UnixStream::connect(&socket).map_err(|error| error.kind());
            if answer.is_err_and(|kind| kind == io::ErrorKind::ConnectionRefused) {
                // Whoever removed it first is right.
                let _ = fs::remove_file(socket);
            }
        }
    }

    /// Builds our own shim, in the profile of this executable. Other shims are found, not built.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn build(&self) -> Result<()> {
        let ours = self.runtime == NATIVE && env::var_os("SHIM_DIR").is_none();
        // Outside cargo whatever lies beside the executable is what is meant.
        let Some(cargo) = env::var_os("CARGO").filter(|_| ours) else { return Ok(()) };
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--package", "shim-runc"]);
        command.env("CARGO_TARGET_DIR", target::dir());
        match target::profile_dir()?.file_name().and_then(|name| name.to_str()) {
            Some("debug") => {}
            Some(profile) => drop(command.args(["--profile", profile])),
            None => return Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
        let status = command.status().context("run cargo")?;
        if !status.success() {
            bail!("cargo build --package shim-runc: {status}");
        }
        Ok(())
    }
}

/// The sockets on which shims listen: one a shim.
///
/// # Errors
/// When the folder cannot be read.
pub fn sockets() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/run/containerd/s").context("read the folder of sockets")?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_names_its_binary_by_its_last_two_parts() {
        assert_eq!(Shim::named(NATIVE).binary(), "containerd-shim-native-v2");
        assert_eq!(Shim::named("a.b.c.runc.v2-rs").binary(), "containerd-shim-runc-v2-rs");
    }
}
