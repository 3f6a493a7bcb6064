//! Filesystem images: a file becomes a block device, for as long as it is mounted.

use std::{
    fs::{File, OpenOptions},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use crate::{
    error::{Context, Error, Result},
    linux::sys::{self, LoopFlags},
};

/// How often somebody else may take the device that was free.
const TRIES: usize = 50;

/// A loop device. The kernel frees it when it is neither open nor mounted any more.
#[derive(Debug)]
pub(super) struct LoopDevice {
    pub(super) path: PathBuf,
    /// Keeps it until it is mounted.
    _device: OwnedFd,
}

/// Whether anything may be written to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    ReadWrite,
}

/// How an image's blocks are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caching {
    Cached,
    /// Not kept twice: the filesystem in the image has a cache of its own.
    Direct,
}

impl LoopDevice {
    /// Puts a loop device over an image.
    ///
    /// # Errors
    /// The file or the device that could not be opened or joined.
    pub(super) fn over(image: &str, access: Access, caching: Caching) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(access == Access::ReadWrite);
        let file = options.open(image).with_context(|| format!("open {image}"))?;
        let control = File::options().read(true).write(true).open("/dev/loop-control");
        let control = control.context("open /dev/loop-control")?;
        let flags = LoopFlags {
            is_readonly: access == Access::ReadOnly,
            is_direct: caching == Caching::Direct,
        };
        for _ in 0..TRIES {
            let number = sys::loop_free(control.as_fd()).context("find a free loop device")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = options.open(&path).with_context(|| format!("open {}", path.display()))?;
            match sys::loop_configure(device.as_fd(), file.as_fd(), flags) {
                Ok(()) => return Ok(Self { path, _device: device.into() }),
                Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {}
                Err(err) => {
                    return Err(err).with_context(|| format!("put {} over it", path.display()));
                }
            }
        }
        Err(Error::other("others take every loop device that is free"))
    }
}
