//! One connection: frames in, a task a call or stream, answers out as they come.

use std::{collections::HashMap, io, sync::Arc};

use shim_protos::protobuf::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{OwnedSemaphorePermit, mpsc},
    task::{self, JoinSet},
};
use ttrpc::{Code, proto::Request};

use super::{
    Server, Unsent,
    call::{answer, fail, refuse, within},
    frame::{self, Incoming, read},
    stream::{OpenStream, STREAMS_LIMIT, Sender, Streams},
};

/// How many calls of a connection may wait for their answers. Each Wait is one, and containerd has
/// one for every process of a pod.
pub(super) const CALLS_LIMIT: usize = 4096;

/// How many answers may wait for their client to read them.
const ANSWERS_LIMIT: usize = 64;

/// Most requests fit in, with their heads.
const BUFFER: usize = 2048;

/// Serves a connection to its end. Calls that are under way then are dropped; what must not be torn
/// runs detached.
pub(super) async fn serve(
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    server: &Server,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let (queue, queued) = mpsc::channel(ANSWERS_LIMIT);
    let answers = Answers { queue, unsent: server.unsent.clone() };
    let mut calls = Calls::new(&*server.streams, &answers);
    let guest = Arc::new(server.guests.admit());
    calls.tasks.spawn(write(writer, queued));
    while let Some(frame) = read(&mut reader).await? {
        calls.forget_ended();
        match calls.admit(frame) {
            Admitted::Call { stream, data } => {
                let (services, answers) = (server.services.clone(), answers.clone());
                let guest = Arc::clone(&guest);
                calls.tasks.spawn(async move {
                    let frame = answer(services, guest, stream, data).await;
                    answers.send(frame).await;
                    stream
                });
            }
            Admitted::Refused(frame) => {
                // To wait here is to read no more: who floods without reading is held up itself.
                answers.send(frame).await;
            }
            Admitted::Nothing => {}
        }
    }
    // What was asked is at least begun: `start` tells us of a container, and does not wait for ever.
    task::yield_now().await;
    Ok(())
}

/// The calls under way.
struct Calls<'a> {
    /// Each ends with its stream; the writer is one of them, and ends with none's.
    tasks: JoinSet<u32>,
    under_way: HashMap<u32, Call>,
    streams: &'a dyn Streams,
    answers: &'a Answers,
}

/// A call under way.
enum Call {
    Unary,
    Stream(OpenStream),
}

/// What becomes of a frame.
enum Admitted {
    Call { stream: u32, data: Vec<u8> },
    Refused(Vec<u8>),
    Nothing,
}

impl<'a> Calls<'a> {
    fn new(streams: &'a dyn Streams, answers: &'a Answers) -> Self {
        Self { tasks: JoinSet::new(), under_way: HashMap::new(), streams, answers }
    }

    fn forget_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(stream) = ended {
                self.under_way.remove(&stream);
            }
        }
    }

    fn admit(&mut self, frame: Incoming) -> Admitted {
        let (stream, flags, data) = match frame {
            Incoming::Request { stream, flags, data } => (stream, flags, data),
            Incoming::Data { stream, flags, data } => return self.hear(stream, flags, &data),
            Incoming::TooLong { stream, length } => {
                if let Some(Call::Stream(_)) = self.under_way.get(&stream) {
                    self.under_way.remove(&stream);
                }
                let why = format!("a frame of {length} bytes is too long");
                return Admitted::Refused(refuse(stream, Code::RESOURCE_EXHAUSTED, why));
            }
            Incoming::Other { stream, kind } => {
                log::debug!("a frame of type {kind} on stream {stream} is left aside");
                return Admitted::Nothing;
            }
        };
        if stream.is_multiple_of(2) {
            let why = format!("stream {stream} is not odd, as a client's are");
            return Admitted::Refused(refuse(stream, Code::INVALID_ARGUMENT, why));
        }
        if self.under_way.len() >= CALLS_LIMIT {
            let why = format!("{CALLS_LIMIT} calls of this connection are unanswered");
            return Admitted::Refused(refuse(stream, Code::RESOURCE_EXHAUSTED, why));
        }
        if self.under_way.contains_key(&stream) {
            let why = format!("stream {stream} is in use");
            return Admitted::Refused(refuse(stream, Code::INVALID_ARGUMENT, why));
        }
        // Requests of unary calls have no flags, and are decoded by their own tasks.
        if flags & (frame::OPEN | frame::CLOSED) != 0
            && let Ok(request) = Request::parse_from_bytes(&data)
            && self.streams.has(&request.service, &request.method)
        {
            return self.open(stream, flags, &request);
        }
        self.under_way.insert(stream, Call::Unary);
        Admitted::Call { stream, data }
    }

    /// Begins a stream.
    fn open(&mut self, stream: u32, flags: u8, request: &Request) -> Admitted {
        let open = self.under_way.values().filter(|call| matches!(call, Call::Stream(_)));
        if open.count() >= STREAMS_LIMIT {
            let why = format!("{STREAMS_LIMIT} streams of this connection are open");
            return Admitted::Refused(refuse(stream, Code::RESOURCE_EXHAUSTED, why));
        }
        let (listener, speech) = self.streams.open(Sender::new(stream, self.answers.clone()));
        let (answers, limit) = (self.answers.clone(), request.timeout_nano);
        let speech = self.tasks.spawn(async move {
            if let Err(status) = within(limit, speech).await.and_then(|ended| ended) {
                answers.send(fail(stream, status)).await;
            }
            stream
        });
        let mut opened = OpenStream::new(listener, speech);
        match opened.begin(request, flags) {
            Ok(()) => {
                self.under_way.insert(stream, Call::Stream(opened));
                Admitted::Nothing
            }
            Err(status) => Admitted::Refused(fail(stream, status)),
        }
    }

    /// Takes data for a stream. What is for none was under way when that ended.
    fn hear(&mut self, stream: u32, flags: u8, data: &[u8]) -> Admitted {
        let Some(Call::Stream(open)) = self.under_way.get_mut(&stream) else {
            log::debug!("data for stream {stream}, which is not open, is left aside");
            return Admitted::Nothing;
        };
        match open.take(flags, data) {
            Ok(()) => Admitted::Nothing,
            Err(status) => {
                self.under_way.remove(&stream);
                Admitted::Refused(fail(stream, status))
            }
        }
    }
}

/// Where answers go.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    queue: mpsc::Sender<Answer>,
    unsent: Unsent,
}

/// A frame on its way, counted until it is sent or lost.
#[derive(Debug)]
struct Answer {
    frame: Vec<u8>,
    unsent: Unsent,
    /// One of the few that a stream has.
    _place: Option<OwnedSemaphorePermit>,
}

impl Answers {
    async fn send(&self, frame: Vec<u8>) {
        self.send_holding(frame, None).await;
    }

    /// Sends a frame that holds a place until it is sent.
    pub(super) async fn send_holding(&self, frame: Vec<u8>, place: Option<OwnedSemaphorePermit>) {
        self.unsent.send_modify(|count| *count += 1);
        let answer = Answer { frame, unsent: self.unsent.clone(), _place: place };
        // The writer is gone with its client.
        let _unheard = self.queue.send(answer).await;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.unsent.send_modify(|count| *count -= 1);
    }
}

/// Sends answers until the client or all of its calls are gone.
async fn write(mut writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Answer>) -> u32 {
    while let Some(answer) = queue.recv().await {
        if let Err(err) = writer.write_all(&answer.frame).await {
            log::debug!("send an answer: {err}");
            break;
        }
    }
    0
}
