//! Staying with a process: its signals, its terminal, its end.

use std::{
    fs::File,
    future::Future,
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal as Known;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use shim_core::{
    Context, Result,
    linux::{open_pid, signal_pidfd},
    model::{Pid, Signal},
};
use shim_runc::runtime::Console;

use crate::signals::Caught;

/// How long a terminal that its process has left may be silent before nobody waits for it.
const SILENCE: Duration = Duration::from_secs(1);

/// Flags of what becomes of a process, the same for its making by any verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Ties {
    /// A unix socket that gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<std::path::PathBuf>,
    /// Where to write the process's id
    #[arg(long, value_name = "FILE")]
    pid_file: Option<std::path::PathBuf>,
    /// Pass on that many files behind the standard streams and those of LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t)]
    pub(crate) preserve_fds: u32,
}

impl Ties {
    /// Where a terminal goes, of a process that we stay with or leave alone.
    pub(crate) fn console(&self, stays: bool) -> Console {
        let socket = self.console_socket.as_ref().filter(|path| !path.as_os_str().is_empty());
        match socket {
            Some(socket) => Console::Socket(socket.clone()),
            None if stays => Console::Kept,
            None => Console::None,
        }
    }

    /// Writes the pid file, if one is asked for.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write_pid(&self, pid: Pid) -> Result<()> {
        let Some(path) = self.pid_file.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(());
        };
        let write = |path: &Path| -> io::Result<()> {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Whoever waits for it finds all of it.
            let fresh = path.with_file_name(format!(".{name}"));
            std::fs::write(&fresh, pid.to_string())?;
            std::fs::rename(fresh, path)
        };
        write(path).with_context(|| format!("write pid file {}", path.display()))
    }
}

/// Passes signals on until the process has ended, and its terminal's bytes both ways.
pub(crate) async fn attend(
    caught: &mut Caught,
    pid: Pid,
    terminal: Option<Terminal>,
    exit: impl Future<Output = u32>,
) -> Result<u32> {
    let pidfd = open_pid(pid)?;
    let mut exit = std::pin::pin!(exit);
    let status = loop {
        tokio::select! {
            status = &mut exit => break status,
            signal = caught.next() => match (signal, &terminal) {
                (Known::SIGWINCH, Some(terminal)) => terminal.resize(),
                // One that has just ended hears nothing more.
                _ => drop(signal_pidfd(&pidfd, Signal::parse((signal as i32).cast_unsigned())?)),
            },
        }
    };
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    Ok(status)
}

/// Rows and columns of the terminal that we are in, if it knows them.
pub(crate) fn own_size() -> Option<(u64, u64)> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
}

/// Our side of a terminal whose other side a process has.
pub(crate) struct Terminal {
    master: OwnedFd,
    copied: Arc<AtomicU64>,
    /// Ends when all was printed.
    done: Receiver<()>,
    _raw: Option<RawMode>,
}

impl Terminal {
    /// Begins to copy.
    ///
    /// # Errors
    /// When our own terminal can't be made raw.
    pub(crate) fn begin(master: OwnedFd) -> Result<Self> {
        let (copied, (ending, done)) = (Arc::new(AtomicU64::new(0)), channel());
        let raw = RawMode::enter()?;
        let (input, output) = (File::from(master.try_clone()?), File::from(master.try_clone()?));
        let counted = Arc::clone(&copied);
        thread::spawn(move || {
            copy(output, io::stdout(), |count| {
                counted.fetch_add(count, Ordering::Relaxed);
            });
            drop(ending);
        });
        // It ends with us: nobody can be woken who waits for a key.
        thread::spawn(move || copy(io::stdin(), input, |_| {}));
        let terminal = Self { master, copied, done, _raw: raw };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives the terminal the size of ours.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            // A terminal that is gone needs no size.
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    /// Waits until all was printed, or until those who could print are silent.
    fn finish(self) {
        loop {
            let before = self.copied.load(Ordering::Relaxed);
            match self.done.recv_timeout(SILENCE) {
                Err(RecvTimeoutError::Timeout) if self.copied.load(Ordering::Relaxed) != before => {
                }
                _ => return,
            }
        }
    }
}

/// Copies until an end, the master's EIO among them.
fn copy(mut from: impl Read, mut to: impl Write, told: impl Fn(u64)) {
    let mut bytes = [0; 8192];
    loop {
        match from.read(&mut bytes) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.write_all(&bytes[..count]).and_then(|()| to.flush()).is_err() {
                    return;
                }
                told(count as u64);
            }
        }
    }
}

/// Our terminal with each key passed on as it is; dropping it restores the mode that it had.
struct RawMode(Termios);

impl RawMode {
    /// None where standard input is no terminal.
    fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}
