//! A terminal of the runtime's making: its master comes through a socket (runc's
//! `docs/terminals.md`).

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process,
};

use shim_core::{Context, Error, Result};

use super::command::Scratch;
use crate::engine::sys::{self, Files};

/// As long as a path may be, which some runtimes send along.
const LONGEST: usize = 4 << 10;

/// Where a runtime sends the master.
#[derive(Debug)]
pub(super) struct Console {
    listener: UnixListener,
    /// Holds the directory, for the path leads through its descriptor: a bundle's own may be too
    /// long for a socket (unix(7)).
    directory: File,
    name: String,
    _scratch: Scratch,
}

impl Console {
    /// Listens in a bundle.
    ///
    /// # Errors
    /// What could not be made.
    pub(super) fn listen(bundle: &Path, name: String) -> Result<Self> {
        let scratch = Scratch(bundle.join(&name));
        let directory = File::open(bundle).context("open the bundle")?;
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let listener = UnixListener::bind(path).context("listen for the terminal")?;
        Ok(Self { listener, directory, name, _scratch: scratch })
    }

    /// The socket, as other processes find it.
    pub(super) fn path(&self) -> PathBuf {
        let fd = self.directory.as_raw_fd();
        format!("/proc/{}/fd/{fd}/{}", process::id(), self.name).into()
    }

    /// Takes what the runtime has sent, which has ended.
    ///
    /// # Errors
    /// When it has sent nothing.
    pub(super) fn take(self) -> Result<OwnedFd> {
        self.receive().context("take the terminal from the runtime")
    }

    fn receive(&self) -> Result<OwnedFd> {
        // Nothing is waited for: whatever comes has been sent.
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        let mut files = Files::new();
        sys::receive(stream.as_fd(), &mut [0; LONGEST], &mut files)?;
        files.take().ok_or_else(|| Error::other("a message without a descriptor"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_descriptor_is_taken_from_who_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than any socket's path may be.
        let bundle = dir.path().join("b".repeat(120));
        fs::create_dir(&bundle).unwrap();
        let console = Console::listen(&bundle, "s".to_owned()).unwrap();
        let stream = UnixStream::connect(console.path()).unwrap();
        let null = File::open("/dev/null").unwrap();
        sys::send(stream.as_fd(), b"/dev/ptmx", &[null.as_fd()]).unwrap();
        drop(stream);
        console.take().unwrap();
        assert!(!bundle.join("s").exists());
    }

    #[test]
    fn nothing_sent_is_an_error_and_no_wait() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console::listen(dir.path(), "s".to_owned()).unwrap();
        assert!(console.take().is_err());
        let console = Console::listen(dir.path(), "s".to_owned()).unwrap();
        let _silent = UnixStream::connect(console.path()).unwrap();
        assert!(console.take().is_err());
    }
}
