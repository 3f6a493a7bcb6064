//! Streams without a wire: this process stands for the client and for the container's.

use std::{
    fs::File,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use super::*;
use crate::{
    error::Kind,
    linux::stdio::{
        exchange::{Caller, Exchange},
        line::Words,
        pipe,
    },
    model::SocketStream,
};

const WINDOW: usize = 64 << 10;

fn exchange() -> Exchange {
    Exchange::at("/s".into())
}

fn stream(id: &str) -> SocketStream {
    SocketStream { socket: "/s".into(), id: id.into() }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(20), what).await.expect("within the limit")
}

/// A process's end of an output, and what copies from it.
fn printing(exchange: &Exchange) -> (File, Output) {
    let (reader, writer) = pipe().unwrap();
    let port = exchange.name(&stream("out")).unwrap();
    (writer.into(), output(reader, port).unwrap())
}

/// A process's end of an input, what copies into it, and what keeps it.
fn reading(exchange: &Exchange) -> (File, JoinHandle<()>, Keeper) {
    let (reader, writer) = pipe().unwrap();
    let port = exchange.name(&stream("in")).unwrap();
    let (copier, keeper) = input(port, writer).unwrap();
    (reader.into(), copier, keeper)
}

/// Takes words until the end of the stream.
async fn all(words: &mut Words) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match soon(words.next()).await.unwrap() {
            Some(Word::Data(data)) => bytes.extend(data),
            Some(Word::Room(_)) => {}
            Some(Word::End) => return (bytes, true),
            None => return (bytes, false),
        }
    }
}

async fn room(words: &mut Words) -> usize {
    match soon(words.next()).await.unwrap() {
        Some(Word::Room(bytes)) => bytes,
        word => panic!("{word:?} is no room"),
    }
}

#[tokio::test]
async fn an_output_from_a_socket_ends_with_it_whoever_is_there() {
    let exchange = exchange();
    let port = exchange.name(&stream("out")).unwrap();
    let (near, mut process) = UnixStream::pair().unwrap();
    let output = output(near.into(), port).unwrap();
    let (caller, mut words) = exchange.open("out").unwrap();
    caller.room(WINDOW);
    process.write_all(b"last").unwrap();
    process.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&mut words).await, (b"last".to_vec(), true));
    soon(output.drained()).await;

    let port = exchange.name(&stream("nobody's")).unwrap();
    let (near, process) = UnixStream::pair().unwrap();
    let nobodys = super::output(near.into(), port).unwrap();
    process.shutdown(Shutdown::Write).unwrap();
    let limit = ABSENCE_LIMIT / 2;
    time::timeout(limit, nobodys.drained()).await.expect("an end holds nobody up");
}

#[tokio::test]
async fn an_output_goes_as_far_as_there_is_room_and_ends() {
    let exchange = exchange();
    let (caller, mut words) = exchange.open("out").unwrap();
    let (mut process, output) = printing(&exchange);
    process.write_all(b"hello world").unwrap();
    caller.room(5);
    let word = soon(words.next()).await.unwrap();
    assert!(matches!(word, Some(Word::Data(ref data)) if data == b"hello"), "{word:?}");
    drop(process);
    caller.room(WINDOW);
    assert_eq!(all(&mut words).await, (b" world".to_vec(), true));
    // That it leaves is what tells that it has read all.
    drop(caller);
    soon(output.drained()).await;
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_follows() {
    let exchange = exchange();
    let (mut process, _output) = printing(&exchange);
    for round in ["one", "two", "three"] {
        process.write_all(round.as_bytes()).unwrap();
        let (caller, mut words) = exchange.open("out").unwrap();
        caller.room(WINDOW);
        let word = soon(words.next()).await.unwrap();
        assert!(matches!(word, Some(Word::Data(ref data)) if data == round.as_bytes()), "{word:?}");
    }
}

#[tokio::test]
async fn output_that_nobody_takes_holds_nobody_up_for_ever() {
    let exchange = exchange();
    let (mut process, output) = printing(&exchange);
    // Far more than a pipe holds, from a thread of its own.
    let writer = tokio::task::spawn_blocking(move || {
        process.write_all(&vec![b'x'; 4 << 20]).unwrap();
        process
    });
    let mut process = soon(writer).await.unwrap();
    soon(output.drained()).await;
    let (caller, mut words) = exchange.open("out").unwrap();
    caller.room(WINDOW);
    process.write_all(b"after").unwrap();
    drop(process);
    let (bytes, has_ended) = all(&mut words).await;
    assert!(has_ended && bytes.ends_with(b"after") && bytes.len() <= WINDOW);
}

#[tokio::test]
async fn an_input_is_bounded_and_ends_when_the_client_closes_it() {
    let exchange = exchange();
    let (caller, mut words) = exchange.open("in").unwrap();
    assert_eq!(caller.data(b"early").unwrap_err().kind(), Kind::ResourceExhausted);
    let (mut process, copier, _keeper) = reading(&exchange);
    assert_eq!(room(&mut words).await, WINDOW);
    caller.data(&vec![b'x'; WINDOW]).unwrap();
    assert_eq!(caller.data(b"x").unwrap_err().kind(), Kind::ResourceExhausted);
    caller.close();
    drop(caller);
    soon(copier).await.unwrap();
    let mut bytes = Vec::new();
    process.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), WINDOW, "though the client is gone");
}

