//! A guest that belongs to somebody else: the host keeps its head, and its memory.

use std::{fs, time::Duration};

use shim_core::{Kind, Result};
use shim_protos::protobuf::Message;
use shim_sandbox::{
    Build,
    channel::{self, Stream, Word, accept, greet_host},
    host::agent::{Agent, Health},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};
use ttrpc::proto::{Request, Response};

use crate::world::block_on;

/// What a flood may cost the host: the windows of the streams that are open, and some answers.
const MEMORY_LIMIT: u64 = 24 << 20;

const WORD: &str = "w0rd";

/// Greets a guest that does what a test says.
async fn greet(
    guest: impl Future<Output = ()> + Send + 'static,
    line: DuplexStream,
) -> Result<Agent> {
    tokio::spawn(guest);
    let health = Health { every: Duration::from_millis(200), misses: 3 };
    let word = Word::parse(WORD).unwrap();
    let greeting = Agent::greet(line, &word, Build::own().unwrap(), health);
    let greeted = timeout(Duration::from_secs(30), greeting).await.expect("it has an end");
    greeted.map(|(agent, _)| agent)
}

/// A guest that takes each stream and then answers frames by its own rules.
async fn served(mut line: DuplexStream, serve: impl AsyncFn(Stream)) {
    greet_host(&mut line, &Word::parse(WORD).unwrap()).await.unwrap();
    let mut incoming = channel::guest(line);
    while let Some(mut stream) = incoming.next().await {
        accept(&mut stream, async |_| Ok(())).await.unwrap();
        serve(stream).await;
    }
}

/// Reads a request: its stream's number, and what it asks.
async fn request(stream: &mut Stream) -> std::io::Result<(u32, Request)> {
    let (length, number) = (stream.read_u32().await?, stream.read_u32().await?);
    let _kind = stream.read_u16().await?;
    let mut data = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut data).await?;
    Ok((number, Request::parse_from_bytes(&data).unwrap()))
}

fn frame(number: u32, kind: u8, length: usize, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&length[..], &number.to_be_bytes(), &[kind, 0], data].concat()
}

fn answer(number: u32, response: &Response) -> Vec<u8> {
    let data = response.write_to_bytes().unwrap();
    frame(number, 2, data.len(), &data)
}

fn refusal(text: String) -> Response {
    let mut response = Response::new();
    response.set_status(ttrpc::get_status(ttrpc::Code::NOT_FOUND, text));
    response
}

/// A fair answer to Hello, by whose build the greeting goes.
fn hello() -> Response {
    let hello = shim_protos::guest::HelloResponse {
        build: Build::own().unwrap().as_str().to_owned(),
        root: "/x\n/y".into(),
        ..Default::default()
    };
    Response { payload: hello.write_to_bytes().unwrap(), ..Default::default() }
}

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn who_has_another_word_is_not_greeted() {
    block_on(async {
        let (ours, mut theirs) = duplex(1 << 16);
        let guest = async move {
            let word = Word::parse("other").unwrap();
            let _refused = greet_host(&mut theirs, &word).await;
        };
        let guest = timeout(Duration::from_secs(1), guest);
        let greeted = greet(async { drop(guest.await) }, ours).await;
        assert!(greeted.is_err());
    });
}

#[test]
fn who_is_of_another_build_is_refused() {
    block_on(async {
        let (ours, theirs) = duplex(1 << 16);
        let guest = served(theirs, async |mut stream| {
            let (number, _) = request(&mut stream).await.unwrap();
            stream.write_all(&answer(number, &Response::new())).await.unwrap();
            let _closed = stream.read_u8().await;
        });
        let err = greet(guest, ours).await.unwrap_err();
        assert_eq!(err.kind(), Kind::FailedPrecondition, "{err:#}");
    });
}

