//! The streams of a process that may not exist yet: what a client asks of them early is kept.

use std::sync::{Mutex, MutexGuard, OnceLock};

use crate::{error::Result, linux::stdio::Console, model::WindowSize};

/// A console that comes with its process.
#[derive(Debug, Default)]
pub(super) struct LateConsole {
    console: OnceLock<Console>,
    early: Mutex<Early>,
}

/// What was asked before there was a console.
#[derive(Debug, Default)]
struct Early {
    size: Option<WindowSize>,
    stdin_is_closed: bool,
}

impl LateConsole {
    /// Takes the console of a process that exists now, once, and does what was asked early.
    pub(super) fn arrive(&self, console: Console) {
        let early = self.early();
        if let Some(size) = early.size
            && let Err(err) = console.resize(size)
        {
            log::warn!("{err:#}");
        }
        if early.stdin_is_closed {
            console.close_stdin();
        }
        let set = self.console.set(console);
        debug_assert!(set.is_ok(), "a process is made once");
    }

    /// Sets the terminal's size, now or when there is one.
    pub(super) fn resize(&self, size: WindowSize) -> Result<()> {
        let mut early = self.early();
        match self.console.get() {
            Some(console) => console.resize(size),
            None => {
                early.size = Some(size);
                Ok(())
            }
        }
    }

    /// Lets stdin end once the client has closed its side.
    pub(super) fn close_stdin(&self) {
        let mut early = self.early();
        match self.console.get() {
            Some(console) => console.close_stdin(),
            None => early.stdin_is_closed = true,
        }
    }

    /// Waits until what an ended process has printed is on its way, for a bounded time.
    pub(super) async fn drained(&self) {
        if let Some(console) = self.console.get() {
            console.drained().await;
        }
    }

    /// Ends what served the streams of a process that is deleted.
    pub(super) async fn close(&self) {
        if let Some(console) = self.console.get() {
            console.close().await;
        }
    }

    /// Held while the console comes, so that nothing is asked of neither.
    fn early(&self) -> MutexGuard<'_, Early> {
        self.early.lock().expect("nobody panics with it locked")
    }
}