#[tokio::test]
async fn an_input_without_a_client_ends_when_it_is_closed_by_request() {
    let exchange = exchange();
    let (mut process, copier, keeper) = reading(&exchange);
    let (caller, mut words) = exchange.open("in").unwrap();
    room(&mut words).await;
    caller.data(b"one").unwrap();
    drop((caller, words));
    tokio::task::yield_now().await;
    assert!(!copier.is_finished(), "another client may come");
    let (caller, mut words) = exchange.open("in").unwrap();
    room(&mut words).await;
    caller.data(b"two").unwrap();
    drop((caller, words, keeper));
    soon(copier).await.unwrap();
    let mut text = String::new();
    process.read_to_string(&mut text).unwrap();
    assert_eq!(text, "onetwo");
}

#[tokio::test]
async fn input_that_no_process_takes_is_dropped_and_room_is_given() {
    let exchange = exchange();
    let (caller, mut words) = exchange.open("in").unwrap();
    let (process, copier, _keeper) = reading(&exchange);
    drop(process);
    for _ in 0..64 {
        let bytes = room(&mut words).await;
        caller.data(&vec![b'x'; bytes]).unwrap();
    }
    soon(copier).await.unwrap();
    caller.close();
    assert_eq!(all(&mut words).await, (Vec::new(), false));
}

#[tokio::test]
async fn the_later_of_two_clients_has_the_stream() {
    let exchange = exchange();
    let (first, mut first_words) = exchange.open("out").unwrap();
    let (mut process, _output) = printing(&exchange);
    first.room(WINDOW);
    process.write_all(b"one").unwrap();
    assert!(matches!(soon(first_words.next()).await, Ok(Some(Word::Data(_)))));
    let (second, mut second_words) = exchange.open("out").unwrap();
    second.room(WINDOW);
    let err = soon(first_words.next()).await.unwrap_err();
    assert_eq!(err.kind(), Kind::AlreadyExists);
    drop(first);
    process.write_all(b"two").unwrap();
    drop(process);
    assert_eq!(all(&mut second_words).await, (b"two".to_vec(), true));
}

#[tokio::test]
async fn a_stream_is_one_processs_and_the_shims() {
    let exchange = exchange();
    let port = exchange.name(&stream("out")).unwrap();
    assert_eq!(exchange.name(&stream("out")).unwrap_err().kind(), Kind::AlreadyExists);
    drop(port);
    drop(exchange.name(&stream("out")).unwrap());
    let elsewhere = SocketStream { socket: "/t".into(), id: "out".into() };
    let err = exchange.name(&elsewhere).unwrap_err();
    assert_eq!(err.kind(), Kind::InvalidArgument);
    assert!(err.to_string().contains("/t") && err.to_string().contains("/s"), "{err}");
}

#[tokio::test]
async fn streams_that_nobody_names_are_bounded_and_forgotten() {
    let exchange = exchange();
    assert_eq!(exchange.open("").unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(exchange.open(&"x".repeat(257)).unwrap_err().kind(), Kind::InvalidArgument);
    let open = |id: usize| exchange.open(&format!("s{id}"));
    let held: Vec<(Caller, Words)> = (0..1024).map(|id| open(id).unwrap()).collect();
    assert_eq!(open(1024).unwrap_err().kind(), Kind::ResourceExhausted);
    drop(held);
    open(1024).unwrap();
}
