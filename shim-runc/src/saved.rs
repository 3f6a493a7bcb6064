//! A container that is in a checkpoint until its start, and one like any other from then on.

use std::{
    path::PathBuf,
    sync::{Mutex, OnceLock},
};

use async_trait::async_trait;
use shim_core::{
    Checkpoint, Container, Error, Exec, Kind, Process, Result, Streams, Target, Update,
    model::{Bundle, Pid, Signal, Stats},
};

use crate::{
    container::NativeContainer,
    engine::{criu::Allowed, launch::Launcher},
    making::{Draft, Restored},
};

/// A container that is restored when it is started.
pub(crate) struct SavedContainer {
    saved: Mutex<Option<Saved>>,
    /// There from the moment that there is a process.
    live: OnceLock<NativeContainer>,
}

/// What it is restored from.
pub(crate) struct Saved {
    pub(crate) draft: Box<Draft>,
    pub(crate) bundle: Bundle,
    pub(crate) launcher: Launcher,
    pub(crate) streams: Streams,
    pub(crate) image: PathBuf,
    pub(crate) work: Option<PathBuf>,
}

impl SavedContainer {
    pub(crate) fn new(saved: Saved) -> Self {
        Self { saved: Mutex::new(Some(saved)), live: OnceLock::new() }
    }

    fn take(&self) -> Option<Saved> {
        self.saved.lock().expect("nobody panics with it locked").take()
    }

    fn live(&self) -> Result<&NativeContainer> {
        let none = || Error::new(Kind::FailedPrecondition, "the container is not restored yet");
        self.live.get().ok_or_else(none)
    }
}

impl Saved {
    async fn restore(self) -> Result<(NativeContainer, Process)> {
        let Self { draft, bundle, launcher, streams, image, work } = self;
        // What a client has saved it wants back; it can't say so a second time.
        let allowed = Allowed {
            open_tcp: true,
            external_unix_sockets: true,
            file_locks: true,
            ..Allowed::default()
        };
        let from = Restored {
            image: &image,
            work: work.as_deref(),
            streams: &streams,
            allowed: &allowed,
            lsm_profile: None,
        };
        let begun = draft.begin(&bundle, &launcher).await?;
        let made = draft.restore(begun, &launcher, from, |_| Ok(())).await?;
        Ok((made.container, made.init))
    }
}

#[async_trait]
impl Container for SavedContainer {
    async fn start(&self) -> Result<()> {
        self.live()?.start().await
    }

    async fn restore(&self) -> Result<Process> {
        let again =
            || Error::new(Kind::FailedPrecondition, "the container has been restored already");
        let saved = self.take().ok_or_else(again)?;
        let (container, init) = Box::pin(saved.restore()).await?;
        self.live.get_or_init(|| container);
        Ok(init)
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        self.live()?.kill(target, signal).await
    }

    async fn delete(&self) -> Result<()> {
        drop(self.take());
        match self.live.get() {
            Some(live) => live.delete().await,
            None => Ok(()),
        }
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        self.live()?.exec(request).await
    }

    async fn pause(&self) -> Result<()> {
        self.live()?.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.live()?.resume().await
    }

    async fn update(&self, request: &Update) -> Result<()> {
        self.live()?.update(request).await
    }

    async fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        self.live()?.checkpoint(request).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.live()?.stats().await
    }

    async fn out_of_memory(&self) -> Result<()> {
        self.live()?.out_of_memory().await
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        match self.live.get() {
            Some(live) => live.pids().await,
            None => Ok(Vec::new()),
        }
    }
}
