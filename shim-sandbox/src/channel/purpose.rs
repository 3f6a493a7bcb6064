//! What a stream is for: its first line.

use std::fmt;

use shim_core::{Context, Error, Kind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::mux::{Opener, Stream};

/// The longest first line, either way.
const LINE_LIMIT: usize = 512;

/// What a guest says when it takes a stream.
const OK: &str = "ok";

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Calls: the guest's services by ttrpc.
    Calls,
    /// Bytes for a process's stdin, by the stream's name.
    Input(String),
    /// Bytes from a process's stdout or stderr, by the stream's name.
    Output(String),
    /// A connection to a port of the guest's loopback.
    Dial(u16),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls => f.write_str("calls"),
            Self::Input(name) => write!(f, "input {name}"),
            Self::Output(name) => write!(f, "output {name}"),
            Self::Dial(port) => write!(f, "dial {port}"),
        }
    }
}

impl Purpose {
    fn parse(line: &str) -> Result<Self> {
        let unknown = || Error::invalid(format!("a stream for {line:?}"));
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = || {
            let is_name = (1..=64).contains(&rest.len())
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            is_name.then(|| rest.to_owned()).ok_or_else(unknown)
        };
        match word {
            "calls" if rest.is_empty() => Ok(Self::Calls),
            "input" => name().map(Self::Input),
            "output" => name().map(Self::Output),
            "dial" => rest.parse().map(Self::Dial).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// Opens a stream for a purpose, as the host.
///
/// # Errors
/// What the guest says against it; `Unavailable` when the line is gone.
pub async fn open(opener: &Opener, purpose: &Purpose) -> Result<Stream> {
    let mut stream = opener.open().await?;
    let opened = async {
        stream.write_all(format!("{purpose}\n").as_bytes()).await?;
        stream.flush().await?;
        line(&mut stream).await
    };
    let answer = opened.await.map_err(|err| {
        Error::new(Kind::Unavailable, format!("open a stream for {purpose}: {err}"))
    })?;
    match answer.as_str() {
        OK => Ok(stream),
        why => Err(Error::other(format!("open a stream for {purpose}: the guest says {why:?}"))),
    }
}

/// Takes a stream as the guest. `prepare` makes ready what the purpose asks for; its error goes to the
/// host.
///
/// # Errors
/// What is wrong with the purpose, or with what was made ready.
pub async fn accept<T>(
    stream: &mut Stream,
    prepare: impl AsyncFnOnce(Purpose) -> Result<T>,
) -> Result<T> {
    let asked = line(stream).await.context("read what a stream is for")?;
    let prepared = match Purpose::parse(&asked) {
        Ok(purpose) => prepare(purpose).await,
        Err(err) => Err(err),
    };
    let answer = match &prepared {
        Ok(_) => OK.to_owned(),
        Err(err) => {
            // A character has four bytes at most.
            let why = format!("{err:#}").replace(['\n', '\r'], " ");
            why.chars().take(LINE_LIMIT / 4).collect()
        }
    };
    stream.write_all(format!("{answer}\n").as_bytes()).await.context("answer a stream")?;
    stream.flush().await.context("answer a stream")?;
    prepared
}

/// Reads a line and no byte further.
async fn line(stream: &mut Stream) -> std::io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            _ if line.len() >= LINE_LIMIT => {
                return Err(std::io::Error::other("the first line has no end"));
            }
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::channel::{guest, host};

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn purposes_are_read_as_they_are_written() {
        for purpose in [
            Purpose::Calls,
            Purpose::Input("s1-in".into()),
            Purpose::Output("s1".into()),
            Purpose::Dial(80),
        ] {
            assert_eq!(Purpose::parse(&purpose.to_string()).unwrap(), purpose);
        }
        for bad in ["", "calls 1", "input", "input a/b", "input ..", "dial 70000", "shell x"] {
            assert!(Purpose::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_come_as_they_are_sent_and_end_when_the_sender_does() {
        run(async {
            let (ours, theirs) = duplex(4 << 10);
            let (opener, mut incoming) = (host(ours), guest(theirs));
            let echo = tokio::spawn(async move {
                let mut stream = incoming.next().await.unwrap();
                accept(&mut stream, async |purpose| {
                    assert_eq!(purpose, Purpose::Dial(7));
                    Ok(())
                })
                .await
                .unwrap();
                let (mut reader, mut writer) = tokio::io::split(stream);
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
                incoming
            });
            let stream = open(&opener, &Purpose::Dial(7)).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(stream);
            let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
            let copy = sent.clone();
            let writing = tokio::spawn(async move {
                writer.write_all(&copy).await.unwrap();
                writer.shutdown().await.unwrap();
            });
            let mut back = Vec::new();
            reader.read_to_end(&mut back).await.unwrap();
            assert!(back == sent);
            writing.await.unwrap();
            drop((opener, reader));
            assert!(echo.await.unwrap().next().await.is_none());
        });
    }

    #[test]
    fn a_refusal_says_why_and_a_guest_opens_nothing() {
        run(async {
            let (ours, theirs) = duplex(4 << 10);
            let (opener, mut incoming) = (host(ours), guest(theirs));
            tokio::spawn(async move {
                let mut stream = incoming.next().await.unwrap();
                let refused =
                    accept(&mut stream, async |_| Err::<(), _>(Error::other("no\nway"))).await;
                refused.unwrap_err();
            });
            let err = open(&opener, &Purpose::Calls).await.unwrap_err();
            assert!(err.to_string().contains("no way"), "{err}");

            let (ours, theirs) = duplex(4 << 10);
            let (first, second) = (host(ours), yamux_server(theirs));
            second.await;
            assert_eq!(first.ended().await, "the guest has opened a stream");
        });
    }

    /// A guest that does what none of ours does.
    async fn yamux_server(line: tokio::io::DuplexStream) {
        use tokio_util::compat::TokioAsyncReadCompatExt;
        let mut connection =
            yamux::Connection::new(line.compat(), yamux::Config::default(), yamux::Mode::Server);
        let mut stream =
            std::future::poll_fn(|context| connection.poll_new_outbound(context)).await.unwrap();
        tokio::spawn(async move {
            std::future::poll_fn(|context| connection.poll_next_inbound(context)).await
        });
        use futures::AsyncWriteExt;
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
    }
}
