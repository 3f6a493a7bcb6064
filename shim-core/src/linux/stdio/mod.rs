//! A process's streams: what the process gets, and the shim's ends of it.
//!
//! ```text
//! client ── fifo ──▶ copier ──▶ pipe ──▶ stdin   process
//! client ◀─ fifo ◀── copier ◀── pipe ◀── stdout
//! ```
//! A fifo is never handed to the process itself: its reader may go away and come back (containerd
//! restarts), and the process must not get EPIPE for it. The shim keeps each output fifo open for
//! reading too, so that it always has a reader. A file is handed over as it is.

mod copy;
mod fifo;

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::Mutex,
    time::Duration,
};

use nix::{fcntl::OFlag, unistd};
use tokio::task::JoinHandle;

use self::copy::Output;
use super::sys;
use crate::{
    backend::Streams,
    error::{Context, Error, Result},
    model::{StdioUri, StdioUris, WindowSize},
};

/// How long an exit waits for output that nobody takes.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The shim's ends of a process's streams, before there is a process.
#[derive(Debug)]
pub(crate) struct Relay {
    stdin: Option<Inlet>,
    outputs: Vec<Outlet>,
}

/// From the client's fifo to the process.
#[derive(Debug)]
struct Inlet {
    fifo: OwnedFd,
    /// Keeps the fifo from ending while clients come and go, until stdin is closed by request.
    keeper: OwnedFd,
    /// `None` with a terminal: its master comes with the process.
    pipe: Option<OwnedFd>,
}

/// From the process to the client.
#[derive(Debug)]
struct Outlet {
    pipe: Option<OwnedFd>,
    sink: OwnedFd,
}

/// The shim's ends of a live process's streams.
#[derive(Debug, Default)]
pub(crate) struct Console {
    terminal: Option<OwnedFd>,
    stdin: Mutex<Option<OwnedFd>>,
    stdin_copier: Option<JoinHandle<()>>,
    outputs: Vec<Output>,
}

impl Relay {
    /// Opens what the client named. Returns the process's ends beside the shim's.
    ///
    /// # Errors
    /// The stream and the path that could not be opened.
    pub(crate) fn open(uris: &StdioUris) -> Result<(Self, Streams)> {
        if uris.terminal {
            let stdin = uris.stdin.as_ref().map(|uri| open_inlet(uri, None)).transpose();
            let stdin = stdin.context("open stdin")?;
            let outputs = uris.stdout.as_ref().map(open_sink).transpose().context("open stdout")?;
            let outputs = outputs.map(|sink| Outlet { pipe: None, sink }).into_iter().collect();
            return Ok((Self { stdin, outputs }, Streams::Terminal));
        }
        let mut relay = Self { stdin: None, outputs: Vec::new() };
        let stdin = relay.add_input(uris.stdin.as_ref()).context("open stdin")?;
        let stdout = relay.add_output(uris.stdout.as_ref()).context("open stdout")?;
        let stderr = if uris.stderr.is_some() && uris.stderr == uris.stdout {
            // One stream for both keeps their order.
            stdout.try_clone().context("open stderr")?
        } else {
            relay.add_output(uris.stderr.as_ref()).context("open stderr")?
        };
        Ok((relay, Streams::Pipes { stdin, stdout, stderr }))
    }

    /// Starts to copy, for a process that exists.
    ///
    /// # Errors
    /// When the terminal that was asked for is missing, or the runtime takes no more descriptors.
    pub(crate) fn run(self, terminal: Option<OwnedFd>) -> Result<Console> {
        let mut console = Console::default();
        if let Some(inlet) = self.stdin {
            let pipe = process_end(inlet.pipe, terminal.as_ref())?;
            console.stdin_copier = Some(copy::input(inlet.fifo, pipe)?);
            console.stdin = Mutex::new(Some(inlet.keeper));
        }
        for outlet in self.outputs {
            let pipe = process_end(outlet.pipe, terminal.as_ref())?;
            console.outputs.push(Output::start(pipe, outlet.sink)?);
        }
        console.terminal = terminal;
        Ok(console)
    }

    /// Returns the process's end.
    fn add_input(&mut self, uri: Option<&StdioUri>) -> Result<OwnedFd> {
        let Some(uri) = uri else { return null() };
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        self.stdin = Some(open_inlet(uri, Some(writer))?);
        Ok(reader)
    }

    /// Returns the process's end.
    fn add_output(&mut self, uri: Option<&StdioUri>) -> Result<OwnedFd> {
        let Some(uri) = uri else { return null() };
        let sink = open_sink(uri)?;
        if !is_fifo(&sink)? {
            return Ok(sink);
        }
        let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        self.outputs.push(Outlet { pipe: Some(reader), sink });
        Ok(writer)
    }
}

impl Console {
    /// Sets the terminal's size; nothing to do without one.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn resize(&self, size: WindowSize) -> Result<()> {
        let Some(terminal) = &self.terminal else { return Ok(()) };
        sys::set_window_size(terminal.as_fd(), size).context("resize the terminal")
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
        };
        if tokio::time::timeout(DRAIN_LIMIT, all).await.is_err() {
            log::warn!("nobody takes the output of an ended process");
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
fn process_end(pipe: Option<OwnedFd>, terminal: Option<&OwnedFd>) -> Result<OwnedFd> {
    match (pipe, terminal) {
        (Some(pipe), _) => Ok(pipe),
        (None, Some(terminal)) => terminal.try_clone().context("share the terminal"),
        (None, None) => Err(Error::other("the backend made no terminal")),
    }
}

fn open_inlet(uri: &StdioUri, pipe: Option<OwnedFd>) -> Result<Inlet> {
    let (StdioUri::Fifo(path) | StdioUri::File(path)) = uri;
    let (fifo, keeper) =
        fifo::open_input(path).with_context(|| format!("open {}", path.display()))?;
    Ok(Inlet { fifo, keeper, pipe })
}

fn open_sink(uri: &StdioUri) -> Result<OwnedFd> {
    match uri {
        StdioUri::Fifo(path) => {
            fifo::open_output(path).with_context(|| format!("open {}", path.display()))
        }
        StdioUri::File(path) => open_file(path).with_context(|| format!("open {}", path.display())),
    }
}

fn open_file(path: &Path) -> io::Result<OwnedFd> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path)?;
    Ok(file.into())
}

fn is_fifo(fd: &OwnedFd) -> Result<bool> {
    let file = File::from(fd.try_clone().context("look at a stream")?);
    Ok(file.metadata().context("look at a stream")?.file_type().is_fifo())
}

fn null() -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null");
    Ok(file.context("open /dev/null")?.into())
}
