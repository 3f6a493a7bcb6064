//! Streams as the guest takes them: calls, processes' bytes, and connections to what listens in here.
//!
//! The framework has a process's streams as fifos, by path. So a stream for a process's bytes is a fifo,
//! there before the host hears that the stream is taken; the calls that name it come after that.

use std::{fs, io, net::Ipv4Addr, path::PathBuf, time::Duration};

use nix::{sys::stat::Mode, unistd::mkfifo};
use shim_core::{Context, Kind, Result, TaskServer};
use tokio::{
    net::{TcpStream, unix::pipe},
    time,
};

use super::places::Places;
use crate::{
    channel::{Purpose, Stream, accept},
    pump,
};

/// How long a connection inside the guest may take.
const DIAL_LIMIT: Duration = Duration::from_secs(5);

/// What a stream is joined to.
enum Joined {
    Calls,
    Input(Fifo),
    Output(Fifo),
    Port(TcpStream),
}

/// A fifo of our making. Dropped, it is removed.
struct Fifo {
    path: PathBuf,
    reader: Option<pipe::Receiver>,
    writer: Option<pipe::Sender>,
}

/// Takes one stream, and serves it to its end.
pub(super) async fn take(mut stream: Stream, server: TaskServer, places: Places) {
    let prepared = accept(&mut stream, async |purpose| {
        Ok(match purpose {
            Purpose::Calls => Joined::Calls,
            Purpose::Input(name) => Joined::Input(Fifo::for_input(places.stdio(&name))?),
            Purpose::Output(name) => Joined::Output(Fifo::for_output(places.stdio(&name))?),
            Purpose::Dial(port) => Joined::Port(dial(port).await?),
        })
    });
    let ended = match prepared.await {
        Ok(Joined::Calls) => {
            server.serve(stream).await;
            Ok(())
        }
        Ok(Joined::Input(fifo)) => fifo.feed(stream).await,
        Ok(Joined::Output(fifo)) => fifo.drain(stream).await,
        Ok(Joined::Port(port)) => join(stream, port).await,
        Err(err) => {
            log::warn!("{err:#}");
            Ok(())
        }
    };
    if let Err(err) = ended {
        log::debug!("a stream broke: {err}");
    }
}

impl Fifo {
    /// Makes one whose bytes the host sends.
    fn for_input(path: PathBuf) -> Result<Self> {
        let mut fifo = Self::make(path)?;
        // A fifo is opened for writing only when it has a reader: that is us, until the process's is there.
        fifo.reader = Some(fifo.reader()?);
        let writer = pipe::OpenOptions::new().open_sender(&fifo.path);
        fifo.writer = Some(writer.with_context(|| format!("open {}", fifo.path.display()))?);
        Ok(fifo)
    }

    /// Makes one whose bytes go to the host.
    fn for_output(path: PathBuf) -> Result<Self> {
        let mut fifo = Self::make(path)?;
        // Not for writing: it ends with its last writer. One that no writer has opened yet is not at its
        // end, but as long as nobody reads: fifo(7) and poll(2) differ there.
        fifo.reader = Some(fifo.reader()?);
        Ok(fifo)
    }

    fn make(path: PathBuf) -> Result<Self> {
        let made = mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR);
        made.with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path, reader: None, writer: None })
    }

    fn reader(&self) -> Result<pipe::Receiver> {
        let reader = pipe::OpenOptions::new().open_receiver(&self.path);
        reader.with_context(|| format!("open {}", self.path.display()))
    }

    /// Moves the host's bytes into the fifo. The host sends none before the process's side is open.
    async fn feed(mut self, mut stream: Stream) -> io::Result<()> {
        let Some(first) = pump::next(&mut stream).await? else { return Ok(()) };
        // From here on the process's side is the only reader: when that is gone, writing fails.
        drop(self.reader.take());
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        tokio::io::AsyncWriteExt::write_all(&mut writer, first.as_ref()).await?;
        drop(first);
        pump::to_sink(&mut stream, &mut writer).await
    }

    /// Moves the fifo's bytes to the host.
    async fn drain(mut self, mut stream: Stream) -> io::Result<()> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        pump::to_stream(&reader, &mut stream).await
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_file(&self.path) {
            log::debug!("remove {}: {err}", self.path.display());
        }
    }
}

async fn dial(port: u16) -> Result<TcpStream> {
    let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let connected = time::timeout(DIAL_LIMIT, connecting).await;
    connected
        .map_err(|_| shim_core::Error::new(Kind::TimedOut, "nobody answers"))
        .and_then(|connected| Ok(connected?))
        .with_context(|| format!("connect to port {port}"))
}

async fn join(mut stream: Stream, mut port: TcpStream) -> io::Result<()> {
    let (chunk, both) = (pump::CHUNK, (&mut stream, &mut port));
    tokio::io::copy_bidirectional_with_sizes(both.0, both.1, chunk, chunk).await.map(drop)
}
