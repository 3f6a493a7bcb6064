//! Programs of Debian's next suite: crun 1.28, the fastest of the runtimes that containerd's own shim
//! can drive, and CRIU 4.2, the first that works on kernels of today.
//!
//! They are built for a C library that Debian 12 lacks, so they are patched to find their own suite's
//! beside them. Starting them through that suite's loader would not do: crun executes itself again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

use anyhow::{Context, Result, ensure};

use super::{Deb, Store, Suite};

const LIBC: Deb = forky("libc6");
const PATCHELF: Deb = Deb { suite: Suite::Bookworm, package: "patchelf" };

/// A program of another suite.
#[derive(Clone, Copy, Debug)]
pub struct Patched {
    deb: Deb,
    /// Where it is in its package.
    path: &'static str,
    /// The packages of the libraries that it is linked with, beside the C library.
    libraries: &'static [&'static str],
}

/// A runtime.
pub const CRUN: Patched = Patched {
    deb: forky("crun"),
    path: "usr/bin/crun",
    libraries: &[
        "libblake3-0",
        "libcap2",
        "libgcrypt20",
        "libjson-c5",
        "libseccomp2",
        "libsystemd0",
    ],
};

/// What saves and restores processes.
pub const CRIU: Patched = Patched {
    deb: forky("criu"),
    path: "usr/sbin/criu",
    libraries: &[
        "libbsd0",
        "libffi8",
        "libgmp10",
        "libgnutls30t64",
        "libhogweed6t64",
        "libidn2-0",
        "libjansson4",
        "libmd0",
        "libmnl0",
        "libnet9",
        "libnettle8t64",
        "libnftables1",
        "libnftnl11",
        "libnl-3-200",
        "libp11-kit0",
        "libprotobuf-c1",
        "libtasn1-6",
        "libunistring5",
        "libuuid1",
        "libxtables12",
    ],
};

const fn forky(package: &'static str) -> Deb {
    Deb { suite: Suite::Forky, package }
}

impl Patched {
    /// Fetches it with all that it needs, and returns a copy that runs on this machine.
    ///
    /// # Errors
    /// When a package does not come, or the copy does not run.
    pub fn fetch(&self, store: &Store) -> Result<PathBuf> {
        if let Ok(patched) = self.fetched(store) {
            return Ok(patched);
        }
        let patched = self.place(store);
        let libraries: Vec<_> = self.libraries().collect();
        store.fetch(&[&[self.deb, PATCHELF], libraries.as_slice()].concat())?;
        let name = self.deb.package;
        let partial = patched.with_file_name(format!(".{name}-{}", process::id()));
        fs::create_dir_all(store.root.join("patched"))?;
        fs::copy(store.unpacked(self.deb)?.join(self.path), &partial)
            .with_context(|| format!("copy {name}"))?;
        let done = self.patch(store, &partial).and_then(|()| Ok(fs::rename(&partial, &patched)?));
        if done.is_err() {
            // The failure to patch it is what matters.
            let _ = fs::remove_file(&partial);
        }
        done.map(|()| patched)
    }

    /// The copy that was made before.
    ///
    /// # Errors
    /// When there is none that runs.
    pub fn fetched(&self, store: &Store) -> Result<PathBuf> {
        let patched = self.place(store);
        ensure!(runs(&patched), "there is no {} that runs", patched.display());
        Ok(patched)
    }

    fn place(&self, store: &Store) -> PathBuf {
        store.root.join("patched").join(self.deb.package)
    }

    /// The packages of its libraries, the C library's first.
    fn libraries(&self) -> impl Iterator<Item = Deb> {
        [LIBC].into_iter().chain(self.libraries.iter().map(|package| forky(package)))
    }

    /// Has it use the libraries of its own suite.
    fn patch(&self, store: &Store, program: &Path) -> Result<()> {
        let folders = self.libraries().map(|deb| library_folder(store, deb));
        let folders: Vec<PathBuf> = folders.collect::<Result<_>>()?;
        let path =
            folders.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":");
        let entries = fs::read_dir(&folders[0])?.flatten().map(|entry| entry.path());
        let is_loader = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
        };
        let loader = entries.into_iter().find(is_loader).context("libc6 has no loader")?;
        let mut patchelf = Command::new(store.unpacked(PATCHELF)?.join("usr/bin/patchelf"));
        patchelf.arg("--set-interpreter").arg(loader);
        patchelf.args(["--force-rpath", "--set-rpath", &path]).arg(program);
        let output = patchelf.output().context("run patchelf")?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "patchelf: {}: {}", output.status, why.trim());
        let (name, suite) = (self.deb.package, self.deb.suite.name());
        ensure!(runs(program), "{name} of {suite} does not run on this machine");
        Ok(())
    }
}

/// The folder of a package's libraries, whatever the machine's architecture.
fn library_folder(store: &Store, deb: Deb) -> Result<PathBuf> {
    let libraries = store.unpacked(deb)?.join("usr/lib");
    let folders = fs::read_dir(&libraries)?.flatten().map(|entry| entry.path());
    let is_triplet = |path: &PathBuf| path.to_string_lossy().ends_with("-linux-gnu");
    folders.into_iter().find(is_triplet).with_context(|| format!("{}: no libraries", deb.package))
}

/// Whether it is there and whole, and its libraries are where it looks for them.
fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
