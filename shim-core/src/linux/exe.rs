//! Our own executable, in a form that nobody inside a container can overwrite.
//!
//! A process that enters a container shows the file it was started from as `/proc/PID/exe`; whoever
//! is root in there could open that for writing and so replace the shim on the host
//! (CVE-2019-5736). Serving from a file that can't be written closes that for good: a read-only
//! overlay over the executable's directory, which shares the page cache and costs no memory, or
//! else a sealed copy in memory.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::{self, Seek},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use super::sys;
use crate::error::{Context, Error, Result};

const SELF: &str = "/proc/self/exe";
const NAME: &CStr = c"shim";

/// Our executable, open to be executed and never to be written.
#[derive(Debug)]
pub struct SealedExecutable {
    file: OwnedFd,
    /// Held, because letting go of it waits for a grace period of RCU.
    _mount: Option<OwnedFd>,
}

impl SealedExecutable {
    /// Opens it, for what makes processes that enter containers. `apart` is a directory that has
    /// nothing to do with the one that our executable is in, a bundle for one; it can be removed.
    ///
    /// # Errors
    /// When neither an overlay nor a copy can be made.
    pub fn open(apart: &Path) -> Result<Self> {
        match overlaid(apart) {
            Ok(sealed) => Ok(sealed),
            Err(err) => {
                log::debug!("no overlay over the executable, copying it: {err:#}");
                Ok(Self { file: copied()?, _mount: None })
            }
        }
    }
}

impl AsFd for SealedExecutable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens the executable through a detached read-only overlay, which is in no mount table.
fn overlaid(apart: &Path) -> Result<SealedExecutable> {
    let path = fs::read_link(SELF).context("find the executable")?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::other("the executable has no directory"));
    };
    let overlay = sys::fsopen(c"overlay").context("open an overlay")?;
    // Without an upper layer it takes two lower ones.
    let lower = format!("{}:{}", escaped(directory), escaped(apart));
    sys::fsconfig_string(overlay.as_fd(), c"lowerdir", &lower).context("set the layers")?;
    sys::fsconfig_create(overlay.as_fd()).context("make an overlay")?;
    let mount = sys::fsmount_readonly(overlay.as_fd()).context("mount an overlay")?;
    let file = sys::open_path_at(mount.as_fd(), name).context("open the executable")?;
    if !same_file(&file, &path)? {
        return Err(Error::other("another executable"));
    }
    Ok(SealedExecutable { file, _mount: Some(mount) })
}

/// Guards against a directory that changed on the way: same size, same device-independent inode.
fn same_file(file: &OwnedFd, path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let through = fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let through = through.context("look at the executable")?;
    let own = fs::metadata(path).context("look at the executable")?;
    Ok(through.ino() == own.ino() && through.size() == own.size())
}

/// overlayfs splits layers at colons and reads backslashes as escapes.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(':', "\\:")
}

/// Copies the executable into memory and seals it.
fn copied() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = memfd_create(NAME, flags).context("make a memory file")?;
    let mut copy = File::from(copy);
    let mut own = File::open(SELF).context("open the executable")?;
    io::copy(&mut own, &mut copy).context("copy the executable")?;
    copy.rewind().context("rewind the copy")?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).context("seal the copy")?;
    Ok(copy.into())
}
