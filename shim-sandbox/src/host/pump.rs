//! A process's streams on the host: what the framework gives as its ends, joined to streams of the line.
//!
//! No input is sent before the process's side in the guest is open: only then can the guest tell a reader
//! that is gone from one that has not come.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
        unix::net::UnixStream as StdStream,
    },
    time::Duration,
};

use nix::sys::stat::{major, minor};
use shim_core::{Context, Result, Streams};
use tokio::{
    io::AsyncWriteExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf, pipe},
    },
    sync::watch,
    task::JoinHandle,
    time,
};

use super::agent::Agent;
use crate::{
    channel::{Purpose, Stream},
    pump,
};

/// How long an output may be silent after the end of its process before a holder that lives on is assumed.
const QUIET_LIMIT: Duration = Duration::from_millis(100);

/// How long the end of a process waits for its output at the most.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// The numbers of /dev/null.
const NULL: (u64, u64) = (1, 3);

/// What the guest is to open for a process: paths of the guest's, empty where there is nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// Streams that are open, for a process that is not there yet. Dropped, they end.
pub(super) struct Opened {
    pub(super) places: Places,
    input: Option<(Source, Stream)>,
    outputs: Vec<(Sink, Stream)>,
    /// The framework's side of a terminal.
    terminal: Option<OwnedFd>,
}

/// The streams of a process. Dropped, its input ends; outputs end by themselves.
#[derive(Debug)]
pub(super) struct Pumps {
    input: Option<JoinHandle<()>>,
    outputs: Vec<watch::Receiver<Progress>>,
}

/// How far an output is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    bytes: u64,
    ended: bool,
}

enum Source {
    Pipe(pipe::Receiver),
    Terminal(OwnedReadHalf),
}

enum Sink {
    Pipe(pipe::Sender),
    Terminal(OwnedWriteHalf),
    /// A plain file, which is always ready.
    File(File),
}

impl Opened {
    /// Opens what a process's streams need.
    ///
    /// # Errors
    /// When a stream can't be opened, or a descriptor can't be used.
    pub(super) async fn open(agent: &Agent, streams: Streams) -> Result<Self> {
        match streams {
            Streams::Pipes { stdin, stdout, stderr } => {
                Self::pipes(agent, stdin, [stdout, stderr]).await
            }
            Streams::Terminal => Self::terminal(agent).await,
        }
    }

    async fn pipes(agent: &Agent, stdin: OwnedFd, outputs: [OwnedFd; 2]) -> Result<Self> {
        let mut opened =
            Self { places: Places::default(), input: None, outputs: Vec::new(), terminal: None };
        let source = Source::of(stdin).context("use stdin")?;
        let [stdout, stderr] = outputs.map(File::from);
        // One pipe for both keeps their order.
        let are_same = same(&stdout, &stderr).context("compare the outputs")?;
        let stdout = Sink::of(stdout).context("use stdout")?;
        let stderr = if are_same { None } else { Sink::of(stderr).context("use stderr")? };
        if let Some(source) = source {
            let (stream, place) = open(agent, Purpose::Input).await?;
            opened.places.stdin = place;
            opened.input = Some((source, stream));
        }
        if let Some(sink) = stdout {
            opened.places.stdout = opened.add(agent, sink).await?;
        }
        if are_same {
            opened.places.stderr.clone_from(&opened.places.stdout);
        } else if let Some(sink) = stderr {
            opened.places.stderr = opened.add(agent, sink).await?;
        }
        Ok(opened)
    }

    async fn terminal(agent: &Agent) -> Result<Self> {
        let (ours, theirs) = StdStream::pair().context("make a terminal's socket")?;
        ours.set_nonblocking(true).context("prepare a terminal's socket")?;
        let ours = UnixStream::from_std(ours).context("watch a terminal's socket")?;
        let (reader, writer) = ours.into_split();
        let (input, stdin) = open(agent, Purpose::Input).await?;
        let (output, stdout) = open(agent, Purpose::Output).await?;
        Ok(Self {
            places: Places { stdin, stdout, stderr: String::new(), terminal: true },
            input: Some((Source::Terminal(reader), input)),
            outputs: vec![(Sink::Terminal(writer), output)],
            terminal: Some(theirs.into()),
        })
    }

