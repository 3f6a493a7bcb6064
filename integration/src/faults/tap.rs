//! The reader of a fifo, that can stand still, go away and come back.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How much text is kept, for a failure's report.
const KEPT: usize = 8 << 10;

/// Reads a fifo until it is closed, and counts. Clones are the same reader.
#[derive(Clone, Debug)]
pub struct Tap {
    path: PathBuf,
    state: Arc<State>,
    running: Arc<Mutex<Option<Running>>>,
}

/// The thread that reads; hanging up the pipe ends it.
#[derive(Debug)]
struct Running {
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    pauses: AtomicBool,
    count: AtomicUsize,
    last: Mutex<Vec<u8>>,
}

impl Tap {
    /// Opens the fifo and reads.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let tap = Self { path: path.to_owned(), state: Arc::default(), running: Arc::default() };
        tap.reopen()?;
        Ok(tap)
    }

    /// Comes back after [`Self::close`].
    ///
    /// # Errors
    /// When the fifo is gone.
    pub fn reopen(&self) -> Result<()> {
        // For writing too, as containerd's clients do: no end is seen while no shim has it open.
        let fifo = fifo(&self.path, OpenOptions::new().read(true).write(true))?;
        let (stopped, stop) = io::pipe().context("make a pipe")?;
        self.state.pauses.store(false, Ordering::Relaxed);
        let state = Arc::clone(&self.state);
        let thread = thread::spawn(move || state.read(fifo, &stopped));
        *self.running() = Some(Running { stop, thread });
        Ok(())
    }

    /// Goes away. What was read stays counted.
    pub fn close(&self) {
        if let Some(Running { stop, thread }) = self.running().take() {
            drop(stop);
            // It has nothing to tell.
            let _ = thread.join();
        }
    }

    /// Stands still.
    pub fn pause(&self) {
        self.state.pauses.store(true, Ordering::Relaxed);
        // Reading is done under this lock, and not begun any more behind it.
        drop(self.state.last());
    }

    /// Stands still with a fifo that has no room.
    ///
    /// # Errors
    /// When the fifo cannot be opened.
    pub fn clog(&self) -> Result<()> {
        self.pause();
        let mut fifo = fifo(&self.path, OpenOptions::new().read(true).write(true))?;
        // Whole pages first: a pipe without a free page may still have room in its last one.
        for size in [4096, 1] {
            while fifo.write(&[b'\n'; 4096][..size]).is_ok() {}
        }
        Ok(())
    }

    /// Reads on.
    pub fn resume(&self) {
        self.state.pauses.store(false, Ordering::Relaxed);
    }

    /// How many bytes were read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.count.load(Ordering::Relaxed)
    }

    /// The last of what was read.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.last()).trim().to_owned()
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads until `stopped` is hung up.
    fn read(&self, mut fifo: File, stopped: &PipeReader) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let pauses = self.pauses.load(Ordering::Relaxed);
            let events = if pauses { PollFlags::empty() } else { PollFlags::POLLIN };
            let mut fds = [PollFd::new(stopped.as_fd(), events), PollFd::new(fifo.as_fd(), events)];
            // The flag is looked at again after at most ten milliseconds.
            let ready = poll(&mut fds, PollTimeout::from(10u8));
            if fds[0].any() == Some(true) {
                return;
            }
            if pauses || !ready.is_ok_and(|count| count > 0) {
                continue;
            }
            let mut last = self.last();
            if self.pauses.load(Ordering::Relaxed) {
                continue;
            }
            if let Ok(count) = fifo.read(&mut buffer) {
                self.count.fetch_add(count, Ordering::Relaxed);
                last.extend_from_slice(&buffer[..count]);
                let surplus = last.len().saturating_sub(KEPT);
                last.drain(..surplus);
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Vec<u8>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fifo(path: &Path, options: &mut OpenOptions) -> Result<File> {
    let fifo = options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    fifo.with_context(|| format!("open the fifo {}", path.display()))
}
