//! The three streams of a process: fifos that the shim opens, and copies between them and us.
//!
//! Each stream has a thread of its own, since the far side (a terminal, a pipe, a file) may block
//! and must not hold up the others or a signal. A thread ends at the end of its stream, or when
//! the [`Streams`] are told to finish.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bundle::{make_folder, remove_tree};

/// Whether a process has one terminal or separate streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// stdin, stdout and stderr.
    Pipes,
    /// A terminal, which has no stderr of its own.
    Terminal,
}

/// Fifos in a directory of their own, for one process.
#[derive(Debug)]
pub struct Fifos {
    folder: PathBuf,
    shape: Shape,
}

impl Fifos {
    /// Makes the directory and the fifos in it.
    pub fn create(folder: &Path, shape: Shape) -> Result<Self> {
        make_folder(folder, 0o700)?;
        let fifos = Self { folder: folder.to_owned(), shape };
        for path in [fifos.stdin(), fifos.stdout(), fifos.stderr()] {
            if !path.is_empty() {
                mkfifo(path.as_str(), Mode::S_IRUSR | Mode::S_IWUSR)
                    .with_context(|| format!("create fifo {path}"))?;
            }
        }
        Ok(fifos)
    }

    /// The path that the shim reads from, as it goes into a request.
    pub fn stdin(&self) -> String {
        self.path("stdin")
    }

    /// The path that the shim writes to.
    pub fn stdout(&self) -> String {
        self.path("stdout")
    }

    /// The path for errors; empty with a terminal.
    pub fn stderr(&self) -> String {
        match self.shape {
            Shape::Pipes => self.path("stderr"),
            Shape::Terminal => String::new(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Removes the directory with the fifos.
    pub fn remove(self) -> Result<()> {
        remove_tree(&self.folder)
    }
}

/// Where a process's output goes.
#[expect(missing_debug_implementations, reason = "writers need not be Debug")]
pub struct Sinks {
    /// For stdout, or all that a terminal shows.
    pub stdout: Box<dyn Write + Send>,
    /// For stderr.
    pub stderr: Box<dyn Write + Send>,
}

/// The running copies of one process's streams.
#[derive(Debug)]
pub struct Streams {
    stdin: PathBuf,
    outputs: Vec<oneshot::Receiver<()>>,
    reader_lost: Option<oneshot::Receiver<()>>,
    /// Hung up to tell the threads to end.
    stop: PipeWriter,
    stopped: PipeReader,
}

impl Streams {
    /// Opens the output fifos and copies from them; to be called before the process is created.
    pub fn open(fifos: &Fifos, sinks: Sinks) -> Result<Self> {
        let (stopped, stop) = io::pipe().context("create a pipe")?;
        let (lost, reader_lost) = oneshot::channel();
        let mut streams = Self {
            stdin: fifos.stdin().into(),
            outputs: Vec::new(),
            reader_lost: Some(reader_lost),
            stop,
            stopped,
        };
        streams.copy_out(&fifos.stdout(), sinks.stdout, Some(lost))?;
        if fifos.shape == Shape::Pipes {
            streams.copy_out(&fifos.stderr(), sinks.stderr, None)?;
        }
        Ok(streams)
    }

    fn copy_out(
        &mut self,
        path: &str,
        mut sink: Box<dyn Write + Send>,
        mut lost: Option<oneshot::Sender<()>>,
    ) -> Result<()> {
        let fifo = open_fifo(Path::new(path), OpenOptions::new().read(true))?;
        let stopped = self.stopped.try_clone().context("duplicate a pipe")?;
        let (done, finished) = oneshot::channel();
        self.outputs.push(finished);
        spawn("stdout", move || {
            copy(&fifo, &stopped, |bytes| {
                let written = sink.write_all(bytes).and_then(|()| sink.flush());
                // Nobody reads our output any more. What follows is thrown away, so that the
                // shim does not block while the process is being ended.
                if written.is_err()
                    && let Some(lost) = lost.take()
                {
                    let _ = lost.send(());
                }
                Ok(())
            });
            // The other side is gone if nobody waits for the end.
            let _ = done.send(());
        })
    }

    /// Copies from `source` into the process's stdin; to be called once the process is created.
    ///
    /// At the end of the source, what comes back is the fifo, still open: the process sees the end
    /// when both this is dropped and the shim has been told to close its own side.
    pub fn feed(&self, source: File) -> Result<oneshot::Receiver<File>> {
        // For reading too, so that neither this nor a write fails when no shim reads (any more).
        let fifo = open_fifo(&self.stdin, OpenOptions::new().read(true).write(true))?;
        let stopped = self.stopped.try_clone().context("duplicate a pipe")?;
        let (done, finished) = oneshot::channel();
        spawn("stdin", move || {
            copy(&source, &stopped, |bytes| write_all(&fifo, bytes, &stopped));
            let _ = done.send(fifo);
        })?;
        Ok(finished)
    }

    /// Resolves when the reader of our own stdout has gone away.
    pub fn reader_lost(&mut self) -> Option<oneshot::Receiver<()>> {
        self.reader_lost.take()
    }

    /// Waits for the rest of the output, but not longer than the limit.
    pub async fn finish(mut self, limit: Duration) {
        // Out of the list as they end: a channel that has delivered must not be asked again.
        let ends = async {
            while let Some(output) = self.outputs.last_mut() {
                // An error is an end, too.
                let _ = output.await;
                self.outputs.pop();
            }
        };
        if timeout(limit, ends).await.is_err() {
            log::warn!("the output has no end: something still holds it after {limit:?}");
        }
        drop(self.stop);
        // The threads write what the fifos still hold, then end.
        for output in self.outputs {
            let _ = timeout(limit, output).await;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("start the thread for {name}"))?;
    Ok(())
}

fn open_fifo(path: &Path, options: &mut OpenOptions) -> Result<File> {
    options
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .with_context(|| format!("open fifo {}", path.display()))
}

/// Hands all that comes from `source` to `write`, until its end or the stop.
fn copy(mut source: &File, stopped: &PipeReader, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
    let mut buffer = vec![0; 32 << 10];
    while wait(source.as_fd(), PollFlags::POLLIN, stopped) {
        match source.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) if write(&buffer[..count]).is_err() => return,
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                // EIO is how a terminal says that its other side is gone.
                _ => return,
            },
        }
    }
}

fn write_all(mut fifo: &File, mut bytes: &[u8], stopped: &PipeReader) -> io::Result<()> {
    while !bytes.is_empty() {
        if !wait(fifo.as_fd(), PollFlags::POLLOUT, stopped) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match fifo.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until the file is ready; false means stop, and that nothing is ready.
///
/// A fifo that nobody has opened for writing yet is not ready: poll reports a hangup only after
/// there was a writer.
fn wait(file: BorrowedFd<'_>, events: PollFlags, stopped: &PipeReader) -> bool {
    let mut fds = [PollFd::new(file, events), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => return fds[0].any().unwrap_or(true),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests;
