//! The clients that may still have something to say.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// The last call that containerd makes about a container. It takes a closed connection for an answer.
pub(super) const FAREWELL: &str = "Shutdown";

/// How many connections there are that have not said goodbye.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests(Arc<watch::Sender<usize>>);

impl Guests {
    /// One more.
    pub(super) fn admit(&self) -> Guest {
        self.0.send_modify(|count| *count += 1);
        Guest { guests: self.clone(), has_left: AtomicBool::new(false) }
    }

    /// Waits until there are none.
    pub(super) async fn gone(&self) {
        let mut count = self.0.subscribe();
        // The sender is here: it can't be gone.
        let _none = count.wait_for(|count| *count == 0).await;
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Guest {
    guests: Guests,
    has_left: AtomicBool,
}

impl Guest {
    /// It asks for nothing that it would miss.
    pub(super) fn leave(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed) {
            self.guests.0.send_modify(|count| *count -= 1);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.leave();
    }
}
