//! One connection: frames in, a task a call, answers out as they come.

use std::{collections::HashSet, io};

use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    task::{self, JoinSet},
};
use ttrpc::Code;

use super::{
    Unsent,
    call::{Services, answer, refuse},
    frame::{Incoming, read},
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
    stream: UnixStream,
    services: &Services,
    unsent: &Unsent,
) -> io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let (queue, queued) = mpsc::channel(ANSWERS_LIMIT);
    let answers = Answers { queue, unsent: unsent.clone() };
    let mut calls = Calls::default();
    calls.tasks.spawn(write(writer, queued));
    while let Some(frame) = read(&mut reader).await? {
        calls.forget_ended();
        match calls.admit(frame) {
            Admitted::Call { stream, data } => {
                let (services, answers) = (services.clone(), answers.clone());
                calls.tasks.spawn(async move {
                    let frame = answer(services, stream, data).await;
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
#[derive(Default)]
struct Calls {
    /// Each ends with its stream; the writer is one of them, and ends with none's.
    tasks: JoinSet<u32>,
    streams: HashSet<u32>,
}

/// What becomes of a frame.
enum Admitted {
    Call { stream: u32, data: Vec<u8> },
    Refused(Vec<u8>),
    Nothing,
}

impl Calls {
    fn forget_ended(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(stream) = ended {
                self.streams.remove(&stream);
            }
        }
    }

    fn admit(&mut self, frame: Incoming) -> Admitted {
        let (stream, data) = match frame {
            Incoming::Request { stream, data } => (stream, data),
            Incoming::TooLong { stream, length } => {
                let why = format!("a request of {length} bytes is too long");
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
        if self.streams.len() >= CALLS_LIMIT {
            let why = format!("{CALLS_LIMIT} calls of this connection are unanswered");
            return Admitted::Refused(refuse(stream, Code::RESOURCE_EXHAUSTED, why));
        }
        if !self.streams.insert(stream) {
            let why = format!("stream {stream} is in use");
            return Admitted::Refused(refuse(stream, Code::INVALID_ARGUMENT, why));
        }
        Admitted::Call { stream, data }
    }
}

/// Where answers go.
#[derive(Clone)]
struct Answers {
    queue: mpsc::Sender<Answer>,
    unsent: Unsent,
}

/// A frame on its way, counted until it is sent or lost.
struct Answer {
    frame: Vec<u8>,
    unsent: Unsent,
}

impl Answers {
    async fn send(&self, frame: Vec<u8>) {
        self.unsent.send_modify(|count| *count += 1);
        let answer = Answer { frame, unsent: self.unsent.clone() };
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
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Answer>) -> u32 {
    while let Some(answer) = queue.recv().await {
        if let Err(err) = writer.write_all(&answer.frame).await {
            log::debug!("send an answer: {err}");
            break;
        }
    }
    0
}