#[test]
fn garbage_ends_the_line() {
    block_on(async {
        for garbage in [&b"garbage and more garbage"[..], &[0xff; 4096], &[0; 4096]] {
            let (ours, mut theirs) = duplex(1 << 16);
            let garbage = garbage.to_vec();
            let guest = async move {
                greet_host(&mut theirs, &Word::parse(WORD).unwrap()).await.unwrap();
                let _refused = theirs.write_all(&garbage).await;
                let _closed = theirs.shutdown().await;
            };
            assert!(greet(guest, ours).await.is_err());
        }
    });
}

#[test]
fn frames_that_are_no_answers_end_the_agent_and_cost_little() {
    block_on(async {
        let before = memory();
        for kind in [2, 3, 9] {
            let (ours, theirs) = duplex(1 << 16);
            let guest = served(theirs, async move |mut stream| {
                let (number, _) = request(&mut stream).await.unwrap();
                stream.write_all(&answer(number, &hello())).await.unwrap();
                // The flood: for streams that nobody opened, for as long as somebody reads.
                let data = vec![0xaa; 60 << 10];
                for number in (0..).step_by(2).take(2000) {
                    if stream.write_all(&frame(number, kind, data.len(), &data)).await.is_err() {
                        return;
                    }
                }
            });
            let agent = greet(guest, ours).await.unwrap();
            agent.dead().await;
            let late = agent.usage().await.unwrap_err();
            assert_eq!(late.kind(), Kind::Unavailable);
        }
        let grown = memory().saturating_sub(before);
        assert!(grown < MEMORY_LIMIT, "{grown} bytes");
    });
}

#[test]
fn a_frame_that_is_too_long_is_not_kept() {
    block_on(async {
        let before = memory();
        let (ours, theirs) = duplex(1 << 16);
        let guest = served(theirs, async |mut stream| {
            let (number, _) = request(&mut stream).await.unwrap();
            stream.write_all(&answer(number, &hello())).await.unwrap();
            let (number, _) = request(&mut stream).await.unwrap();
            let head = frame(number, 2, usize::try_from(u32::MAX).unwrap(), &[]);
            let _refused = stream.write_all(&head).await;
            let data = vec![0xaa; 60 << 10];
            for _ in 0..2000 {
                if stream.write_all(&data).await.is_err() {
                    return;
                }
            }
        });
        let agent = greet(guest, ours).await.unwrap();
        let err = agent.usage().await.unwrap_err();
        assert!(err.to_string().len() < 5000, "{err:#}");
        agent.dead().await;
        let grown = memory().saturating_sub(before);
        assert!(grown < MEMORY_LIMIT, "{grown} bytes");
    });
}

#[test]
fn texts_of_refusals_are_short_and_plain() {
    block_on(async {
        let (ours, theirs) = duplex(1 << 16);
        let guest = served(theirs, async |mut stream| {
            let (number, _) = request(&mut stream).await.unwrap();
            stream.write_all(&answer(number, &hello())).await.unwrap();
            while let Ok((number, _)) = request(&mut stream).await {
                let text = "\x1b[2J\nlevel=info ".repeat(200_000);
                stream.write_all(&answer(number, &refusal(text))).await.unwrap();
            }
        });
        let agent = greet(guest, ours).await.unwrap();
        assert_eq!(agent.root(), "/x\\n/y");
        let err = agent.usage().await.unwrap_err();
        let text = format!("{err:#}");
        assert_eq!(err.kind(), Kind::NotFound);
        assert!(text.len() < 5000 && !text.contains(['\n', '\x1b']), "{} bytes", text.len());
        agent.end("enough");
    });
}

#[test]
fn a_guest_that_never_answers_is_dead_after_three_questions() {
    block_on(async {
        let (ours, theirs) = duplex(1 << 16);
        let guest = served(theirs, async |mut stream| {
            let (number, _) = request(&mut stream).await.unwrap();
            stream.write_all(&answer(number, &hello())).await.unwrap();
            while request(&mut stream).await.is_ok() {}
        });
        let agent = greet(guest, ours).await.unwrap();
        let err = agent.usage().await.unwrap_err();
        assert_eq!(err.kind(), Kind::Unavailable);
        assert!(agent.dead().await.contains("questions"));
    });
}
