//! Opening fifos so that nobody ever blocks or breaks the other side.

use std::{
    fs::OpenOptions,
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

/// Opens an output for writing, and for reading too (fifo(7): Linux allows it): so it opens without
/// a reader, and writing without one waits instead of failing.
pub(super) fn open_output(path: &Path) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path) {
        Ok(file) => Ok(file.into()),
        // A plain file that may be appended to but not read serves as well.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            Ok(OpenOptions::new().append(true).open(path)?.into())
        }
        Err(err) => Err(err),
    }
}

/// Opens an input for reading. The second descriptor keeps it from ending while no client has it
/// open.
pub(super) fn open_input(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let keeper = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok((reader.into(), keeper.into()))
}
