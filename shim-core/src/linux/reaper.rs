//! Exits: each owned child is collected through its own pidfd by whoever waits for it; whatever
//! else falls to the shim as subreaper is an orphan and collected here.
//!
//! The rule: an orphan is collected only while no child is being made. A child that ends between
//! its clone and its adoption would else be taken for an orphan, and its exit status lost.

use std::{
    collections::HashSet,
    fmt,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use super::sys::{self, Child};
use crate::{
    backend::ExitFuture,
    error::{Context, Error, Kind, Result},
    model::{Exit, ExitStatus, Pid, Signal},
};

/// Collects the exits of the shim's children. Clones are the same reaper.
#[derive(Clone, Default)]
pub struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    children: Mutex<Children>,
    /// Asks for a look at the orphans.
    sweep: Notify,
}

#[derive(Default)]
struct Children {
    /// Collected by their owners.
    owned: HashSet<Pid>,
    /// Should live as long as the shim.
    kept: HashSet<Pid>,
    /// Children in the making.
    holds: usize,
}

/// While one lives, no orphan is collected: take it before a child is made.
#[derive(Debug)]
pub struct Hold {
    reaper: Reaper,
}

impl Reaper {
    /// Keeps the orphans back while a child is being made.
    pub fn hold(&self) -> Hold {
        self.children().holds += 1;
        Hold { reaper: self.clone() }
    }

    /// Collects orphans for as long as the shim lives.
    pub(crate) async fn collect_orphans(self) -> Result<()> {
        let mut ended = signal(SignalKind::child()).context("watch for SIGCHLD")?;
        loop {
            self.sweep();
            tokio::select! {
                _ = ended.recv() => {}
                () = self.shared.sweep.notified() => {}
            }
        }
    }

    fn sweep(&self) {
        let children = self.children();
        if children.holds > 0 {
            return;
        }
        loop {
            let Ok(Some(ended)) = sys::peek(Child::Any) else { return };
            if children.owned.contains(&ended.pid) {
                // Its owner collects it and asks for another sweep: others may stand behind it.
                return;
            }
            if sys::reap(Child::Pid(ended.pid)).is_err() {
                return;
            }
            if children.kept.contains(&ended.pid) {
                log::error!("process {} of the shim itself has died", ended.pid);
            }
        }
    }

    fn children(&self) -> MutexGuard<'_, Children> {
        self.shared.children.lock().expect("nobody panics with the children locked")
    }
}

impl Hold {
    /// Takes over a child that has just been made: the future collects it when it has ended.
    pub fn adopt(&self, pid: Pid, pidfd: OwnedFd) -> ExitFuture {
        self.reaper.children().owned.insert(pid);
        let owner = Owner { reaper: self.reaper.clone(), pid };
        Box::pin(async move {
            let status = exit_of(pidfd).await;
            drop(owner);
            Exit::now(status)
        })
    }

    /// Takes over a process that a child has made and left to the shim as subreaper, dead or alive.
    /// Take the hold before there is that child: its exit status cannot be lost then, nor its pid
    /// be another's.
    ///
    /// # Errors
    /// `AlreadyExists` for one that is taken over; else when it is no child of this process.
    pub fn adopt_orphan(&self, pid: Pid) -> Result<(OwnedFd, ExitFuture)> {
        let pidfd = open_pid(pid)?;
        sys::peek(Child::Pidfd(pidfd.as_fd()))
            .with_context(|| format!("process {pid} was not left to the shim"))?;
        if self.reaper.children().owned.contains(&pid) {
            let why = format!("process {pid} has an owner already");
            return Err(Error::new(Kind::AlreadyExists, why));
        }
        let own = pidfd.try_clone().with_context(|| format!("share process {pid}"))?;
        Ok((own, self.adopt(pid, pidfd)))
    }

    /// Takes over a child that lives as long as the shim and that nobody waits for.
    pub fn keep(&self, pid: Pid) {
        self.reaper.children().kept.insert(pid);
    }
}

/// Who collects a child. One that is gone before that leaves it to the orphans' collection, which
/// would else stand behind it for ever.
struct Owner {
    reaper: Reaper,
    pid: Pid,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.reaper.children().owned.remove(&self.pid);
        self.reaper.shared.sweep.notify_one();
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.reaper.children().holds -= 1;
        self.reaper.shared.sweep.notify_one();
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reaper")
    }
}

/// Waits until the process behind a pidfd has ended, and collects it.
async fn exit_of(pidfd: OwnedFd) -> ExitStatus {
    let Ok(pidfd) = sys::watch(pidfd, Interest::READABLE) else { return ExitStatus::Unknown };
    loop {
        match sys::reap(Child::Pidfd(pidfd.get_ref().as_fd())) {
            Ok(Some(ended)) => return ended.status,
            Ok(None) => {}
            Err(err) => {
                log::warn!("collect a child: {err}");
                return ExitStatus::Unknown;
            }
        }
        match pidfd.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => return ExitStatus::Unknown,
        }
    }
}

/// Opens a process that is known to be there still, a child of ours not yet collected.
///
/// # Errors
/// When there is no such process or no descriptor to be had.
pub fn open_pid(pid: Pid) -> Result<OwnedFd> {
    sys::pidfd_open(pid).with_context(|| format!("open process {pid}"))
}

/// Signals the process behind a pidfd.
///
/// # Errors
/// `NotFound` when it has ended.
pub fn signal_pidfd(pidfd: impl AsFd, signal: Signal) -> Result<()> {
    sys::pidfd_signal(pidfd, signal).map_err(|err| match err.raw_os_error() {
        Some(libc::ESRCH) => Error::not_found("process already finished"),
        _ => Error::from(err).context(format!("send signal {}", signal.number())),
    })
}

/// Registers a non-blocking descriptor with the runtime.
///
/// # Errors
/// When the runtime takes no more, or the descriptor can't be polled.
pub fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    watch_for(fd, Interest::READABLE | Interest::WRITABLE)
}

/// Registers a descriptor with the runtime, for some kinds of readiness.
///
/// # Errors
/// As [`watch`].
pub fn watch_for(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    sys::watch(fd, interest).context("watch a file descriptor")
}
