//! crun 1.28, the fastest of the runtimes that containerd's own shim can drive.
//!
//! It is built for a C library that Debian 12 lacks, so it is patched to find its own suite's
//! beside it. Starting it through that suite's loader would not do: it executes itself again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

use anyhow::{Context, Result, ensure};

use super::{Deb, Store, Suite};

const CRUN: Deb = Deb { suite: Suite::Forky, package: "crun" };
const LIBC: Deb = Deb { suite: Suite::Forky, package: "libc6" };
const PATCHELF: Deb = Deb { suite: Suite::Bookworm, package: "patchelf" };

const PATCHED: &str = "patched/crun";

/// The other libraries that it is linked with.
const LIBRARIES: [Deb; 6] = [
    Deb { suite: Suite::Forky, package: "libblake3-0" },
    Deb { suite: Suite::Forky, package: "libcap2" },
    Deb { suite: Suite::Forky, package: "libgcrypt20" },
    Deb { suite: Suite::Forky, package: "libjson-c5" },
    Deb { suite: Suite::Forky, package: "libseccomp2" },
    Deb { suite: Suite::Forky, package: "libsystemd0" },
];

/// Fetches crun with all that it needs, and returns a copy that runs on this machine.
///
/// # Errors
/// When a package does not come, or the copy does not run.
pub fn fetch(store: &Store) -> Result<PathBuf> {
    if let Ok(patched) = fetched(store) {
        return Ok(patched);
    }
    let patched = store.root.join(PATCHED);
    store.fetch(&[&[CRUN, LIBC, PATCHELF], LIBRARIES.as_slice()].concat())?;
    let partial = store.root.join(format!("patched/.crun-{}", process::id()));
    fs::create_dir_all(store.root.join("patched"))?;
    fs::copy(store.unpacked(CRUN)?.join("usr/bin/crun"), &partial).context("copy crun")?;
    let done = patch(store, &partial).and_then(|()| Ok(fs::rename(&partial, &patched)?));
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
pub fn fetched(store: &Store) -> Result<PathBuf> {
    let patched = store.root.join(PATCHED);
    ensure!(runs(&patched), "there is no {} that runs", patched.display());
    Ok(patched)
}

/// Has a program use the libraries of its own suite.
fn patch(store: &Store, program: &Path) -> Result<()> {
    let libraries = [&[LIBC], LIBRARIES.as_slice()].concat();
    let folders = libraries.into_iter().map(|deb| library_folder(store, deb));
    let folders: Vec<PathBuf> = folders.collect::<Result<_>>()?;
    let path = folders.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":");
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
    ensure!(runs(program), "crun of {} does not run on this machine", Suite::Forky.name());
    Ok(())
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
