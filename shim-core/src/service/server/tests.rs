//! The server over a socket pair: what clients of all kinds get.

use std::time::Duration;

use async_trait::async_trait;
use shim_protos::{
    Empty,
    forward::{Events, ForwardRequest, create_events},
    protobuf::Message,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
    time::timeout,
};
use ttrpc::{
    Code,
    r#async::TtrpcContext,
    proto::{Request, Response},
};

use super::{connection::CALLS_LIMIT, *};
use crate::{linux::stdio::Exchange, service::Streaming};

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";
const LIMIT: Duration = Duration::from_secs(5);

/// Answers events of topic `wait` when it is told to, others at once.
#[derive(Clone, Default)]
struct Doubles(Arc<Notify>);

#[async_trait]
impl Events for Doubles {
    async fn forward(&self, _: &TtrpcContext, event: ForwardRequest) -> ttrpc::Result<Empty> {
        if event.envelope.topic == "wait" {
            self.0.notified().await;
        }
        Ok(Empty::new())
    }
}

struct Client {
    stream: UnixStream,
    go: Arc<Notify>,
}

impl Client {
    fn connect() -> Self {
        Self::to_new_server().0
    }

    fn to_new_server() -> (Self, Server) {
        let service = Doubles::default();
        let go = Arc::clone(&service.0);
        let server = Server::new(create_events(Arc::new(service)), Streaming(Exchange::default()));
        (Self::of(&server, go), server)
    }

    fn of(server: &Server, go: Arc<Notify>) -> Self {
        let (server, (stream, theirs)) = (server.clone(), UnixStream::pair().unwrap());
        tokio::spawn(async move { server.serve(theirs).await });
        Self { stream, go }
    }

    async fn send(&mut self, length: u32, stream: u32, kind: u8, data: &[u8]) {
        self.flagged(length, stream, kind, 0, data).await;
    }

