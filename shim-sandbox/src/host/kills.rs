//! Wants of memory in a guest: the host asks for the next one, and waits.

use std::time::Duration;

use shim_protos::guest::OutOfMemoryRequest;
use tokio::{sync::watch, time};

use super::agent::Agent;

/// How often such news is asked for at the most: a guest could make it up.
const KILLS_PAUSE: Duration = Duration::from_millis(100);

/// Wants of memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kills {
    pub(super) count: u64,
    /// No more will come.
    pub(super) ended: bool,
}

/// Follows the wants of memory of a container to its end.
pub(super) fn watch(agent: Agent, id: String) -> watch::Receiver<Kills> {
    let (tell, kills) = watch::channel(Kills::default());
    tokio::spawn(async move {
        let mut told = 0;
        loop {
            let request = OutOfMemoryRequest { id: id.clone(), told, ..Default::default() };
            let answered = agent.call("watch the memory", None, |it, context| async move {
                it.guest.out_of_memory(context, &request).await
            });
            let Ok(said) = answered.await else { break };
            told = told.max(said.count);
            tell.send_replace(Kills { count: told, ended: said.ended });
            if said.ended {
                break;
            }
            time::sleep(KILLS_PAUSE).await;
        }
        tell.send_modify(|kills| kills.ended = true);
    });
    kills
}
