//! A person in front of a running process: input, signals, the terminal's size, the end.

use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shim_client::{CallError, Container, Shape, Streams, Waiting, Whom};
use shim_protos::task::{CloseIORequest, ResizePtyRequest, WaitResponse};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::terminal::window_size;

const SIGKILL: u32 = 9;
const SIGINT: u32 = 2;
const SIGTERM: u32 = 15;

/// Signals that go on to the container, and that of a changed window.
///
/// Made before the container is: a signal that comes while it is being created waits here, where
/// it would otherwise end us halfway.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    user1: Signal,
    user2: Signal,
    window: Signal,
}

/// What a signal means for the process.
#[derive(Clone, Copy, Debug)]
enum Occasion {
    Forward(u32),
    Resize,
}

impl Signals {
    /// Begins to catch the signals.
    pub(crate) fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("catch signals");
        Ok(Self {
            hangup: catch(SignalKind::hangup())?,
            interrupt: catch(SignalKind::interrupt())?,
            quit: catch(SignalKind::quit())?,
            terminate: catch(SignalKind::terminate())?,
            user1: catch(SignalKind::user_defined1())?,
            user2: catch(SignalKind::user_defined2())?,
            window: catch(SignalKind::window_change())?,
        })
    }

    /// Resolves at a request to end: an interrupt, a termination, a hangup.
    pub(crate) async fn end(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    async fn next(&mut self) -> Occasion {
        tokio::select! {
            _ = self.hangup.recv() => Occasion::Forward(1),
            _ = self.interrupt.recv() => Occasion::Forward(SIGINT),
            _ = self.quit.recv() => Occasion::Forward(3),
            _ = self.terminate.recv() => Occasion::Forward(SIGTERM),
            _ = self.user1.recv() => Occasion::Forward(10),
            _ = self.user2.recv() => Occasion::Forward(12),
            _ = self.window.recv() => Occasion::Resize,
        }
    }
}

/// One process as it is attended to.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// Its container.
    pub(crate) container: &'a Container,
    /// Its exec id; empty for the first process.
    pub(crate) exec_id: &'a str,
    /// Whether it has a terminal.
    pub(crate) shape: Shape,
}

impl Session<'_> {
    /// Feeds the process and passes signals on until it ends.
    pub(crate) async fn attend(
        &self,
        signals: &mut Signals,
        streams: &mut Streams,
        input: Option<File>,
        mut waiting: Waiting,
    ) -> Result<WaitResponse, CallError> {
        let mut input_end = match input.map(|input| streams.feed(input)).transpose() {
            Ok(end) => end,
            Err(error) => {
                log::warn!("{error:#}");
                None
            }
        };
        let mut reader_lost = streams.reader_lost();
        let mut impatience = Impatience::default();
        self.resize().await;
        loop {
            tokio::select! {
                ended = &mut waiting => {
                    // The task neither panics nor is aborted.
                    return ended.expect("the wait runs to its end");
                }
                occasion = signals.next() => match occasion {
                    Occasion::Resize => self.resize().await,
                    Occasion::Forward(signal) if impatience.is_over(signal) => {
                        log::warn!("asked to end three times: the process is killed");
                        self.kill(SIGKILL).await;
                    }
                    Occasion::Forward(signal) => self.kill(signal).await,
                },
                fifo = arrival(&mut input_end) => self.close_stdin(fifo).await,
                () = arrival(&mut reader_lost) => {
                    log::debug!("nobody reads the output any more: the process is killed");
                    self.kill(SIGKILL).await;
                }
            }
        }
    }

    async fn kill(&self, signal: u32) {
        match self.container.kill(self.exec_id, signal, Whom::Process).await {
            Ok(()) => {}
            // It ends at this very moment.
            Err(error) if error.is_not_found() => {}
            Err(error) => log::warn!("signal {signal}: {error}"),
        }
    }

    /// Tells the process's terminal the size of ours.
    async fn resize(&self) {
        let (Shape::Terminal, Some((width, height))) = (self.shape, window_size()) else { return };
        let request = ResizePtyRequest {
            id: self.container.id().to_owned(),
            exec_id: self.exec_id.to_owned(),
            width,
            height,
            ..ResizePtyRequest::default()
        };
        if let Err(error) = self.container.task().resize_pty(&request).await {
            log::debug!("{error}");
        }
    }

    /// Passes the end of our input on: the shim lets go of the fifo, then we do.
    async fn close_stdin(&self, fifo: File) {
        let request = CloseIORequest {
            id: self.container.id().to_owned(),
            exec_id: self.exec_id.to_owned(),
            stdin: true,
            ..CloseIORequest::default()
        };
        if let Err(error) = self.container.task().close_io(&request).await {
            log::debug!("{error}");
        }
        drop(fifo);
    }
}

/// Counts requests to end that come in quick succession.
///
/// The first process of a pid namespace ignores every signal that it has not asked for, so most
/// commands cannot be interrupted. Whoever asks three times in a hurry means it.
#[derive(Debug, Default)]
struct Impatience {
    count: u32,
    last: Option<Instant>,
}

impl Impatience {
    fn is_over(&mut self, signal: u32) -> bool {
        const HURRY: Duration = Duration::from_secs(2);
        if !matches!(signal, SIGINT | SIGTERM) {
            return false;
        }
        let now = Instant::now();
        let in_a_hurry = self.last.is_some_and(|last| now - last < HURRY);
        self.count = if in_a_hurry { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.count >= 3
    }
}

/// What comes out of a channel, once; never, if there is none or its sender gave up.
async fn arrival<T>(channel: &mut Option<oneshot::Receiver<T>>) -> T {
    let Some(receiver) = channel else { return std::future::pending().await };
    let arrived = receiver.await;
    *channel = None;
    match arrived {
        Ok(value) => value,
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_requests_in_a_hurry_are_one_too_many() {
        let mut impatience = Impatience::default();
        let asked = [SIGINT, SIGTERM, 1, SIGINT].map(|signal| impatience.is_over(signal));
        assert_eq!(asked, [false, false, false, true]);

        impatience.last = Instant::now().checked_sub(Duration::from_secs(3));
        assert!(!impatience.is_over(SIGINT), "after a while it counts anew");
    }
}