    async fn add(&mut self, agent: &Agent, sink: Sink) -> Result<String> {
        let (stream, place) = open(agent, Purpose::Output).await?;
        self.outputs.push((sink, stream));
        Ok(place)
    }

    /// Whether the process has something to read.
    pub(super) fn has_input(&self) -> bool {
        self.input.is_some()
    }

    /// Moves bytes, for a process whose side is open. Returns the framework's side of a terminal, too.
    pub(super) fn run(self) -> (Pumps, Option<OwnedFd>) {
        let input = self.input.map(|(source, stream)| tokio::spawn(source.drain(stream)));
        let outputs = self.outputs.into_iter().map(|(sink, stream)| {
            let (tell, progress) = watch::channel(Progress::default());
            tokio::spawn(sink.fill(stream, tell));
            progress
        });
        (Pumps { input, outputs: outputs.collect() }, self.terminal)
    }
}

impl Pumps {
    /// Waits until what an ended process has printed is here, for a bounded time: a process that lives on
    /// may hold an output open, and the framework's side may take nothing.
    pub(super) async fn drained(&mut self) {
        let all = async {
            for progress in &mut self.outputs {
                while !progress.borrow_and_update().ended {
                    if !matches!(time::timeout(QUIET_LIMIT, progress.changed()).await, Ok(Ok(()))) {
                        break;
                    }
                }
            }
        };
        if time::timeout(DRAIN_LIMIT, all).await.is_err() {
            log::warn!("the output of an ended process does not end");
        }
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        if let Some(input) = &self.input {
            input.abort();
        }
    }
}

impl Source {
    fn of(fd: OwnedFd) -> Result<Option<Self>> {
        let file = File::from(fd);
        if !file.metadata()?.file_type().is_fifo() {
            return Ok(None);
        }
        Ok(Some(Self::Pipe(pipe::Receiver::from_owned_fd(file.into())?)))
    }

    async fn drain(self, mut stream: Stream) {
        let moved = match &self {
            Self::Pipe(pipe) => pump::to_stream(pipe, &mut stream).await,
            Self::Terminal(socket) => pump::to_stream(socket, &mut stream).await,
        };
        if let Err(err) = moved {
            log::debug!("move stdin: {err}");
        }
    }
}

impl Sink {
    fn of(file: File) -> Result<Option<Self>> {
        let about = file.metadata()?;
        if about.file_type().is_fifo() {
            return Ok(Some(Self::Pipe(pipe::Sender::from_owned_fd(file.into())?)));
        }
        let device = (major(about.rdev()), minor(about.rdev()));
        let is_null = about.file_type().is_char_device() && device == NULL;
        Ok((!is_null).then_some(Self::File(file)))
    }

    /// Moves what a stream brings. What the sink does not take is lost: the process must not stand still
    /// for it.
    async fn fill(mut self, mut stream: Stream, tell: watch::Sender<Progress>) {
        let mut has_lost = false;
        loop {
            let bytes = match pump::next(&mut stream).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(err) => {
                    log::debug!("move an output: {err}");
                    break;
                }
            };
            if !has_lost && let Err(err) = self.write(bytes.as_ref()).await {
                log::debug!("an output goes nowhere: {err}");
                has_lost = true;
            }
            tell.send_modify(|progress| progress.bytes += bytes.as_ref().len() as u64);
            tokio::task::yield_now().await;
        }
        drop(self);
        tell.send_modify(|progress| progress.ended = true);
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(socket) => socket.write_all(bytes).await,
            Self::File(file) => file.write_all(bytes),
        }
    }
}

/// Opens a stream for a process's bytes, and says where it is in the guest.
async fn open(agent: &Agent, purpose: fn(String) -> Purpose) -> Result<(Stream, String)> {
    let name = agent.stream_name();
    let place = format!("{}/stdio/{name}", agent.root());
    Ok((agent.open(purpose(name)).await?, place))
}

/// Whether two descriptors are of one pipe or file; two of /dev/null are of nothing.
fn same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok(!one.file_type().is_char_device() && (one.dev(), one.ino()) == (other.dev(), other.ino()))
}
