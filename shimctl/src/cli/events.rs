//! `shimctl events`: serves the events socket of detached containers and shows what arrives.

use anyhow::Result;
use shim_client::EventServer;

use crate::session::Signals;

use super::{Global, print};

/// Show what shims publish, one JSON object a line, until interrupted
///
/// Detached containers publish here; containers in the foreground do as long as this runs. What
/// they publish while nobody listens is lost, or comes late: shims retry for a while.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) async fn events(global: &Global) -> Result<u8> {
    let store = global.store()?;
    let mut signals = Signals::catch()?;
    let mut server = EventServer::bind(&store.events_socket()).await?;
    log::debug!("listening at {}", server.path().display());
    loop {
        tokio::select! {
            events = server.take() => {
                for event in events {
                    print::line(&event.to_json().to_string())?;
                }
            }
            () = signals.end() => break,
        }
    }
    server.close().await;
    Ok(0)
}
