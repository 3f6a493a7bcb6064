//! How often the kernel has killed processes for want of memory, by container: the host asks and waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use shim_core::{Error, Result, model::ContainerId};
use tokio::sync::watch;

/// What is known of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) count: u64,
    /// Its init process has ended: no more will come.
    pub(super) ended: bool,
}

/// The kills of all containers. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Kills(Arc<Mutex<HashMap<ContainerId, Note>>>);

/// Where those of one container are noted. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Note(watch::Sender<Seen>);

impl Kills {
    /// Begins to note for a container.
    pub(super) fn begin(&self, id: &ContainerId) -> Note {
        let note = Note(watch::Sender::new(Seen::default()));
        self.notes().insert(id.clone(), note.clone());
        note
    }

    /// Forgets a container. Whoever waits hears that it has ended.
    pub(super) fn forget(&self, id: &ContainerId) {
        if let Some(note) = self.notes().remove(id) {
            note.end();
        }
    }

    /// Waits until there are more than were told, or the container has ended.
    ///
    /// # Errors
    /// `NotFound` for an unknown container.
    pub(super) async fn beyond(&self, id: &ContainerId, told: u64) -> Result<Seen> {
        let note = self.notes().get(id).map(|note| note.0.subscribe());
        let mut seen =
            note.ok_or_else(|| Error::not_found(format!("container {id} does not exist")))?;
        let news = seen.wait_for(|seen| seen.ended || seen.count > told).await;
        Ok(news.map_or(Seen { count: told, ended: true }, |seen| *seen))
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<ContainerId, Note>> {
        self.0.lock().expect("nobody panics with it locked")
    }
}

impl Note {
    pub(super) fn one_more(&self) {
        self.0.send_modify(|seen| seen.count += 1);
    }

    pub(super) fn end(&self) {
        self.0.send_modify(|seen| seen.ended = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_just_before_the_question_is_told_and_the_end_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (kills, id) = (Kills::default(), ContainerId::parse("c1").unwrap());
            assert!(kills.beyond(&id, 0).await.is_err());
            let note = kills.begin(&id);
            note.one_more();
            assert_eq!(kills.beyond(&id, 0).await.unwrap(), Seen { count: 1, ended: false });
            note.end();
            assert_eq!(kills.beyond(&id, 1).await.unwrap(), Seen { count: 1, ended: true });
            kills.forget(&id);
            assert!(kills.beyond(&id, 1).await.is_err());
        });
    }
}
