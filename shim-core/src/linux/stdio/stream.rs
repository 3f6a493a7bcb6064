//! Copies between a process and a client that has opened a stream.
//!
//! Output waits for its client in the pipe, as it does in a fifo: while it is held up by one that is
//! slow the process waits, and what the pipe takes is kept for one that comes late or comes back. With
//! nobody there for long the process must not wait: the output is dropped until somebody comes.

use std::{
    convert::Infallible,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv},
    unistd,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{self, Instant},
};

use super::{
    copy::{Output, Progress, set_nonblocking},
    exchange::Port,
    line::{Heard, Line, Word},
};
use crate::{
    error::{Context, Result},
    linux::sys,
};

/// The most that goes in one message. containerd's receivers count a longer one wrong.
const CHUNK: usize = 32 * 1024;

/// How long a process may be held up because no client is there: containerd may be restarted, and
/// takes its time.
const ABSENCE_LIMIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// How long bytes may be under way when the input is closed by request: they come over another
/// connection than the request.
const CLOSE_GRACE: Duration = Duration::from_millis(300);

/// Held while an input is not to end with its client.
pub(super) type Keeper = oneshot::Sender<Infallible>;

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Bytes,
    Nothing,
    /// And nothing will be.
    End,
}

/// Why a copy to a client has ended.
enum Carried {
    All,
    /// The client is gone before the output.
    Part,
}

/// Copies a process's output to whoever opens the stream.
pub(super) fn output(pipe: OwnedFd, port: Port) -> Result<Output> {
    set_nonblocking(&pipe)?;
    let source = sys::watch(pipe, Interest::READABLE).context("watch an output")?;
    Ok(Output::spawn(|tell| async move {
        if let Err(err) = carry_all(&source, &port, &tell).await {
            log::warn!("copy an output: {err}");
        }
        drop(source);
        tell.send_replace(Progress::Ended);
        // Everyone who comes until the process is deleted hears of the end, and has read all of it
        // when it leaves.
        let mut present = time::timeout(Duration::ZERO, port.line()).await.ok();
        loop {
            if let Some(line) = present {
                line.say(Word::End).await;
                line.left().await;
                port.hang_up(&line);
            }
            tell.send_replace(Progress::Read);
            present = Some(port.line().await);
        }
    }))
}

async fn carry_all(
    source: &AsyncFd<OwnedFd>,
    port: &Port,
    tell: &watch::Sender<Progress>,
) -> io::Result<()> {
    loop {
        let Some(line) = client(source, port, tell).await? else { return Ok(()) };
        match carry(source, &line, tell).await? {
            Carried::All => return Ok(()),
            Carried::Part => port.hang_up(&line),
        }
    }
}

/// Waits for a client; none when there is nothing to tell it.
async fn client(
    source: &AsyncFd<OwnedFd>,
    port: &Port,
    tell: &watch::Sender<Progress>,
) -> io::Result<Option<Line>> {
    let patience = Instant::now() + ABSENCE_LIMIT;
    let ended = async {
        loop {
            let found = look(source, tell)?;
            // An exit is not to wait for who is not there.
            tell.send_if_modified(Progress::enter_idle);
            match found {
                Source::End => return io::Result::Ok(()),
                Source::Bytes if Instant::now() < patience => {
                    time::sleep_until(patience).await;
                    log::warn!("nobody takes an output: it is dropped until somebody does");
                }
                Source::Bytes => {
                    drop(read(source.get_ref().as_fd(), CHUNK)?);
                    tokio::task::yield_now().await;
                }
                Source::Nothing => next(source).await?,
            }
        }
    };
    tokio::select! {
        biased;
        line = port.line() => Ok(Some(line)),
        ended = ended => ended.map(|()| None),
    }
}

async fn carry(
    source: &AsyncFd<OwnedFd>,
    line: &Line,
    tell: &watch::Sender<Progress>,
) -> io::Result<Carried> {
    loop {
        match look(source, tell)? {
            Source::End => return Ok(Carried::All),
            Source::Nothing => {
                tokio::select! {
                    news = next(source) => news?,
                    () = line.left() => return Ok(Carried::Part),
                }
            }
            Source::Bytes => {
                let Some(room) = line.room().await else { return Ok(Carried::Part) };
                let Some(bytes) = read(source.get_ref().as_fd(), room.min(CHUNK))? else {
                    return Ok(Carried::All);
                };
                line.fill(bytes.len());
                if !bytes.is_empty() && !line.say(Word::Data(bytes)).await {
                    return Ok(Carried::Part);
                }
            }
        }
    }
}

