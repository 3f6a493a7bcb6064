//! The fifo that a shim logs to, read as containerd reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::bundle::Bundle;

/// Where the log of shims goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTo {
    /// It is read and thrown away.
    #[default]
    Nowhere,
    /// To our own stderr, as containerd has it.
    Stderr,
    /// To the end of that file.
    File(PathBuf),
}

impl LogTo {
    fn open(&self) -> Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Nowhere => Box::new(io::sink()),
            Self::Stderr => Box::new(io::stderr()),
            Self::File(path) => Box::new(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(path)
                    .with_context(|| format!("open {}", path.display()))?,
            ),
        })
    }
}

/// Copies a bundle's `log` to somewhere else for as long as it lives.
///
/// Somebody has to, since a shim may wait for a reader, or for room in the fifo.
#[derive(Debug)]
pub(crate) struct ShimLog {
    stop: oneshot::Sender<()>,
    copy: JoinHandle<()>,
}

impl ShimLog {
    /// Opens the fifo and begins to copy; to be called before the shim is started.
    pub(crate) fn copy(bundle: &Bundle, to: &LogTo) -> Result<Self> {
        let (path, sink) = (bundle.log(), to.open()?);
        // For reading and writing, as containerd does: so the shim's open never waits for a
        // reader, and there is no end of file when the shim's own short-lived helpers close it.
        let open = || {
            let fifo = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlag::O_NONBLOCK.bits())
                .open(&path)?;
            let watched = pipe::Receiver::from_file(fifo.try_clone()?)?;
            io::Result::Ok((fifo, watched))
        };
        let (fifo, watched) = open().with_context(|| format!("open {}", path.display()))?;
        let (stop, stopped) = oneshot::channel();
        Ok(Self { stop, copy: tokio::spawn(pass_on(fifo, watched, sink, stopped)) })
    }

    /// Copies what is still in the fifo and ends.
    pub(crate) async fn finish(self) {
        // Both fail only if the copy has ended already.
        let _ = self.stop.send(());
        let _ = self.copy.await;
    }
}

async fn pass_on(
    mut fifo: File,
    watched: pipe::Receiver,
    mut sink: Box<dyn Write + Send>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            ready = watched.readable() => {
                if ready.is_err() || drain(|buffer| watched.try_read(buffer), &mut sink).is_err() {
                    return;
                }
            }
            _ = &mut stopped => {
                // Past the runtime, which may not know yet of the bytes that came last.
                let _ = drain(|buffer| fifo.read(buffer), &mut sink);
                return;
            }
        }
    }
}

/// Reads until nothing is left.
fn drain(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sink.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_that_was_written_is_there_after_finish() {
        let dir = tempfile::tempdir().unwrap();
        let bundle =
            Bundle::create(&dir.path().join("b"), "c", &dir.path().join("w"), None).unwrap();
        let path = dir.path().join("out");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let log = ShimLog::copy(&bundle, &LogTo::File(path.clone())).unwrap();
            for line in ["one\n", "two\n"] {
                let mut writer = OpenOptions::new().write(true).open(bundle.log()).unwrap();
                writer.write_all(line.as_bytes()).unwrap();
                tokio::task::yield_now().await;
            }
            log.finish().await;
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
