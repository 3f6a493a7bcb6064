//! Moves bytes between a pipe and a stream: what both halves do for each stream of a process.
//!
//! Nothing is kept for a stream that is idle: a buffer is there while there are bytes.

use std::io;

use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::{OwnedReadHalf, pipe},
};

use crate::channel::Stream;

/// What is moved at once: a pipe's usual size.
pub(crate) const CHUNK: usize = 64 << 10;

/// What bytes are read from: something that tells when there are any.
pub(crate) trait Source {
    /// Waits until there may be something to read, or the end.
    async fn readable(&self) -> io::Result<()>;
    /// Reads what is there.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Source for pipe::Receiver {
    async fn readable(&self) -> io::Result<()> {
        Self::readable(self).await
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::try_read(self, buffer)
    }
}

impl Source for OwnedReadHalf {
    async fn readable(&self) -> io::Result<()> {
        Self::readable(self).await
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::try_read(self, buffer)
    }
}

/// Moves what a source has to a stream, until the source ends or the other side of the stream is gone. The
/// stream is ended after the last byte.
///
/// # Errors
/// When either side breaks.
pub(crate) async fn to_stream(source: &impl Source, stream: &mut Stream) -> io::Result<()> {
    let mut nothing = [0; 1];
    loop {
        tokio::select! {
            readable = source.readable() => readable?,
            // Who takes bytes sends none: whatever comes here is its end.
            _ = stream.read(&mut nothing) => return Ok(()),
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            match source.try_read(&mut buffer) {
                Ok(0) => return stream.shutdown().await,
                Ok(read) => {
                    stream.write_all(&buffer[..read]).await?;
                    // A stream that takes everything would let nobody else have a turn.
                    tokio::task::yield_now().await;
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) => return Err(err),
            }
        }
    }
}

/// Moves what a stream brings to a sink, until the stream ends.
///
/// # Errors
/// When the sink takes no more, or the line breaks.
pub(crate) async fn to_sink(
    stream: &mut Stream,
    sink: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    while let Some(bytes) = next(stream).await? {
        sink.write_all(bytes.as_ref()).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The next bytes of a stream, as they came.
///
/// # Errors
/// When the line breaks.
pub(crate) async fn next(stream: &mut Stream) -> io::Result<Option<impl AsRef<[u8]> + use<>>> {
    stream.get_mut().next().await.transpose()
}
