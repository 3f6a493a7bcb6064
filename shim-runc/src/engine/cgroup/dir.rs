//! A cgroup's directory: its files are opened relative to it, read whole and written at once.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, open, openat},
    sys::stat::{Mode, fstat, mkdirat},
    unistd,
};

/// A directory that is open.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
}

/// Whether a directory was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    Found,
    Made,
}

impl Dir {
    pub(super) fn open(path: &Path) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty()).map(|fd| Self { fd })
    }

    /// Writes one value to a file that is there. The kernel takes each write as one request.
    pub(super) fn write(&self, file: &str, value: &str) -> nix::Result<()> {
        self.open_to_write(file)?.write(value)
    }

    /// Opens a file for several requests.
    pub(super) fn open_to_write(&self, file: &str) -> nix::Result<Writer> {
        // Truncation means nothing to cgroup files. It lets a plain file stand for one in tests.
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        openat(&self.fd, file, flags, Mode::empty()).map(|fd| Writer { fd })
    }

    /// Reads a file to its end.
    pub(super) fn read(&self, file: &str) -> nix::Result<String> {
        let fd = openat(&self.fd, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match unistd::read(&fd, &mut chunk) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&chunk[..count]),
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err),
            }
        }
        String::from_utf8(text).map_err(|_| Errno::EILSEQ)
    }

    /// Whether the directory surely has no others in it. Where a filesystem counts a directory's
    /// links, as cgroupfs does, each one in it adds its `..` to the two that all have.
    pub(super) fn is_leaf(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 2)
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file open for requests.
#[derive(Debug)]
pub(super) struct Writer {
    fd: OwnedFd,
}

impl Writer {
    pub(super) fn write(&self, value: &str) -> nix::Result<()> {
        loop {
            match unistd::write(&self.fd, value.as_bytes()) {
                Ok(_) => return Ok(()),
                // Lowering a limit of memory reclaims, which a signal can cut short.
                Err(Errno::EINTR) => {}
                Err(err) => return Err(err),
            }
        }
    }
}

/// Makes a directory and those above it; tells which of them are new, the topmost first.
///
/// # Errors
/// With the path that could not be made.
pub(super) fn make<'a>(
    path: &'a Path,
    made: &mut Vec<PathBuf>,
) -> Result<Fresh, (&'a Path, Errno)> {
    // Someone may remove a parent between two calls: with containers that come and go below it,
    // it is not unlikely to be seen once, but not again and again.
    for _ in 0..8 {
        match mkdirat(AT_FDCWD, path, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                made.push(path.to_owned());
                return Ok(Fresh::Made);
            }
            Err(Errno::EEXIST) => return Ok(Fresh::Found),
            Err(Errno::ENOENT) => {
                let parent = path.parent().ok_or((path, Errno::ENOENT))?;
                make(parent, made)?;
            }
            Err(Errno::EINTR) => {}
            Err(err) => return Err((path, err)),
        }
    }
    Err((path, Errno::ENOENT))
}
