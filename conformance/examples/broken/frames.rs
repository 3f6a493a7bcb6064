//! ttrpc's frames: ten bytes of head, big-endian (length, stream, type, flags), and the data.

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The type of a frame with a request.
pub(crate) const REQUEST: u8 = 1;
/// The type of a frame with a response.
pub(crate) const RESPONSE: u8 = 2;
/// The most data that a sound frame has.
const LARGEST: u32 = 4 << 20;

/// A frame as it came.
pub(crate) struct Frame {
    pub(crate) head: [u8; 10],
    pub(crate) data: Vec<u8>,
}

impl Frame {
    /// The next frame; none at the end of the connection.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Self>> {
        let mut head = [0; 10];
        if from.read_exact(&mut head).await.is_err() {
            return Ok(None);
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        // An oversized one is read as far as it goes, and passed on with its head.
        let mut data = Vec::new();
        from.take(u64::from(length)).read_to_end(&mut data).await?;
        Ok(Some(Self { head, data }))
    }

    /// A frame with that data on that stream.
    pub(crate) fn new(kind: u8, stream: u32, data: Vec<u8>) -> Self {
        let mut head = [0; 10];
        head[4..8].copy_from_slice(&stream.to_be_bytes());
        head[8] = kind;
        let mut frame = Self { head, data };
        frame.set_length();
        frame
    }

    /// Puts other data into it.
    pub(crate) fn replace(&mut self, data: Vec<u8>) {
        self.data = data;
        self.set_length();
    }

    fn set_length(&mut self) {
        let length = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
        self.head[..4].copy_from_slice(&length.to_be_bytes());
    }

    pub(crate) fn stream(&self) -> u32 {
        u32::from_be_bytes([self.head[4], self.head[5], self.head[6], self.head[7]])
    }

    pub(crate) fn kind(&self) -> u8 {
        self.head[8]
    }

    /// Whether no client that means well sends it.
    pub(crate) fn is_odd(&self) -> bool {
        let length = u32::from_be_bytes([self.head[0], self.head[1], self.head[2], self.head[3]]);
        length > LARGEST || self.kind() != REQUEST || self.stream().is_multiple_of(2)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.data].concat()
    }
}
