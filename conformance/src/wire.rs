//! ttrpc by hand: frames as they are on the socket, well-formed or not.
//!
//! A frame is ten bytes of head, big-endian (length, stream, type, flags), and the data.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shim_protos::protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use ttrpc::proto::{Request, Response};

/// The type of a frame with a request.
pub(crate) const REQUEST: u8 = 1;
/// The type of a frame with a response.
pub(crate) const RESPONSE: u8 = 2;
/// The type of a frame with a message of a stream.
pub(crate) const DATA: u8 = 3;
/// The most data that a frame may have.
pub(crate) const LARGEST: u32 = 4 << 20;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A connection to a shim, spoken by hand.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UnixStream,
}

impl Wire {
    /// Connects to an address as a shim prints it.
    pub(crate) async fn connect(address: &str) -> Result<Self> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let socket =
            UnixStream::connect(path).await.with_context(|| format!("connect to {path}"))?;
        Ok(Self { socket })
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(LIMIT, self.socket.write_all(bytes))
            .await
            .context("the shim takes no more bytes")?
            .context("send")
    }

    /// Sends a frame with a true length.
    pub(crate) async fn frame(&mut self, stream: u32, kind: u8, data: &[u8]) -> Result<()> {
        self.flagged(stream, kind, 0, data).await
    }

    /// Sends a frame with a true length and these flags.
    pub(crate) async fn flagged(
        &mut self,
        stream: u32,
        kind: u8,
        flags: u8,
        data: &[u8],
    ) -> Result<()> {
        let length = u32::try_from(data.len()).context("a frame's length")?;
        let mut head = head(length, stream, kind);
        head[9] = flags;
        // At once: each write takes room of its own in a socket's buffer.
        self.send(&[&head, data].concat()).await
    }

    /// Sends a call.
    pub(crate) async fn call(
        &mut self,
        stream: u32,
        service: &str,
        method: &str,
        payload: Vec<u8>,
    ) -> Result<()> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            ..Request::default()
        };
        self.frame(stream, REQUEST, &request.write_to_bytes().context("encode a request")?).await
    }

    /// The next response, and its stream.
    pub(crate) async fn response(&mut self) -> Result<(u32, Response)> {
        let mut head = [0; 10];
        timeout(LIMIT, self.socket.read_exact(&mut head))
            .await
            .context("no answer")?
            .context("the connection ended")?;
        let field =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, stream) = (field(0), field(4));
        ensure!(length <= LARGEST, "the shim sends a frame of {length} bytes");
        ensure!(head[8] == RESPONSE, "the shim sends a frame of type {}", head[8]);
        let mut data = vec![0; length as usize];
        timeout(LIMIT, self.socket.read_exact(&mut data)).await.context("half an answer")??;
        Ok((stream, Response::parse_from_bytes(&data).context("decode a response")?))
    }

    /// Whether the shim has closed the connection, or does so soon.
    pub(crate) async fn is_closed(&mut self) -> Result<bool> {
        let mut byte = [0];
        match timeout(LIMIT, self.socket.read(&mut byte)).await {
            Err(_) => Ok(false),
            Ok(Ok(0) | Err(_)) => Ok(true),
            Ok(Ok(_)) => bail!("the shim sends something"),
        }
    }
}

/// The head of a frame, with a length that need not be true.
pub(crate) fn head(length: u32, stream: u32, kind: u8) -> [u8; 10] {
    let mut head = [0; 10];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4..8].copy_from_slice(&stream.to_be_bytes());
    head[8] = kind;
    head
}