/// Looks whether there is something, and tells.
fn look(source: &AsyncFd<OwnedFd>, tell: &watch::Sender<Progress>) -> io::Result<Source> {
    let mut fds = [PollFd::new(source.get_ref().as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let told = fds[0].revents().unwrap_or(PollFlags::empty());
    let found = match told {
        _ if told.contains(PollFlags::POLLIN) && is_over(source.get_ref()) => Source::End,
        _ if told.contains(PollFlags::POLLIN) => Source::Bytes,
        _ if told.is_empty() => Source::Nothing,
        _ => Source::End,
    };
    match found {
        Source::Nothing => tell.send_if_modified(Progress::enter_idle),
        Source::Bytes | Source::End => tell.send_if_modified(Progress::leave_idle),
    };
    Ok(found)
}

/// Whether it is a socket without more to come: its end is told as something to read.
fn is_over(source: &OwnedFd) -> bool {
    if sys::unread(source.as_fd()).is_ok_and(|bytes| bytes > 0) {
        return false;
    }
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(source.as_raw_fd(), &mut [0], peek), Ok(0) | Err(Errno::ECONNRESET))
}

/// Waits for more than there is now.
async fn next(source: &AsyncFd<OwnedFd>) -> io::Result<()> {
    source.readable().await?.clear_ready();
    // What came before is not told again.
    let mut fds = [PollFd::new(source.get_ref().as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        drop(source.readable().await?);
    }
    Ok(())
}

/// Reads what there is, up to a limit; none at the end.
fn read(source: BorrowedFd<'_>, limit: usize) -> io::Result<Option<Vec<u8>>> {
    // Most outputs are much shorter than the limit, and their messages wait in queues.
    let unread = sys::unread(source).ok().and_then(|bytes| usize::try_from(bytes).ok());
    let mut bytes = vec![0; unread.unwrap_or(0).clamp(256, CHUNK).min(limit)];
    match unistd::read(source, &mut bytes) {
        Ok(0) => Ok(None),
        Ok(read) => {
            bytes.truncate(read);
            Ok(Some(bytes))
        }
        // A terminal whose last holder is gone; a socket whose other end did not read all.
        Err(Errno::EIO | Errno::ECONNRESET) => Ok(None),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Some(Vec::new())),
        Err(err) => Err(err.into()),
    }
}

/// Copies what clients send into the process, until one closes its side, or none is there and the
/// keeper is dropped.
pub(super) fn input(port: Port, pipe: OwnedFd) -> Result<(JoinHandle<()>, Keeper)> {
    set_nonblocking(&pipe)?;
    let sink = sys::watch(pipe, Interest::WRITABLE).context("watch stdin")?;
    let (keeper, closing) = oneshot::channel();
    let copier = tokio::spawn(async move {
        match take_all(&port, &sink, closing).await {
            Ok(()) => {}
            // The process has closed its stdin, as it may.
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
            Err(err) => log::warn!("copy stdin: {err}"),
        }
    });
    Ok((copier, keeper))
}

async fn take_all(
    port: &Port,
    sink: &AsyncFd<OwnedFd>,
    mut closing: oneshot::Receiver<Infallible>,
) -> io::Result<()> {
    let mut is_kept = true;
    loop {
        let line = tokio::select! {
            biased;
            line = port.line() => line,
            _ = &mut closing, if is_kept => {
                is_kept = false;
                continue;
            }
            () = time::sleep(CLOSE_GRACE), if !is_kept => return Ok(()),
        };
        loop {
            line.widen().await;
            let heard = tokio::select! {
                biased;
                heard = line.hear() => heard,
                _ = &mut closing, if is_kept => {
                    is_kept = false;
                    continue;
                }
                () = time::sleep(CLOSE_GRACE), if !is_kept => return Ok(()),
            };
            match heard {
                Heard::Data(bytes) => write_all(sink, &bytes).await?,
                Heard::Closed => return Ok(()),
                Heard::Gone => break,
            }
        }
        port.hang_up(&line);
    }
}

async fn write_all(sink: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut writable = sink.writable().await?;
        match unistd::write(sink.get_ref(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EAGAIN) => writable.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