    async fn flagged(&mut self, length: u32, stream: u32, kind: u8, flags: u8, data: &[u8]) {
        let (length, stream) = (length.to_be_bytes(), stream.to_be_bytes());
        let frame = [&length[..], &stream, &[kind, flags], data].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn call(&mut self, stream: u32, request: &Request) {
        let data = request.write_to_bytes().unwrap();
        self.send(u32::try_from(data.len()).unwrap(), stream, 1, &data).await;
    }

    async fn answer(&mut self) -> (u32, Code) {
        let mut head = [0; 10];
        timeout(LIMIT, self.stream.read_exact(&mut head)).await.expect("an answer").unwrap();
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let mut data = vec![0; number(0) as usize];
        self.stream.read_exact(&mut data).await.unwrap();
        let response = Response::parse_from_bytes(&data).unwrap();
        (number(4), response.status.into_option().map_or(Code::OK, |status| status.code()))
    }
}

fn request(method: &str, topic: &str) -> Request {
    let mut event = ForwardRequest::new();
    event.envelope.mut_or_insert_default().topic = topic.to_owned();
    Request {
        service: SERVICE.to_owned(),
        method: method.to_owned(),
        payload: event.write_to_bytes().unwrap(),
        ..Request::default()
    }
}

#[tokio::test]
async fn calls_are_answered_as_they_end_not_as_they_came() {
    let mut client = Client::connect();
    client.call(1, &request("Forward", "wait")).await;
    client.call(3, &request("Forward", "")).await;
    assert_eq!(client.answer().await, (3, Code::OK));
    client.go.notify_one();
    assert_eq!(client.answer().await, (1, Code::OK));
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented() {
    let mut client = Client::connect();
    client.call(1, &request("Backward", "")).await;
    assert_eq!(client.answer().await, (1, Code::UNIMPLEMENTED));
    let other = Request { service: "no.such.Service".to_owned(), ..request("Forward", "") };
    client.call(3, &other).await;
    assert_eq!(client.answer().await, (3, Code::UNIMPLEMENTED));
}

#[tokio::test]
async fn malformed_requests_are_refused_and_the_connection_lives() {
    let mut client = Client::connect();
    client.send(3, 1, 1, b"\xff\xff\xff").await;
    assert_eq!(client.answer().await, (1, Code::INVALID_ARGUMENT));
    let garbage = Request { payload: vec![0xff; 9], ..request("Forward", "") };
    client.call(3, &garbage).await;
    assert_eq!(client.answer().await, (3, Code::INTERNAL));
    client.call(4, &request("Forward", "")).await;
    assert_eq!(client.answer().await, (4, Code::INVALID_ARGUMENT));
    client.send(0, 5, 2, b"").await;
    client.send(0, 7, 3, b"").await;
    let length = u32::try_from(frame::LARGEST + 1).unwrap();
    client.send(length, 9, 1, &vec![0; frame::LARGEST + 1]).await;
    assert_eq!(client.answer().await, (9, Code::RESOURCE_EXHAUSTED));
    client.call(11, &request("Forward", "")).await;
    assert_eq!(client.answer().await, (11, Code::OK));
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_a_stream_is_used_once_at_a_time() {
    let mut client = Client::connect();
    client.call(1, &request("Forward", "wait")).await;
    client.call(1, &request("Forward", "")).await;
    assert_eq!(client.answer().await, (1, Code::INVALID_ARGUMENT));
    let hasty = Request { timeout_nano: 1_000_000, ..request("Forward", "wait") };
    client.call(3, &hasty).await;
    assert_eq!(client.answer().await, (3, Code::DEADLINE_EXCEEDED));
    let past = Request { timeout_nano: -1, ..request("Forward", "") };
    client.call(5, &past).await;
    assert_eq!(client.answer().await, (5, Code::DEADLINE_EXCEEDED));
}

#[tokio::test]
async fn a_flood_is_refused_call_by_call() {
    let mut client = Client::connect();
    let waiting = request("Forward", "wait");
    let all = u32::try_from(CALLS_LIMIT).unwrap();
    for number in 0..all {
        client.call(2 * number + 1, &waiting).await;
    }
    client.call(2 * all + 1, &waiting).await;
    assert_eq!(client.answer().await, (2 * all + 1, Code::RESOURCE_EXHAUSTED));
    client.go.notify_waiters();
    for _ in 0..all {
        assert_eq!(client.answer().await.1, Code::OK);
    }
    client.call(1, &request("Forward", "")).await;
    assert_eq!(client.answer().await, (1, Code::OK));
}

#[tokio::test]
async fn a_stream_is_answered_bounded_and_ended() {
    let mut client = Client::connect();
    let stream = Request {
        service: "containerd.services.streaming.v1.Streaming".to_owned(),
        method: "Stream".to_owned(),
        ..Request::default()
    };
    let stream = stream.write_to_bytes().unwrap();
    let length = u32::try_from(stream.len()).unwrap();
    // Closed before it has a name.
    client.flagged(length, 1, 1, frame::CLOSED, &stream).await;
    assert_eq!(client.answer().await, (1, Code::INVALID_ARGUMENT));
    // Named by what is no name.
    client.flagged(length, 3, 1, frame::OPEN, &stream).await;
    client.flagged(3, 3, 3, 0, b"\xff\xff\xff").await;
    assert_eq!(client.answer().await, (3, Code::INVALID_ARGUMENT));
    // Longer than a message may be; what follows it is found.
    let long = vec![0; frame::LARGEST_MESSAGE + 1];
    client.flagged(length, 5, 1, frame::OPEN, &stream).await;
    client.flagged(u32::try_from(long.len()).unwrap(), 5, 3, 0, &long).await;
    assert_eq!(client.answer().await, (5, Code::RESOURCE_EXHAUSTED));
    let all = u32::try_from(stream::STREAMS_LIMIT).unwrap();
    for number in 0..all {
        client.flagged(length, 2 * number + 7, 1, frame::OPEN, &stream).await;
    }
    client.flagged(length, 2 * all + 7, 1, frame::OPEN, &stream).await;
    assert_eq!(client.answer().await, (2 * all + 7, Code::RESOURCE_EXHAUSTED));
    client.call(2 * all + 9, &request("Forward", "")).await;
    assert_eq!(client.answer().await, (2 * all + 9, Code::OK));
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let mut client = Client::connect();
    let stream = Request {
        service: "containerd.services.streaming.v1.Streaming".to_owned(),
        method: "Stream".to_owned(),
        timeout_nano: 1_000_000,
        ..Request::default()
    };
    let stream = stream.write_to_bytes().unwrap();
    let length = u32::try_from(stream.len()).unwrap();
    client.flagged(length, 1, 1, frame::OPEN, &stream).await;
    assert_eq!(client.answer().await, (1, Code::DEADLINE_EXCEEDED));
}

#[tokio::test]
async fn a_server_that_ends_waits_for_those_who_have_not_said_goodbye() {
    let (mut first, server) = Client::to_new_server();
    let second = Client::of(&server, Arc::default());
    let gone = async |limit| {
        let start = tokio::time::Instant::now();
        server.deserted(limit).await;
        start.elapsed() < limit
    };
    let moment = Duration::from_millis(20);
    // Whether this is served does not matter.
    first.call(1, &request("Shutdown", "")).await;
    assert_eq!(first.answer().await, (1, Code::UNIMPLEMENTED));
    assert!(!gone(moment).await, "the second is here");
    drop(second);
    assert!(gone(LIMIT).await, "one has left, and one has said goodbye");
    first.call(3, &request("Shutdown", "")).await;
    assert_eq!(first.answer().await, (3, Code::UNIMPLEMENTED));
    drop(first);
    let mut third = Client::of(&server, Arc::default());
    third.call(1, &request("Forward", "")).await;
    assert_eq!(third.answer().await, (1, Code::OK));
    assert!(!gone(moment).await, "who leaves twice leaves once");
    drop(third);
    assert!(gone(LIMIT).await);
}
