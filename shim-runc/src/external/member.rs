//! A container in the process of another, as gVisor has all but the first of a pod.
//!
//! The host knows no process of it: its pid is the sandbox's, and how it ends is told by a command that
//! runs as long as it does. It takes its streams at its start, not when it is created, as the first of
//! a pod does.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde::Deserialize;
use shim_core::{
    Error, Result, Streams,
    backend::ExitFuture,
    model::{ContainerId, Exit, ExitStatus, Signal},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    cli,
    command::{Caller, Io},
    life::until_end,
};

/// How long after the end of the sandbox its answer may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// When a command that should have told the end is run once more.
const AGAIN: Duration = Duration::from_secs(1);

/// What the sandbox's end does to those in it.
const WITH_THE_SANDBOX: ExitStatus = ExitStatus::Signal(Signal::KILL);

/// A container in the process of another.
#[derive(Debug)]
pub(super) struct Member {
    /// What it gets at its start.
    streams: Mutex<Option<Streams>>,
    fate: watch::Sender<Fate>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Created,
    Started,
    Ended(ExitStatus),
}

impl Member {
    /// One that is created, and gets these streams at its start.
    pub(super) fn new(streams: Option<Streams>) -> Self {
        Self { streams: Mutex::new(streams), fate: watch::channel(Fate::Created).0 }
    }

    /// What its start is to pass on.
    pub(super) fn take_streams(&self) -> Io {
        self.streams().take().map_or(Io::Kept, Io::Passed)
    }

    /// It runs, or has run: now its end can be asked for.
    pub(super) fn has_started(&self) {
        self.fate.send_if_modified(|fate| {
            let is_new = *fate == Fate::Created;
            if is_new {
                *fate = Fate::Started;
            }
            is_new
        });
    }

    /// It does not run any more, or never will.
    pub(super) fn end(&self, status: ExitStatus) {
        // Streams that nobody takes are closed: who reads them waits for that.
        self.streams().take();
        self.fate.send_if_modified(|fate| {
            let is_new = !matches!(fate, Fate::Ended(_));
            if is_new {
                *fate = Fate::Ended(status);
            }
            is_new
        });
    }

    pub(super) fn is_created(&self) -> bool {
        *self.fate.borrow() == Fate::Created
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.fate.borrow(), Fate::Ended(_))
    }

    /// Waits for the end.
    pub(super) async fn until_end(&self) {
        let mut fate = self.fate.subscribe();
        // The sender lives as long as this.
        let _ = fate.wait_for(|fate| matches!(fate, Fate::Ended(_))).await;
    }

    /// Tells the end, by itself or with the sandbox, whose pidfd is given.
    pub(super) fn exit(
        self: Arc<Self>,
        caller: Caller,
        id: ContainerId,
        sandbox: OwnedFd,
    ) -> ExitFuture {
        Box::pin(async move {
            let mut fate = self.fate.subscribe();
            let begun =
                async { fate.wait_for(|fate| *fate != Fate::Created).await.map(|fate| *fate) };
            let status = tokio::select! {
                biased;
                begun = begun => match begun {
                    Ok(Fate::Ended(status)) => status,
                    _ => told(&caller, &id, &sandbox).await,
                },
                () = until_end(&sandbox) => WITH_THE_SANDBOX,
            };
            self.end(status);
            Exit::now(status)
        })
    }

    fn streams(&self) -> MutexGuard<'_, Option<Streams>> {
        self.streams.lock().expect("nobody panics with it locked")
    }
}

/// Has the runtime wait for the end of a container that has been started.
async fn told(caller: &Caller, id: &ContainerId, sandbox: &OwnedFd) -> ExitStatus {
    loop {
        let asked = caller.call(cli::wait(id), Io::Kept);
        tokio::pin!(asked);
        let answer = tokio::select! {
            biased;
            answer = &mut asked => answer,
            // It may have an answer yet: the first container ends after the others.
            () = until_end(sandbox) => match timeout(LAST_WORD, asked).await {
                Ok(Ok(text)) => Ok(text),
                _ => return WITH_THE_SANDBOX,
            },
        };
        match answer.and_then(|text| status(&text)) {
            Ok(status) => return status,
            Err(err) => log::debug!("wait for {id}: {err:#}"),
        }
        if !caller.runtime.knows(id) {
            return ExitStatus::Unknown;
        }
        tokio::select! {
            () = until_end(sandbox) => return WITH_THE_SANDBOX,
            () = sleep(AGAIN) => {}
        }
    }
}

/// What `wait` prints.
fn status(text: &str) -> Result<ExitStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Waited {
        exit_status: u8,
    }
    let waited: Waited = serde_json::from_str(text.trim())
        .map_err(|err| Error::other(format!("the runtime tells of an end {text:?}: {err}")))?;
    // A signal comes as a shell has it, and so it goes on the wire.
    Ok(ExitStatus::Code(waited.exit_status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_by_its_number() {
        assert_eq!(status("{\"id\":\"c1\",\"exitStatus\":7}\n").unwrap(), ExitStatus::Code(7));
        for bad in ["", "{}", "{\"exitStatus\":256}", "nonsense"] {
            assert!(status(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_end_is_the_first_that_is_told() {
        let member = Member::new(None);
        assert!(member.is_created());
        member.has_started();
        assert!(!member.is_created() && !member.has_ended());
        member.end(ExitStatus::Code(3));
        member.end(ExitStatus::Unknown);
        member.has_started();
        assert_eq!(*member.fate.borrow(), Fate::Ended(ExitStatus::Code(3)));
    }
}
