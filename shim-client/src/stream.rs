//! Streams of bytes as CRI opens them at a shim, from containerd 2.0 on: a connection each.
//!
//! ```text
//! us                                   shim
//! Request [remote open]  ────────────▶
//! StreamInit{id}         ────────────▶
//!                        ◀──────────── empty message
//! WindowUpdate           ────────────▶        an output: the shim sends as much as there is room
//!                        ◀──────────── Data
//!                        ◀──────────── end
//!                        ◀──────────── WindowUpdate    an input: the other way round
//! Data                   ────────────▶
//! end                    ────────────▶
//! ```

use shim_protos::Any;
use shim_protos::protobuf::Message;
use shim_protos::streaming::{Data, StreamInit, WindowUpdate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::proto::{Request, Response};

use crate::error::{CallError, Reason};

/// How much containerd lets the other side send ahead.
const WINDOW: usize = 64 << 10;
/// The most that containerd puts into one message.
const CHUNK: usize = 32 << 10;
/// The most data that a frame may have.
const LARGEST: u32 = 4 << 20;
/// The one stream of a connection.
const STREAM: u32 = 1;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const DATA: u8 = 3;

const CLOSED: u8 = 1;
const OPEN: u8 = 2;
const EMPTY: u8 = 4;

/// One stream at a shim, by its id. Dropped, its connection ends, as when containerd dies.
#[derive(Debug)]
pub struct ByteStream {
    socket: UnixStream,
    /// What may still come.
    granted: usize,
    /// What may still be sent.
    room: usize,
}

/// What the shim says.
enum Said {
    Data(Vec<u8>),
    Room(usize),
    End,
    /// A message that means nothing here.
    Other,
}

/// A stream as it goes into a request: the shim's own address, as it answered it, and an id.
#[must_use]
pub fn stream_uri(address: &str, id: &str) -> String {
    format!("ttrpc+{address}?streaming_id={id}")
}

impl ByteStream {
    /// Opens a stream, and waits until the shim says that it knows of it.
    ///
    /// # Errors
    /// The shim's refusal: UNIMPLEMENTED from those that serve no streams.
    pub async fn open(address: &str, id: &str) -> Result<Self, CallError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let socket = UnixStream::connect(path).await.map_err(|error| broken(&error))?;
        let mut stream = Self { socket, granted: 0, room: 0 };
        let request = Request {
            service: "containerd.services.streaming.v1.Streaming".to_owned(),
            method: "Stream".to_owned(),
            ..Request::default()
        };
        stream.send(REQUEST, OPEN, &encode(&request)?).await?;
        let init = StreamInit { id: id.to_owned(), ..StreamInit::default() };
        stream.say("containerd.services.streaming.v1.StreamInit", &init).await?;
        match stream.receive().await? {
            Said::End => Err(CallError { call: "stream", reason: Reason::Gone }),
            _ => Ok(stream),
        }
    }

    /// The next bytes of an output; none at its end. The shim gets room for more, as containerd
    /// gives it.
    ///
    /// # Errors
    /// What the shim ends the stream with, or that it is gone.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        if self.granted < WINDOW {
            self.grant(WINDOW).await?;
        }
        self.receive_data().await
    }

    /// The same, with no more room for the shim than it has.
    ///
    /// # Errors
    /// What the shim ends the stream with, that it is gone, or that it sends more than it may.
    pub async fn receive_data(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        loop {
            match self.receive().await? {
                Said::Data(bytes) => {
                    self.granted = self.granted.checked_sub(bytes.len()).ok_or_else(|| {
                        let what = format!("{} bytes without room for them", bytes.len());
                        CallError { call: "stream", reason: Reason::Broken(what) }
                    })?;
                    return Ok(Some(bytes));
                }
                Said::End => return Ok(None),
                Said::Room(_) | Said::Other => {}
            }
        }
    }

    /// Lets the shim send that many bytes more.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn grant(&mut self, bytes: usize) -> Result<(), CallError> {
        let update = i32::try_from(bytes).unwrap_or(i32::MAX);
        let update = WindowUpdate { update, ..WindowUpdate::default() };
        self.say("containerd.types.transfer.WindowUpdate", &update).await?;
        self.granted += bytes;
        Ok(())
    }

    /// Sends bytes to an input, as the shim gives room for them.
    ///
    /// # Errors
    /// What the shim ends the stream with, or that it is gone.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), CallError> {
        while !bytes.is_empty() {
            if self.room == 0 {
                match self.receive().await? {
                    Said::Room(more) => self.room += more,
                    Said::End => {
                        return Err(CallError { call: "stream", reason: Reason::Gone });
                    }
                    Said::Data(_) | Said::Other => {}
                }
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK).min(self.room));
            self.send_data(now).await?;
            self.room -= now.len();
            bytes = later;
        }
        Ok(())
    }

    /// Sends bytes in one message, room or not.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_data(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        let data = Data { data: bytes.to_vec(), ..Data::default() };
        self.say("containerd.types.transfer.Data", &data).await
    }

    /// Tells the shim that nothing more comes from here. What it says can still be read.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn close(&mut self) -> Result<(), CallError> {
        self.send(DATA, CLOSED | EMPTY, &[]).await
    }

    async fn say(&mut self, name: &str, message: &impl Message) -> Result<(), CallError> {
        let any = Any { type_url: name.to_owned(), value: encode(message)?, ..Any::default() };
        self.send(DATA, 0, &encode(&any)?).await
    }

    async fn send(&mut self, kind: u8, flags: u8, data: &[u8]) -> Result<(), CallError> {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let (length, stream) = (length.to_be_bytes(), STREAM.to_be_bytes());
        let frame = [&length[..], &stream, &[kind, flags], data].concat();
        self.socket.write_all(&frame).await.map_err(|error| broken(&error))
    }

    async fn receive(&mut self) -> Result<Said, CallError> {
        let mut head = [0; 10];
        self.socket.read_exact(&mut head).await.map_err(|error| broken(&error))?;
        let [l0, l1, l2, l3, _, _, _, _, kind, flags] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > LARGEST {
            let what = format!("a frame of {length} bytes");
            return Err(CallError { call: "stream", reason: Reason::Broken(what) });
        }
        let mut data = vec![0; length as usize];
        self.socket.read_exact(&mut data).await.map_err(|error| broken(&error))?;
        match kind {
            RESPONSE => {
                let response: Response = decode(&data)?;
                let status = response.status.into_option().unwrap_or_default();
                Err(CallError::new("stream", ttrpc::Error::RpcStatus(status)))
            }
            DATA if flags & EMPTY != 0 => {
                Ok(if flags & CLOSED != 0 { Said::End } else { Said::Other })
            }
            _ => said(&decode(&data)?),
        }
    }
}

fn said(any: &Any) -> Result<Said, CallError> {
    Ok(match any.type_url.as_str() {
        "containerd.types.transfer.Data" => Said::Data(decode::<Data>(&any.value)?.data),
        "containerd.types.transfer.WindowUpdate" => {
            let update = decode::<WindowUpdate>(&any.value)?.update;
            Said::Room(usize::try_from(update).unwrap_or(0))
        }
        _ => Said::Other,
    })
}

fn encode(message: &impl Message) -> Result<Vec<u8>, CallError> {
    message.write_to_bytes().map_err(|error| unreadable(&error))
}

fn decode<M: Message>(bytes: &[u8]) -> Result<M, CallError> {
    M::parse_from_bytes(bytes).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::error::Error) -> CallError {
    CallError { call: "stream", reason: Reason::Broken(error.to_string()) }
}

/// The connection's end, however it shows.
fn broken(error: &std::io::Error) -> CallError {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, UnexpectedEof};
    let reason = match error.kind() {
        BrokenPipe | ConnectionRefused | ConnectionReset | UnexpectedEof => Reason::Gone,
        _ => Reason::Broken(error.to_string()),
    };
    CallError { call: "stream", reason }
}
