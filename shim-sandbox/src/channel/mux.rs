//! Many streams on one line.

use std::{
    fmt,
    future::poll_fn,
    task::{Context, Poll},
};

use shim_core::{Error, Kind, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot, watch},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode};

/// A stream of bytes both ways. Shut down, the other side reads its end; dropped, it is given up.
pub type Stream = Compat<yamux::Stream>;

/// How many streams a line has at most: three for each process of a crowded pod.
const STREAMS_LIMIT: usize = 1024;

/// How much may lie unread in memory, over all streams: what one needs at the least, for each.
const WINDOWS_LIMIT: usize = STREAMS_LIMIT * yamux::DEFAULT_CREDIT as usize;

/// How many streams wait to be taken.
const QUEUE: usize = 64;

type Ask = oneshot::Sender<Result<Stream>>;

/// The host's end of a line. Clones are the same.
#[derive(Clone, Debug)]
pub struct Opener {
    asks: mpsc::Sender<Ask>,
    /// Why the line has ended, once it has.
    ended: watch::Receiver<Option<String>>,
}

/// The guest's end of a line.
pub struct Incoming(mpsc::Receiver<Stream>);

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}

/// Divides a line, as the side that opens streams. It ends when every clone of what is returned is gone.
pub fn host(line: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Opener {
    let mut connection = Connection::new(line.compat(), config(), Mode::Client);
    let (asks, mut asked) = mpsc::channel::<Ask>(QUEUE);
    let (end, ended) = watch::channel(None);
    tokio::spawn(async move {
        let mut pending: Option<Ask> = None;
        let why =
            poll_fn(|context| drive(&mut connection, &mut asked, &mut pending, context)).await;
        let _all_gone = end.send(Some(why));
    });
    Opener { asks, ended }
}

/// Divides a line, as the side that takes streams.
pub fn guest(line: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Incoming {
    let mut connection = Connection::new(line.compat(), config(), Mode::Server);
    let (queue, incoming) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(stream) = poll_fn(|context| connection.poll_next_inbound(context)).await {
            let Ok(stream) = stream.inspect_err(|err| log::debug!("the line broke: {err}")) else {
                break;
            };
            // To wait here would be to serve no other stream either: who opens so many is refused.
            if queue.try_send(stream.compat()).is_err() {
                log::warn!("a stream is refused: {QUEUE} wait");
            }
        }
    });
    Incoming(incoming)
}

impl Opener {
    /// Opens a stream. Nothing is sent before it is written to.
    ///
    /// # Errors
    /// `Unavailable` when the line has ended.
    pub async fn open(&self) -> Result<Stream> {
        let (ask, answer) = oneshot::channel();
        let gone = || {
            let why = self.ended.borrow().clone().unwrap_or_else(|| "it has ended".to_owned());
            Error::new(Kind::Unavailable, format!("the line to the guest: {why}"))
        };
        self.asks.send(ask).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits until the line has ended, and says why. What is returned does not keep the line.
    pub fn ended(&self) -> impl Future<Output = String> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            let why = ended.wait_for(Option::is_some).await;
            why.ok().and_then(|why| why.clone()).unwrap_or_else(|| "it was dropped".to_owned())
        }
    }
}

impl Incoming {
    /// Waits for the next stream; `None` when the line has ended.
    pub async fn next(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.set_max_num_streams(STREAMS_LIMIT);
    config.set_max_connection_receive_window(Some(WINDOWS_LIMIT));
    // Larger frames are fewer: each is a copy and a wake-up in the guest.
    config.set_split_send_size(64 << 10);
    config
}

/// Moves the line on; ready when it has ended.
fn drive<T: futures::AsyncRead + futures::AsyncWrite + Unpin>(
    connection: &mut Connection<T>,
    asked: &mut mpsc::Receiver<Ask>,
    pending: &mut Option<Ask>,
    context: &mut Context<'_>,
) -> Poll<String> {
    // The guest opens nothing: whoever does is not to be trusted with more.
    match connection.poll_next_inbound(context) {
        Poll::Ready(Some(Ok(_))) => return Poll::Ready("the guest has opened a stream".to_owned()),
        Poll::Ready(Some(Err(err))) => return Poll::Ready(err.to_string()),
        Poll::Ready(None) => return Poll::Ready("the guest has closed it".to_owned()),
        Poll::Pending => {}
    }
    loop {
        if pending.is_none() {
            match asked.poll_recv(context) {
                Poll::Ready(Some(ask)) => *pending = Some(ask),
                Poll::Ready(None) => return Poll::Ready("nobody needs it any more".to_owned()),
                Poll::Pending => return Poll::Pending,
            }
        }
        match connection.poll_new_outbound(context) {
            Poll::Ready(opened) => {
                let opened = opened.map(FuturesAsyncReadCompatExt::compat).map_err(|err| {
                    Error::new(Kind::Unavailable, format!("the line to the guest: {err}"))
                });
                if let Some(ask) = pending.take() {
                    // Who asked may have given up.
                    let _unwanted = ask.send(opened);
                }
                // What was opened may make the connection have something to do.
                context.waker().wake_by_ref();
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}
