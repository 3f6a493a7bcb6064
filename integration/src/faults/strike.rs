//! A blow at a moment inside a step: by a thread, since the step keeps the runtime busy.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::oneshot;

use super::role::{Role, processes_of};
use crate::procs;

/// Looks for its victim, hits it, and tells which process it was; none while it is not there yet.
pub type Blow = Box<dyn FnMut() -> Result<Option<i32>> + Send>;

/// The victim that is no process.
pub const NO_PROCESS: i32 = 0;

/// A blow that has landed.
#[derive(Clone, Copy, Debug)]
pub struct Landed {
    /// The process, or [`NO_PROCESS`].
    pub victim: i32,
    /// Whether the step was still going on.
    pub is_inside: bool,
}

/// A blow on its way.
#[derive(Debug)]
pub struct Strike {
    over: Sender<()>,
    thread: JoinHandle<Result<Option<Landed>>>,
    /// Resolves to the victim when the blow has landed; fails when there will be none.
    pub landed: oneshot::Receiver<i32>,
}

impl Strike {
    /// Strikes after `delay`, or as soon as the victim is there; at the end of the step at last.
    #[must_use]
    pub fn after(delay: Duration, mut blow: Blow) -> Self {
        let (over, step) = mpsc::channel();
        let (hit, landed) = oneshot::channel();
        let thread = thread::spawn(move || {
            let mut pause = delay;
            loop {
                let is_over = step.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
                if let Some(victim) = blow()? {
                    // The step may be over, and nobody wait for it.
                    let _ = hit.send(victim);
                    return Ok(Some(Landed { victim, is_inside: !is_over }));
                }
                if is_over {
                    return Ok(None);
                }
                pause = Duration::from_micros(20);
            }
        });
        Self { over, thread, landed }
    }

    /// Tells that the step is over, and returns what became of the blow; none without a victim.
    ///
    /// # Errors
    /// When the blow could not be dealt.
    pub fn finish(self) -> Result<Option<Landed>> {
        // The thread may have ended.
        let _ = self.over.send(());
        self.thread.join().unwrap_or(Ok(None))
    }
}

/// The shim while it starts: the serving process where there is one and it is `wanted`, else the
/// process that `start` is.
#[must_use]
pub fn starting(id: &str, wanted: Role) -> Option<i32> {
    let all = processes_of(id);
    let find = |role| all.iter().find(|(_, found)| *found == role).map(|(pid, _)| *pid);
    find(wanted).or_else(|| find(Role::Starting)).or_else(|| find(Role::Serving))
}

/// The stem, which is there from some moment of the bootstrap on.
#[must_use]
pub fn stem(id: &str) -> Option<i32> {
    processes_of(id).into_iter().find(|(_, role)| *role == Role::Stem).map(|(pid, _)| pid)
}

/// The first child of a shim that is not its stem: the container's first process, also while it is
/// being made.
#[must_use]
pub fn child(shim: i32, stem: Option<i32>) -> Option<i32> {
    let all = procs::all().ok()?;
    let others = all.into_iter().map(|process| process.pid).filter(|pid| Some(*pid) != stem);
    others.into_iter().find(|pid| procs::parent(*pid).is_ok_and(|parent| parent == shim))
}
