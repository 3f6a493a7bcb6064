//! A process's streams: what the process gets, and the shim's ends of it.
//!
//! ```text
//! client ── fifo ──▶ copier ──▶ pipe ──▶ stdin   process
//! client ◀─ fifo ◀── copier ◀── pipe ◀── stdout
//! ```
//! A fifo is never handed to the process itself: its reader may go away and come back (containerd
//! restarts), and the process must not get EPIPE for it. The shim keeps each output fifo open for
//! reading too, so that it always has a reader.
//!
//! A stream by id is copied through memory; see `exchange` for how its two ends meet.
//!
//! A `file://` is copied to as well, for containerd's own shim does, and so a full disk costs output
//! and not the process. One copier serves both streams of one file: they keep their order. A plain
//! file behind a bare path is handed over as it is.

mod copy;
mod exchange;
mod fifo;
mod line;
mod logger;
mod stream;

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::Mutex,
    time::Duration,
};

use nix::{fcntl::OFlag, unistd};
use tokio::task::JoinHandle;

use self::{copy::Output, exchange::Port, logger::Logger};
use crate::{
    backend::{Streams, Terminal},
    error::{Context, Error, Result},
    model::{ContainerId, LogBinary, StdioPlace, StdioUri, StdioUris, WindowSize},
};

pub(crate) use self::{
    exchange::{Caller, Exchange},
    line::{Word, Words},
    logger::Loggers,
};

/// How long an exit waits for output that nobody takes.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Whom processes' streams may lead to beside fifos and files. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    pub(crate) loggers: Loggers,
    /// Clients at the shim's own socket.
    pub(crate) exchange: Exchange,
}

/// The shim's ends of a process's streams, before there is a process.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    stdin: Option<Inlet>,
    outputs: Vec<Outlet>,
    /// Logging binaries that are to run, until they do.
    readers: Vec<Reader>,
    loggers: Vec<Logger>,
}

/// A logging binary and the outputs that it is to read.
#[derive(Debug)]
struct Reader {
    binary: LogBinary,
    /// Standard output and error.
    outputs: [Option<OwnedFd>; 2],
}

/// From the client to the process.
#[derive(Debug)]
struct Inlet {
    source: Source,
    /// `None` with a terminal: its master comes with the process.
    pipe: Option<OwnedFd>,
}

/// What an input is read from.
#[derive(Debug)]
enum Source {
    /// A fifo, and its keeper.
    Fifo(OwnedFd, OwnedFd),
    Stream(Port),
}

/// Keeps an input from ending while clients come and go, until stdin is closed by request.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
enum Keeper {
    Fifo(OwnedFd),
    Stream(stream::Keeper),
}

/// From the process to the client.
#[derive(Debug)]
struct Outlet {
    pipe: Option<OwnedFd>,
    sink: Sink,
}

/// What an output is written to.
#[derive(Debug)]
enum Sink {
    /// A fifo, a file or a pipe.
    File(OwnedFd),
    Stream(Port),
}

/// The shim's ends of a live process's streams.
#[derive(Debug, Default)]
pub(crate) struct Console {
    terminal: Option<Terminal>,
    stdin: Mutex<Option<Keeper>>,
    stdin_copier: Option<JoinHandle<()>>,
    outputs: Vec<Output>,
    loggers: Vec<Logger>,
}

impl Relay {
    /// Opens what the client named for a process of a container, and waits for the logging binaries
    /// among it. Returns the process's ends beside the shim's.
    ///
    /// # Errors
    /// The stream and the path that could not be opened.
    pub(crate) async fn open(
        uris: &StdioUris,
        container: &ContainerId,
        peers: &Peers,
    ) -> Result<(Self, Streams)> {
        let mut relay = Self::default();
        let streams = if uris.terminal {
            let stdin = uris.stdin.as_ref().map(|uri| open_inlet(uri, None, peers)).transpose();
            relay.stdin = stdin.context("open stdin")?;
            relay.add_terminal(uris.stdout.as_ref(), peers).context("open stdout")?;
            Streams::Terminal
        } else {
            let stdin = relay.add_input(uris.stdin.as_ref(), peers).context("open stdin")?;
            let (stdout, stderr) = (uris.stdout.as_ref(), uris.stderr.as_ref());
            let [stdout, stderr] = relay.add_outputs(stdout, stderr, peers)?;
            Streams::Pipes { stdin, stdout, stderr }
        };
        for Reader { binary, outputs } in std::mem::take(&mut relay.readers) {
            let logger = peers.loggers.start(&binary, container, outputs).await;
            let name = || format!("logging binary {}", binary.path.display());
            relay.loggers.push(logger.with_context(name)?);
        }
        Ok((relay, streams))
    }

