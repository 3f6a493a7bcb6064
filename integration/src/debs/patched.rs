//! Programs of other suites than the machine's own: runtimes, and CRIU.
//!
//! They are built for a C library that Debian 12 lacks, or for libraries that a small machine lacks, so
//! each is patched to find those of its own suite. Starting it through that suite's loader would not
//! do: a runtime executes itself again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

use anyhow::{Context, Result, ensure};

use super::{Deb, Store, Suite};

const PATCHELF: Deb = Deb { suite: Suite::Bookworm, package: "patchelf" };

/// A program that runs here once it is patched.
#[derive(Clone, Copy, Debug)]
pub struct Patched {
    /// Its file's name.
    name: &'static str,
    package: &'static str,
    suite: Suite,
    /// Where the package has it.
    path: &'static str,
    /// The suite's C library, if it needs that, and its loader with it.
    libc: &'static [&'static str],
    /// The other libraries that it is linked with.
    libraries: &'static [&'static str],
}

impl Patched {
    /// crun 1.28, the fastest of the runtimes that containerd's own shim can drive.
    pub const CRUN: Self = Self {
        name: "crun",
        package: "crun",
        suite: Suite::Forky,
        path: "usr/bin/crun",
        libc: &["libc6"],
        libraries: &[
            "libblake3-0",
            "libcap2",
            "libgcrypt20",
            "libjson-c5",
            "libseccomp2",
            "libsystemd0",
        ],
    };
    /// crun 1.8.1, of Debian 12.
    pub const CRUN_12: Self = Self {
        name: "crun12",
        package: "crun",
        suite: Suite::Bookworm,
        path: "usr/bin/crun",
        libc: &[],
        libraries: &["libyajl2"],
    };
    /// CRIU 4.2, which saves and restores processes: the first that works on kernels of today.
    pub const CRIU: Self = Self {
        name: "criu",
        package: "criu",
        suite: Suite::Forky,
        path: "usr/sbin/criu",
        libc: &["libc6"],
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
    /// virtiofsd 1.13, which serves folders to virtual machines.
    pub const VIRTIOFSD: Self = Self {
        name: "virtiofsd",
        package: "virtiofsd",
        suite: Suite::Trixie,
        path: "usr/libexec/virtiofsd",
        libc: &["libc6"],
        libraries: &["libcap-ng0", "libgcc-s1", "libseccomp2"],
    };
    /// runc 1.3.
    pub const RUNC: Self = Self {
        name: "runc-newer",
        package: "runc",
        suite: Suite::Forky,
        path: "usr/sbin/runc",
        libc: &["libc6"],
        libraries: &["libseccomp2"],
    };

    /// Fetches it with all that it needs, and returns a copy that runs on this machine.
    ///
    /// # Errors
    /// When a package does not come, or the copy does not run.
    pub fn fetch(self, store: &Store) -> Result<PathBuf> {
        if let Ok(patched) = self.fetched(store) {
            return Ok(patched);
        }
        let folder = store.root.join("patched");
        let patched = folder.join(self.name);
        let needs = [self.deb(self.package), PATCHELF].into_iter().chain(self.needs());
        store.fetch(&needs.collect::<Vec<_>>())?;
        let partial = folder.join(format!(".{}-{}", self.name, process::id()));
        fs::create_dir_all(folder)?;
        let program = store.unpacked(self.deb(self.package))?.join(self.path);
        fs::copy(program, &partial).with_context(|| format!("copy {}", self.name))?;
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
    pub fn fetched(self, store: &Store) -> Result<PathBuf> {
        let patched = store.root.join("patched").join(self.name);
        ensure!(runs(&patched), "there is no {} that runs", patched.display());
        Ok(patched)
    }

    fn deb(self, package: &'static str) -> Deb {
        Deb { suite: self.suite, package }
    }

    /// The packages of its libraries.
    fn needs(self) -> impl Iterator<Item = Deb> {
        self.libc.iter().chain(self.libraries).map(move |package| self.deb(package))
    }

    /// Has it use the libraries of its own suite.
    fn patch(self, store: &Store, program: &Path) -> Result<()> {
        let folders = self.needs().map(|deb| library_folder(store, deb));
        let folders: Vec<PathBuf> = folders.collect::<Result<_>>()?;
        let path: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
        let mut patchelf = Command::new(store.unpacked(PATCHELF)?.join("usr/bin/patchelf"));
        if !self.libc.is_empty() {
            patchelf.arg("--set-interpreter").arg(loader(&folders[0])?);
        }
        patchelf.args(["--force-rpath", "--set-rpath", &path.join(":")]).arg(program);
        let output = patchelf.output().context("run patchelf")?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "patchelf: {}: {}", output.status, why.trim());
        let (name, suite) = (self.package, self.suite.name());
        ensure!(runs(program), "{name} of {suite} does not run on this machine");
        Ok(())
    }
}

/// The loader that belongs to a C library.
fn loader(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let is_loader = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
    };
    entries.into_iter().find(is_loader).context("libc6 has no loader")
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
