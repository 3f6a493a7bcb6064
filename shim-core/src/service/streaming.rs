//! The streaming service: bytes of processes over ttrpc, as CRI wants them from containerd 2.0 on.
//!
//! A client's first message names the stream, and is answered by an empty one; then come Data and
//! WindowUpdate, each in an Any. The end of an output is the end of the stream.

use shim_protos::{
    Any,
    protobuf::Message,
    streaming::{Data, StreamInit, WindowUpdate},
};
use tokio::sync::oneshot;
use ttrpc::{Code, get_status, proto::Status};

use super::{
    convert::{Named, status_of},
    server::{Listener, Sender, Speech, Streams},
};
use crate::linux::stdio::{Caller, Exchange, Word, Words};

const SERVICE: &str = "containerd.services.streaming.v1.Streaming";
const METHOD: &str = "Stream";

/// The streaming service of a shim.
#[derive(Debug)]
pub(crate) struct Streaming(pub(crate) Exchange);

impl Streams for Streaming {
    fn has(&self, service: &str, method: &str) -> bool {
        (service, method) == (SERVICE, METHOD)
    }

    fn open(&self, sender: Sender) -> (Box<dyn Listener>, Speech) {
        let (begin, begun) = oneshot::channel();
        let listener = Opened { exchange: self.0.clone(), begin: Some(begin), caller: None };
        (Box::new(listener), Box::pin(speak(sender, begun)))
    }
}

/// A stream that a client has opened, before and after it has said which one.
struct Opened {
    exchange: Exchange,
    begin: Option<oneshot::Sender<Words>>,
    caller: Option<Caller>,
}

impl Listener for Opened {
    fn message(&mut self, data: &[u8]) -> Result<(), Status> {
        let any: Any = decode(data)?;
        // Some clients write the name with a host in front.
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        let Some(caller) = &self.caller else {
            if name != StreamInit::TYPE_URL {
                return Err(invalid(format!("the first message is {name:?}, not a StreamInit")));
            }
            let init: StreamInit = decode(&any.value)?;
            let (caller, words) = self.exchange.open(&init.id).map_err(status_of)?;
            self.caller = Some(caller);
            if let Some(begin) = self.begin.take() {
                // Its other end waits for as long as the stream is open.
                let _ended = begin.send(words);
            }
            return Ok(());
        };
        match name {
            Data::TYPE_URL => {
                let data: Data = decode(&any.value)?;
                caller.data(&data.data).map_err(status_of)
            }
            WindowUpdate::TYPE_URL => {
                let update: WindowUpdate = decode(&any.value)?;
                let bytes = usize::try_from(update.update);
                caller.room(bytes.map_err(|_| invalid("a window does not shrink".to_owned()))?);
                Ok(())
            }
            // containerd's own receivers do so too.
            _ => {
                log::debug!("a message {name:?} on a stream is left aside");
                Ok(())
            }
        }
    }

    fn close(&mut self) {
        match &self.caller {
            Some(caller) => caller.close(),
            None => self.begin = None,
        }
    }
}

async fn speak(sender: Sender, begun: oneshot::Receiver<Words>) -> Result<(), Status> {
    let Ok(mut words) = begun.await else {
        return Err(invalid("a stream that was closed before it had a name".to_owned()));
    };
    sender.message(&packed("google.protobuf.Empty", Vec::new())).await;
    loop {
        match words.next().await.map_err(status_of)? {
            Some(Word::Data(data)) => {
                let data = Data { data, ..Data::default() };
                sender.message(&packed(Data::TYPE_URL, encode(&data))).await;
            }
            Some(Word::Room(bytes)) => {
                let update = i32::try_from(bytes).unwrap_or(i32::MAX);
                let update = WindowUpdate { update, ..WindowUpdate::default() };
                sender.message(&packed(WindowUpdate::TYPE_URL, encode(&update))).await;
            }
            Some(Word::End) => {
                sender.end().await;
                // That it closes its side tells that it has read all.
                words.left().await;
                return Ok(());
            }
            None => {
                sender.end().await;
                return Ok(());
            }
        }
    }
}

fn packed(name: &str, value: Vec<u8>) -> Vec<u8> {
    encode(&Any { type_url: name.to_owned(), value, ..Any::default() })
}

fn encode(message: &impl Message) -> Vec<u8> {
    message.write_to_bytes().unwrap_or_default()
}

fn decode<M: Message>(bytes: &[u8]) -> Result<M, Status> {
    M::parse_from_bytes(bytes).map_err(|err| invalid(format!("decode a message: {err}")))
}

fn invalid(why: String) -> Status {
    get_status(Code::INVALID_ARGUMENT, why)
}
