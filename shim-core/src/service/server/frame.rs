//! ttrpc's frames: ten bytes of head, big-endian (length, stream, type, flags), and the data.
//!
//! The protocol is written down in containerd's ttrpc repository, PROTOCOL.md.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The type of a frame with a request.
const REQUEST: u8 = 1;
/// The type of a frame with a response.
const RESPONSE: u8 = 2;
/// The type of a frame with a message of a stream.
const DATA: u8 = 3;
/// Flag: the sender sends no more on the stream.
pub(super) const CLOSED: u8 = 1;
/// Flag of a request: it opens a stream, and messages follow.
pub(super) const OPEN: u8 = 2;
/// Flag: there is no message.
pub(super) const EMPTY: u8 = 4;
/// The most data that a message of a stream may have: a window of bytes, and what is around it.
pub(super) const LARGEST_MESSAGE: usize = 128 << 10;
/// The most data that a frame may have.
pub(super) const LARGEST: usize = 4 << 20;
/// The length of a head.
pub(crate) const HEAD: usize = 10;
/// How much of what nobody wants is read at once.
const SCRAP: usize = 4096;

/// A frame that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A request, not decoded yet.
    Request { stream: u32, flags: u8, data: Vec<u8> },
    /// A message of a stream.
    Data { stream: u32, flags: u8, data: Vec<u8> },
    /// One with more data than it may have; they are thrown away.
    TooLong { stream: u32, length: u32 },
    /// What only servers send, or a type of the future.
    Other { stream: u32, kind: u8 },
}

/// Reads the next frame; none at the end of the connection, however it comes.
///
/// # Errors
/// When the connection breaks, or ends within a frame.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Incoming>> {
    let mut head = [0; HEAD];
    match from.read_exact(&mut head).await {
        Ok(_) => {}
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(err) => return Err(err),
    }
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
    let limit = if kind == DATA { LARGEST_MESSAGE } else { LARGEST };
    if length as usize > limit {
        discard(from, length).await?;
        return Ok(Some(Incoming::TooLong { stream, length }));
    }
    if kind != REQUEST && kind != DATA {
        discard(from, length).await?;
        return Ok(Some(Incoming::Other { stream, kind }));
    }
    // Grown as the data come: a head alone must not cost its sender's 4 MiB of our memory.
    let mut data = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut data).await?;
    if data.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(match kind {
        DATA => Incoming::Data { stream, flags, data },
        _ => Incoming::Request { stream, flags, data },
    }))
}

async fn discard(from: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<()> {
    let mut left = length as usize;
    let mut scrap = [0; SCRAP];
    while left > 0 {
        let part = left.min(SCRAP);
        left -= from.read_exact(&mut scrap[..part]).await?;
    }
    Ok(())
}

/// A frame with a response, ready to be sent.
pub(super) fn response(stream: u32, data: &[u8]) -> Vec<u8> {
    frame(stream, RESPONSE, 0, data)
}

/// A frame with a request, ready to be sent.
pub(super) fn request(stream: u32, data: &[u8]) -> Vec<u8> {
    frame(stream, REQUEST, 0, data)
}

/// A frame with a message of a stream, ready to be sent.
pub(super) fn message(stream: u32, data: &[u8]) -> Vec<u8> {
    frame(stream, DATA, 0, data)
}

/// A frame that ends a stream, ready to be sent.
pub(super) fn end(stream: u32) -> Vec<u8> {
    frame(stream, DATA, CLOSED | EMPTY, &[])
}

fn frame(stream: u32, kind: u8, flags: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("a message is shorter than 4 MiB");
    let mut frame = Vec::with_capacity(HEAD + data.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(data);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: u32, stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
        let (length, stream) = (length.to_be_bytes(), stream.to_be_bytes());
        [&length[..], &stream, &[kind, 0], data].concat()
    }

    async fn all(bytes: &[u8]) -> (Vec<Incoming>, bool) {
        let (mut rest, mut frames) = (bytes, Vec::new());
        loop {
            match read(&mut rest).await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, true),
                Err(_) => return (frames, false),
            }
        }
    }

    #[tokio::test]
    async fn frames_are_told_apart_and_the_next_one_is_found() {
        let long = vec![7; LARGEST + 1];
        let bytes = [
            frame(2, 1, REQUEST, b"ab"),
            frame(0, 3, REQUEST, b""),
            frame(u32::try_from(long.len()).unwrap(), 5, REQUEST, &long),
            frame(3, 7, 99, b"xyz"),
            frame(3, 7, DATA, b"xyz"),
            frame(u32::try_from(LARGEST).unwrap(), 7, DATA, &long[..LARGEST]),
            frame(1, 9, REQUEST, b"c"),
        ]
        .concat();
        let (frames, ended) = all(&bytes).await;
        assert!(ended);
        assert_eq!(
            frames,
            [
                Incoming::Request { stream: 1, flags: 0, data: b"ab".to_vec() },
                Incoming::Request { stream: 3, flags: 0, data: Vec::new() },
                Incoming::TooLong { stream: 5, length: 4_194_305 },
                Incoming::Other { stream: 7, kind: 99 },
                Incoming::Data { stream: 7, flags: 0, data: b"xyz".to_vec() },
                Incoming::TooLong { stream: 7, length: 4_194_304 },
                Incoming::Request { stream: 9, flags: 0, data: b"c".to_vec() },
            ]
        );
    }

    #[tokio::test]
    async fn half_a_frame_is_the_end() {
        assert_eq!(all(b"\0\0").await, (Vec::new(), true));
        assert_eq!(all(&frame(5, 1, REQUEST, b"ab")).await, (Vec::new(), false));
        assert_eq!(all(&frame(u32::MAX, 1, REQUEST, b"ab")).await, (Vec::new(), false));
    }
}
