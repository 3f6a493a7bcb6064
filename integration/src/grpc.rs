//! gRPC over a unix socket: as much of it as a client of containerd needs.
//!
//! A call is one HTTP/2 stream: a frame with the request, frames with answers, and trailers with
//! the status. A frame is a zero byte, the message's length in four bytes, and the message.

use std::marker::PhantomData;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, client};
use http::{HeaderMap, HeaderValue, Request};
use protobuf::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The part of a frame before its message.
const HEAD: usize = 5;

/// How long an answer may take on a busy machine; that of `Wait` too, since no test is longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The largest message that a gRPC peer sends unless told otherwise.
const LARGEST: usize = 16 << 20;

/// A call that the server refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message} ({code:?})")]
pub struct Status {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub message: String,
}

/// gRPC's status codes, as far as containerd tells errors apart by them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "gRPC's own names")]
pub enum Code {
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    FailedPrecondition,
    Unimplemented,
    Unavailable,
    Other(u32),
}

impl Code {
    fn new(number: u32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            9 => Self::FailedPrecondition,
            12 => Self::Unimplemented,
            14 => Self::Unavailable,
            number => Self::Other(number),
        }
    }
}

/// A connection. Calls on it may overlap.
#[derive(Clone, Debug)]
pub struct Channel {
    sender: SendRequest<Bytes>,
    namespace: HeaderValue,
}

impl Channel {
    /// Connects, and works for one of containerd's namespaces. Needs a tokio runtime.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(socket: &Path, namespace: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .await
            .with_context(|| format!("connect to {}", socket.display()))?;
        let (sender, connection) = client::handshake(stream).await?;
        // Its end shows in the calls that are under way.
        tokio::spawn(connection);
        Ok(Self { sender, namespace: namespace.parse()? })
    }

    /// Asks once, and is answered once.
    ///
    /// # Errors
    /// [`Status`] when the server refuses.
    pub async fn call<R: Message>(&self, method: &str, request: &impl Message) -> Result<R> {
        let mut answers = self.stream(method, request).await?;
        let answer = answers.next().await?.with_context(|| format!("{method}: no answer"))?;
        // The status comes behind the answer.
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => bail!("{method}: more than one answer"),
        }
    }

    /// Asks once, and is answered for as long as the server likes.
    ///
    /// The server may already be at work when this returns, or not yet: a Go server says nothing
    /// before its first answer.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn stream<R: Message>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<Answers<R>> {
        let head = Request::post(format!("http://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", &self.namespace)
            .body(())?;
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut body) = sender.send_request(head, false)?;
        body.send_data(frame(request)?, true)?;
        let (method, source) = (method.to_owned(), Source::Coming(response));
        Ok(Answers { method, source, rest: BytesMut::new(), kind: PhantomData })
    }
}

/// The answers to one call.
#[derive(Debug)]
pub struct Answers<R> {
    method: String,
    source: Source,
    rest: BytesMut,
    kind: PhantomData<R>,
}

#[derive(Debug)]
enum Source {
    Coming(ResponseFuture),
    Here(RecvStream),
}

impl<R: Message> Answers<R> {
    /// The next answer; none after the last.
    ///
    /// # Errors
    /// [`Status`] when the server ends the call with one.
    pub async fn next(&mut self) -> Result<Option<R>> {
        let answer = timeout(LIMIT, self.read()).await.context("no answer in time");
        answer.and_then(|answer| answer).with_context(|| self.method.clone())
    }

    async fn read(&mut self) -> Result<Option<R>> {
        if let Source::Coming(response) = &mut self.source {
            let response = response.await?;
            // An answer without a message has its status in its head.
            if response.headers().contains_key("grpc-status") {
                check(response.headers())?;
            }
            self.source = Source::Here(response.into_body());
        }
        let Source::Here(body) = &mut self.source else { return Ok(None) };
        loop {
            if let Some(message) = take_frame(&mut self.rest)? {
                return Ok(Some(R::parse_from_bytes(&message)?));
            }
            let Some(data) = body.data().await.transpose()? else { break };
            body.flow_control().release_capacity(data.len())?;
            self.rest.extend_from_slice(&data);
        }
        if let Some(trailers) = body.trailers().await? {
            check(&trailers)?;
        }
        Ok(None)
    }
}

fn frame(message: &impl Message) -> Result<Bytes> {
    let message = message.write_to_bytes()?;
    let mut frame = Vec::with_capacity(HEAD + message.len());
    frame.push(0);
    frame.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
    frame.extend_from_slice(&message);
    Ok(frame.into())
}

/// Takes the first message out of what has arrived, if it is all there.
fn take_frame(rest: &mut BytesMut) -> Result<Option<Bytes>> {
    let Some((head, _)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length > LARGEST {
        bail!("a frame of {length} bytes, compressed: {compressed}");
    }
    if rest.len() < HEAD + length {
        return Ok(None);
    }
    rest.advance(HEAD);
    Ok(Some(rest.split_to(length).freeze()))
}

fn check(headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match text("grpc-status").unwrap_or("2").parse()? {
        0 => Ok(()),
        number => {
            let message = decode(text("grpc-message").unwrap_or_default());
            Err(Status { code: Code::new(number), message }.into())
        }
    }
}

/// Undoes the percent encoding of a message.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (decoded, tail) = match (byte, code) {
            (b'%', Some(code)) => (code, &tail[2..]),
            _ => (byte, tail),
        };
        bytes.push(decoded);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_decoded() {
        assert_eq!(decode("100%25: \"a\" %E2%82%AC %"), "100%: \"a\" € %");
    }

    #[test]
    fn a_frame_waits_for_its_end() {
        let whole = [0, 0, 0, 0, 2, 7, 8, 9];
        let mut rest = BytesMut::from(&whole[..6]);
        assert_eq!(take_frame(&mut rest).expect("it is sound"), None);
        rest.extend_from_slice(&whole[6..]);
        let message = take_frame(&mut rest).expect("it is sound");
        assert_eq!((message.as_deref(), rest.as_ref()), (Some(&[7, 8][..]), &[9][..]));
    }
}