    /// Starts to copy, for a process that exists.
    ///
    /// # Errors
    /// When the terminal that was asked for is missing, or the runtime takes no more descriptors.
    pub(crate) fn run(self, terminal: Option<Terminal>) -> Result<Console> {
        let mut console = Console::default();
        if let Some(inlet) = self.stdin {
            let pipe = process_end(inlet.pipe, terminal.as_ref())?;
            let (copier, keeper) = match inlet.source {
                Source::Fifo(fifo, keeper) => (copy::input(fifo, pipe)?, Keeper::Fifo(keeper)),
                Source::Stream(port) => {
                    let (copier, keeper) = stream::input(port, pipe)?;
                    (copier, Keeper::Stream(keeper))
                }
            };
            console.stdin_copier = Some(copier);
            console.stdin = Mutex::new(Some(keeper));
        }
        for outlet in self.outputs {
            let pipe = process_end(outlet.pipe, terminal.as_ref())?;
            console.outputs.push(match outlet.sink {
                Sink::File(sink) => Output::start(pipe, sink)?,
                Sink::Stream(port) => stream::output(pipe, port)?,
            });
        }
        console.terminal = terminal;
        console.loggers = self.loggers;
        Ok(console)
    }

    /// Returns the process's end.
    fn add_input(&mut self, uri: Option<&StdioUri>, peers: &Peers) -> Result<OwnedFd> {
        let Some(uri) = uri else { return null() };
        let (reader, writer) = pipe()?;
        self.stdin = Some(open_inlet(uri, Some(writer), peers)?);
        Ok(reader)
    }

    /// Returns the process's ends.
    fn add_outputs(
        &mut self,
        stdout: Option<&StdioUri>,
        stderr: Option<&StdioUri>,
        peers: &Peers,
    ) -> Result<[OwnedFd; 2]> {
        let same = stderr.is_some() && stderr.map(StdioUri::place) == stdout.map(StdioUri::place);
        // containerd's own shim hands a logging binary for stdout the errors too, named or not.
        if let Some(StdioPlace::Binary(binary)) = stdout.map(StdioUri::place)
            && (same || stderr.is_none())
        {
            let (stdout, stderr) = (pipe().context("open stdout")?, pipe().context("open stderr")?);
            let outputs = [Some(stdout.0), Some(stderr.0)];
            self.readers.push(Reader { binary: binary.clone(), outputs });
            return Ok([stdout.1, stderr.1]);
        }
        let first = |reader| [Some(reader), None];
        let stdout = self.add_output(stdout, peers, first).context("open stdout")?;
        if same {
            // One stream for both keeps their order.
            let stderr = stdout.try_clone().context("open stderr")?;
            return Ok([stdout, stderr]);
        }
        let second = |reader| [None, Some(reader)];
        let stderr = self.add_output(stderr, peers, second).context("open stderr")?;
        Ok([stdout, stderr])
    }

    /// Returns the process's end. `outputs` puts a reader in its place among a binary's two.
    fn add_output(
        &mut self,
        uri: Option<&StdioUri>,
        peers: &Peers,
        outputs: impl FnOnce(OwnedFd) -> [Option<OwnedFd>; 2],
    ) -> Result<OwnedFd> {
        let Some(uri) = uri else { return null() };
        let sink = match uri.place() {
            StdioPlace::Binary(binary) => {
                let (reader, writer) = pipe()?;
                self.readers.push(Reader { binary: binary.clone(), outputs: outputs(reader) });
                return Ok(writer);
            }
            StdioPlace::Fifo(path) => {
                let sink = open_fifo(path)?;
                if !is_fifo(&sink)? {
                    return Ok(sink);
                }
                Sink::File(sink)
            }
            StdioPlace::File(path) => Sink::File(open_file(path)?),
            StdioPlace::Stream(stream) => Sink::Stream(peers.exchange.name(stream)?),
        };
        let (reader, writer) = pipe()?;
        self.outputs.push(Outlet { pipe: Some(reader), sink });
        Ok(writer)
    }

