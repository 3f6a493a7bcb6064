//! What a guest is booted from: a kernel, and a first filesystem with its modules and our own program.
//!
//! An image is a folder of three files: `kernel`, `initrd`, and `image.json`, which says what they were
//! made of. It is replaced as a whole, and made anew only when one of its inputs is another one: the
//! kernel, a module, our program.

mod command;
mod cpio;
mod deb;
mod decompress;
mod elf;
mod kernel;
mod modules;
mod source;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::RenameFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shim_core::{Context, Error, Result};

pub(crate) use command::command;
use cpio::Archive;
use elf::Elf;
use kernel::Kernel;
use modules::Module;
pub use source::Source;

/// Where an image is when nothing else is said.
pub const FOLDER: &str = "/var/lib/shim-sandbox/image";

/// Changes when the same inputs make another image.
const LAYOUT: u32 = 1;

const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
const TOLD: &str = "image.json";

/// A whole image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    folder: PathBuf,
    /// What it was made of.
    pub about: About,
}

/// What an image was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The kernel's, uname(2).
    pub release: String,
    /// Whether the kernel is unpacked.
    pub unpacked: bool,
    /// The modules in the order of loading.
    pub modules: Vec<String>,
    /// SHA-256 of everything that it was made of.
    pub inputs: String,
    /// SHA-256 of the kernel's file.
    pub kernel: String,
    /// SHA-256 of the initrd.
    pub initrd: String,
}

impl Image {
    /// An image that was built.
    ///
    /// # Errors
    /// `NotFound` when there is none, and how to build it.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(TOLD);
        let text = match fs::read(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                let why = format!(
                    "there is no image in {}: `containerd-shim-sandbox-v2 image build` makes it",
                    folder.display()
                );
                return Err(Error::not_found(why));
            }
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        let about = serde_json::from_slice(&text);
        let about = about.with_context(|| format!("read {}", path.display()))?;
        Ok(Self { folder: folder.to_owned(), about })
    }

    /// Builds the image of a source in a folder, with a program of ours as the guest's first process; one
    /// that is of the same inputs stays.
    ///
    /// # Errors
    /// `NotFound` when there is no kernel; `InvalidArgument` for a program that needs a loader, and for
    /// files that are not what they should be.
    pub fn build(source: &Source, program: &Path, folder: &Path) -> Result<Self> {
        let partial = Partial::beside(folder)?;
        let scratch = partial.0.join("unpacked");
        let found = source.find(&scratch)?;
        let init = static_program(program)?;
        let kernel = fs::read(&found.kernel);
        let kernel = kernel.with_context(|| format!("read {}", found.kernel.display()))?;
        let named = || format!("kernel {}", found.kernel.display());
        let kernel = Kernel::parse(&kernel).with_context(named)?;
        let modules = modules::choose(&found.modules)?;
        let release = kernel.release().with_context(named)?;
        let inputs = inputs(&release, &kernel, &modules, &init);
        if let Ok(image) = Self::open(folder)
            && image.about.inputs == inputs
        {
            return Ok(image);
        }
        let unpacked = kernel.unpacked().with_context(named)?;
        let is_unpacked = unpacked.is_some();
        let kernel = unpacked.unwrap_or_else(|| kernel.bytes().to_vec());
        let initrd = initrd(&init, &modules);
        let about = About {
            release,
            unpacked: is_unpacked,
            modules: modules.into_iter().map(|module| module.name).collect(),
            inputs,
            kernel: hex::encode(Sha256::digest(&kernel)),
            initrd: hex::encode(Sha256::digest(&initrd)),
        };
        if scratch.exists() {
            fs::remove_dir_all(&scratch).context("remove the unpacked packages")?;
        }
        partial.write(KERNEL, &kernel)?;
        partial.write(INITRD, &initrd)?;
        partial.write(TOLD, &serde_json::to_vec_pretty(&about)?)?;
        partial.become_whole(folder)?;
        Ok(Self { folder: folder.to_owned(), about })
    }

    /// The kernel's file.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join(KERNEL)
    }

    /// The first filesystem's file.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join(INITRD)
    }
}

/// Reads a program that runs where there is nothing but itself.
fn static_program(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let elf = Elf::parse(&bytes).with_context(|| format!("program {}", path.display()))?;
    if elf.needs_loader() {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        return Err(Error::invalid(format!(
            "{} needs shared libraries, of which a guest has none: `cargo xtask build` makes a static one",
            path.display()
        )));
    }
    Ok(bytes)
}

fn inputs(release: &str, kernel: &Kernel<'_>, modules: &[Module], init: &[u8]) -> String {
    let mut sum = Sha256::new();
    let named = modules.iter().map(|module| (module.name.as_str(), module.bytes.as_slice()));
    for (name, bytes) in [(release, kernel.bytes()), ("init", init)].into_iter().chain(named) {
        sum.update(format!("{LAYOUT} {name} {}\n", bytes.len()));
        sum.update(bytes);
    }
    hex::encode(sum.finalize())
}

/// Our program as `/init`, and the modules, named so that their order is that of loading.
fn initrd(init: &[u8], modules: &[Module]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.program("init", init);
    archive.folder("modules");
    for (place, module) in modules.iter().enumerate() {
        archive.file(&format!("modules/{place:03}-{}.ko", module.name), &module.bytes);
    }
    archive.end()
}

/// A folder that is not whole yet; gone when it is dropped.
struct Partial(PathBuf);

impl Partial {
    fn beside(folder: &Path) -> Result<Self> {
        let name = folder.file_name().ok_or_else(|| {
            Error::invalid(format!("{} is no folder that an image can be", folder.display()))
        })?;
        let name = format!(".{}-{}", name.to_string_lossy(), std::process::id());
        let partial = folder.with_file_name(name);
        fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
        // QEMU reads it as nobody.
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&partial, mode).context("open the image's folder")?;
        Ok(Self(partial))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&path, mode).with_context(|| format!("open {}", path.display()))
    }

    /// Takes the place of what was there.
    fn become_whole(self, folder: &Path) -> Result<()> {
        let rename = |flags| {
            nix::fcntl::renameat2(
                nix::fcntl::AT_FDCWD,
                &self.0,
                nix::fcntl::AT_FDCWD,
                folder,
                flags,
            )
        };
        match rename(RenameFlags::RENAME_EXCHANGE) {
            Err(Errno::ENOENT) => rename(RenameFlags::RENAME_NOREPLACE),
            done => done,
        }
        .with_context(|| format!("put the image in place at {}", folder.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is gone if it has become the image; else it is what was before.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
