//! A program that runs beside a test: what it has written so far, what it is told, how it ends.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{procs, wait};

/// What a program wrote and how it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Output {
    /// The exit code; 128 + n after signal n, as a shell has it.
    pub status: i32,
    /// Standard output; on a terminal both streams.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Session {
    name: String,
    child: Child,
    stdin: Option<File>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

impl Session {
    /// Starts a program on three pipes.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = describe(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdin = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let stdout = Stream::read(child.stdout.take().map(OwnedFd::from));
        let stderr = Stream::read(child.stderr.take().map(OwnedFd::from));
        Ok(Self { name, child, stdin, stdout, stderr })
    }

    /// Starts a program on a terminal of its own, of the given size.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on_terminal(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        let name = describe(&command);
        let pty = openpty(None, None).context("open a terminal")?;
        tcsetwinsize(&pty.master, size(rows, columns)).context("resize the terminal")?;
        // Children inherit the originals, and would hide the hang-up; the copies close on exec.
        let (master, slave) = (pty.master.try_clone()?, pty.slave.try_clone()?);
        drop(pty);
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        // The command still holds the child's end.
        drop(command);
        let stdout = Stream::read(Some(master.try_clone()?));
        Ok(Self { name, child, stdin: Some(master.into()), stdout, stderr: Stream::read(None) })
    }

    /// The program's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Changes the size of the program's terminal, and tells the program so.
    ///
    /// # Errors
    /// When it has no terminal or has ended.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self.stdin.as_ref().context("standard input is closed")?;
        tcsetwinsize(terminal, size(rows, columns)).context("resize the terminal")?;
        // The kernel would tell the terminal's foreground group; this terminal controls nobody.
        procs::signal(self.pid().cast_signed(), Signal::SIGWINCH)
    }

    /// Writes to the program's standard input.
    ///
    /// # Errors
    /// When it is closed.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("write to {}", self.name))
    }

    /// Ends the program's standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What the program has written to standard output.
    #[must_use]
    pub fn written(&self) -> String {
        self.stdout.text()
    }

    /// Waits until standard output contains `text`.
    ///
    /// # Errors
    /// When the output ends or `limit` passes before.
    pub fn expect(&self, text: &str, limit: Duration) -> Result<()> {
        let found = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
        self.stdout.wait(limit, |written| written.ended || found(&written.bytes));
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        ensure!(stdout.contains(text), "{}: no {text:?} in {stdout:?}, {stderr:?}", self.name);
        Ok(())
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When it does not end within `limit`; it is killed then.
    pub fn finish(mut self, limit: Duration) -> Result<Output> {
        let end = Instant::now() + limit;
        let status = wait::until("the end of the program", limit, || {
            self.child.try_wait()?.context("it runs")
        });
        let Ok(status) = status else {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            bail!("{}: did not end within {limit:?}; wrote {stdout:?}, {stderr:?}", self.name);
        };
        // Whoever else holds the pipes may keep them open for ever.
        let rest = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        for stream in [&self.stdout, &self.stderr] {
            ensure!(stream.wait(rest, |w| w.ended), "{}: its output stays open", self.name);
        }
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        Ok(Output { status: code(status), stdout, stderr })
    }

    /// Ends the program without grace.
    pub fn kill(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end, with an empty standard input.
///
/// # Errors
/// When it cannot be started or does not end within `limit`.
pub fn run(command: Command, limit: Duration) -> Result<Output> {
    let mut session = Session::start(command)?;
    session.close_stdin();
    session.finish(limit)
}

/// The exit code as a shell shows it.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// The command line, short enough for a message.
fn describe(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let mut text = program.rsplit('/').next().unwrap_or_default().to_owned();
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text.chars().take(200).collect()
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// One stream of a program, collected by a thread.
#[derive(Debug, Default)]
struct Stream {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    /// Collects what `source` gives; nothing without one.
    fn read(source: Option<OwnedFd>) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let writer = Arc::clone(&stream);
        thread::spawn(move || {
            if let Some(source) = source {
                writer.collect(&mut File::from(source));
            }
            writer.lock().ended = true;
            writer.changed.notify_all();
        });
        stream
    }

    fn collect(&self, source: &mut File) {
        let mut buffer = [0; 16 << 10];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => self.lock().bytes.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // EIO is how a terminal says that its last user is gone.
                Err(_) => return,
            }
            self.changed.notify_all();
        }
    }

    /// Waits until `done` holds; false when it does not within `limit`.
    fn wait(&self, limit: Duration, done: impl Fn(&Written) -> bool) -> bool {
        let waiting = |written: &mut Written| !done(written);
        let result = self.changed.wait_timeout_while(self.lock(), limit, waiting);
        !result.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