    /// Where the terminal's output goes: the client's end of it, or a pipe to a logging binary.
    fn add_terminal(&mut self, uri: Option<&StdioUri>, peers: &Peers) -> Result<()> {
        let Some(uri) = uri else { return Ok(()) };
        let sink = match uri.place() {
            StdioPlace::Fifo(path) => Sink::File(open_fifo(path)?),
            StdioPlace::File(path) => Sink::File(open_file(path)?),
            StdioPlace::Stream(stream) => Sink::Stream(peers.exchange.name(stream)?),
            StdioPlace::Binary(binary) => {
                let (reader, writer) = pipe()?;
                let outputs = [Some(reader), None];
                self.readers.push(Reader { binary: binary.clone(), outputs });
                Sink::File(writer)
            }
        };
        self.outputs.push(Outlet { pipe: None, sink });
        Ok(())
    }
}

impl Console {
    /// Sets the terminal's size; nothing to do without one.
    ///
    /// # Errors
    /// What the kernel or the backend says.
    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        self.terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(size))
    }

    /// Lets stdin end once the client has closed its side.
    pub(crate) fn close_stdin(&self) {
        self.stdin.lock().expect("nobody panics with it locked").take();
    }

    /// Waits until what an ended process has printed is on its way, for a bounded time: output may
    /// be stuck where nobody reads, or be held open by a child that lives on.
    pub(crate) async fn drained(&self) {
        if let Some(copier) = &self.stdin_copier {
            copier.abort();
        }
        let all = async {
            for output in &self.outputs {
                output.drained().await;
            }
            for logger in &self.loggers {
                logger.drained().await;
            }
        };
        if tokio::time::timeout(DRAIN_LIMIT, all).await.is_err() {
            log::warn!("nobody takes the output of an ended process");
        }
    }

    /// Ends the logging binaries of a process that is deleted. Those that take their time go on
    /// ending by themselves: a deletion is not to wait for them.
    pub(crate) async fn close(&self) {
        for logger in &self.loggers {
            logger.ask_to_end();
        }
        let all = async {
            for logger in &self.loggers {
                logger.ended().await;
            }
        };
        if tokio::time::timeout(DRAIN_LIMIT, all).await.is_err() {
            log::debug!("a logging binary takes its time to end");
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(copier) = &self.stdin_copier {
            copier.abort();
        }
    }
}

/// The pipe, or the terminal where there is one.
fn process_end(pipe: Option<OwnedFd>, terminal: Option<&Terminal>) -> Result<OwnedFd> {
    match (pipe, terminal) {
        (Some(pipe), _) => Ok(pipe),
        (None, Some(terminal)) => terminal.share().context("share the terminal"),
        (None, None) => Err(Error::other("the backend made no terminal")),
    }
}

fn open_inlet(uri: &StdioUri, pipe: Option<OwnedFd>, peers: &Peers) -> Result<Inlet> {
    let source = match uri.place() {
        StdioPlace::Fifo(path) | StdioPlace::File(path) => {
            let (fifo, keeper) =
                fifo::open_input(path).with_context(|| format!("open {}", path.display()))?;
            Source::Fifo(fifo, keeper)
        }
        StdioPlace::Stream(stream) => Source::Stream(peers.exchange.name(stream)?),
        StdioPlace::Binary(_) => return Err(Error::invalid("a logging binary takes output only")),
    };
    Ok(Inlet { source, pipe })
}

fn open_fifo(path: &Path) -> Result<OwnedFd> {
    fifo::open_output(path).with_context(|| format!("open {}", path.display()))
}

fn open_file(path: &Path) -> Result<OwnedFd> {
    let open = || -> io::Result<OwnedFd> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = OpenOptions::new();
        // A fifo without a reader is an error, not a wait.
        options
            .append(true)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        Ok(options.open(path)?.into())
    };
    open().with_context(|| format!("open {}", path.display()))
}

/// The reading and the writing end.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    unistd::pipe2(OFlag::O_CLOEXEC).context("make a pipe")
}

fn is_fifo(fd: &OwnedFd) -> Result<bool> {
    let file = File::from(fd.try_clone().context("look at a stream")?);
    Ok(file.metadata().context("look at a stream")?.file_type().is_fifo())
}

fn null() -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null");
    Ok(file.context("open /dev/null")?.into())
}

#[cfg(test)]
mod tests;
