//! What a machine's program and its guest's console say: drained, bounded, and not for free.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use shim_core::{Context, Result};
use tokio::{io::AsyncReadExt, net::unix::pipe, task::JoinHandle, time::sleep};

/// How much is kept.
const KEPT: usize = 64 << 10;

/// How much is read at a time, and how long a pause there is after as much: a guest that prints for ever
/// costs 1 MiB a second, and waits.
const PIECE: usize = 16 << 10;
const PAUSE: Duration = Duration::from_millis(16);

/// The last of what was said. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Console(Arc<Mutex<VecDeque<u8>>>);

impl Console {
    /// Reads a pipe to its end, which the task waits for.
    ///
    /// # Errors
    /// When the pipe cannot be watched.
    pub(super) fn drain(&self, pipe: OwnedFd) -> Result<JoinHandle<()>> {
        let mut pipe = pipe::Receiver::from_owned_fd(pipe).context("watch the console")?;
        let console = self.clone();
        Ok(tokio::spawn(async move {
            let mut piece = vec![0; PIECE];
            let mut unpaid = 0;
            while let Ok(count @ 1..) = pipe.read(&mut piece).await {
                console.add(piece.get(..count).unwrap_or_default());
                unpaid += count;
                if unpaid >= PIECE {
                    unpaid = 0;
                    sleep(PAUSE).await;
                }
            }
        }))
    }

    fn add(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().expect("nobody panics with the console locked");
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }

    /// What is kept, with nothing in it that a terminal would act on.
    pub(super) fn tail(&self) -> String {
        let mut kept = self.0.lock().expect("nobody panics with the console locked");
        let text = String::from_utf8_lossy(kept.make_contiguous());
        let shown = |letter: &char| *letter == '\n' || *letter == '\t' || !letter.is_control();
        text.chars().filter(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_kept_and_nothing_acts_on_a_terminal() {
        let console = Console::default();
        console.add(&vec![b'x'; 3 * KEPT]);
        console.add(b"\x1b[2Jlast\r\n\xff");
        let tail = console.tail();
        assert!(tail.ends_with("x[2Jlast\n\u{fffd}"), "{:?}", &tail[tail.len() - 20..]);
        assert!(tail.len() <= KEPT + 3);
    }

    #[tokio::test]
    async fn a_pipe_is_read_to_its_end() {
        let (reader, writer) = std::io::pipe().unwrap();
        let console = Console::default();
        // As a runtime's own pipes are.
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&reader, flags).unwrap();
        let drained = console.drain(reader.into()).unwrap();
        std::io::Write::write_all(&mut &writer, b"one\ntwo").unwrap();
        drop(writer);
        drained.await.unwrap();
        assert_eq!(console.tail(), "one\ntwo");
    }
}
