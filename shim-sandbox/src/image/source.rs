//! Where a guest's kernel comes from: this machine's own, named files, or packages.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
};

use shim_core::{Context, Error, Result};

use super::deb;

/// What brings a kernel to a machine without one.
const HOW: &str =
    "`apt install linux-image-cloud-amd64` brings one, or name its package: --deb FILE";

/// What was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The newest of this machine.
    Machine,
    /// Packages: one, or as many as the kernel comes in.
    Packages(Vec<PathBuf>),
    /// A kernel's file and the folder of its modules.
    Files {
        /// The kernel.
        kernel: PathBuf,
        /// The folder named by its release.
        modules: PathBuf,
    },
}

/// A kernel's file, and the folder of its modules.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kernel: PathBuf,
    pub(super) modules: PathBuf,
}

impl Source {
    /// Finds the files; what has to be unpacked goes below `scratch`.
    ///
    /// # Errors
    /// `NotFound` when there is no kernel, and what would bring one.
    pub(super) fn find(&self, scratch: &Path) -> Result<Found> {
        match self {
            Self::Machine => newest(Path::new("/")).map_err(|err| {
                let kind = err.kind();
                Error::new(kind, format!("{err:#}: {HOW}"))
            }),
            Self::Files { kernel, modules } => {
                Ok(Found { kernel: kernel.clone(), modules: modules.clone() })
            }
            Self::Packages(packages) => {
                fs::create_dir_all(scratch)
                    .with_context(|| format!("make {}", scratch.display()))?;
                for package in packages {
                    deb::unpack(package, scratch)?;
                }
                newest(scratch).context("the packages are not a whole kernel")
            }
        }
    }
}

/// The newest kernel below a root that has its modules there, too.
fn newest(root: &Path) -> Result<Found> {
    let mut found: Vec<(String, Found)> = Vec::new();
    let modules = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder));
    for name in names(&root.join("boot"))? {
        let Some((_, release)) =
            name.split_once('-').filter(|(kind, _)| kind.starts_with("vmlinu"))
        else {
            continue;
        };
        let modules = modules.iter().map(|folder| folder.join(release)).find(|path| path.is_dir());
        if let Some(modules) = modules {
            let kernel = root.join("boot").join(&name);
            found.push((release.to_owned(), Found { kernel, modules }));
        }
    }
    // Newer packages have the kernel among its modules.
    for folder in &modules {
        for release in names(folder)? {
            let modules = folder.join(&release);
            let kernel = modules.join("vmlinuz");
            if kernel.is_file() {
                found.push((release, Found { kernel, modules }));
            }
        }
    }
    let newest = found.into_iter().max_by(|(one, _), (other, _)| by_version(one, other));
    let newest = newest.map(|(_, found)| found);
    newest.ok_or_else(|| {
        let boot = root.join("boot");
        Error::not_found(format!("no kernel with modules in {}", boot.display()))
    })
}

/// The names in a folder; a folder that is not there has none.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", folder.display()))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Numbers in versions count as numbers.
fn by_version(one: &str, other: &str) -> Ordering {
    let parts = |text: &str| {
        let parts = text.split(['.', '-', '+', '~']);
        parts.map(|part| (part.parse::<u64>().ok(), part.to_owned())).collect::<Vec<_>>()
    };
    parts(one).cmp(&parts(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_that_has_modules_is_found() {
        let root = tempfile::tempdir().unwrap();
        let boot = root.path().join("boot");
        fs::create_dir(&boot).unwrap();
        for release in ["6.1.9-1-cloud", "6.1.10-1-cloud", "6.2.0"] {
            fs::write(boot.join(format!("vmlinuz-{release}")), "").unwrap();
        }
        for release in ["6.1.9-1-cloud", "6.1.10-1-cloud"] {
            fs::create_dir_all(root.path().join("usr/lib/modules").join(release)).unwrap();
        }
        let found = newest(root.path()).unwrap();
        assert!(found.kernel.ends_with("vmlinuz-6.1.10-1-cloud"), "{found:?}");
        let newer = root.path().join("usr/lib/modules/7.0.1");
        fs::create_dir(&newer).unwrap();
        fs::write(newer.join("vmlinuz"), "").unwrap();
        assert_eq!(newest(root.path()).unwrap().modules, newer);
    }

    #[test]
    fn a_machine_without_a_kernel_is_told_so() {
        let root = tempfile::tempdir().unwrap();
        let err = newest(root.path()).unwrap_err();
        assert_eq!(err.kind(), shim_core::Kind::NotFound);
        assert!(err.to_string().contains("no kernel with modules"), "{err}");
    }
}
