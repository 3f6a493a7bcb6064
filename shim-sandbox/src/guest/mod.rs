//! The half in the guest: the task service over the engine, and what the host asks for beside it.
//!
//! Everything comes over one line ([`channel`]). The host is trusted; containers are not, so nothing here
//! follows a name that one of them may have chosen.

mod backend;
mod bundle;
mod cmdline;
pub(crate) mod init;
mod memory;
mod modules;
mod net;
mod places;
mod port;
mod process;
mod service;
mod setup;
mod streams;
mod usage;

use std::{sync::Arc, time::Duration};

use shim_core::{Context, Result, TaskServer, model::Namespace};
use shim_protos::guest::create_guest;
use shim_runc::NativeBackend;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time,
};

use self::{backend::GuestBackend, memory::Kills, service::GuestService};
use crate::channel::{self, Word, greet_host};

pub(crate) use self::{cmdline::WORD, port::NAME as PORT};
pub use self::{
    places::Places,
    process::{SUBCOMMAND, run_as_process},
};

/// The namespace of all containers in a guest: containerd's own stays on the host.
const NAMESPACE: &str = "guest";

/// How long a host may take to hear that the machine ends.
const FAREWELL_LIMIT: Duration = Duration::from_millis(250);

/// What the agent runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A machine of its own.
    Machine,
    /// A process beside others: what is the whole machine's, as its clock is, is left as it is.
    Process,
}

/// Why an agent serves no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The host has asked for the end of the machine.
    PowerOff,
    /// The host is gone.
    Line,
}

/// Greets the host on a line, and serves it to the end. Called within a tokio runtime; the engine was made
/// at the beginning of `main`.
///
/// # Errors
/// When the line breaks before the greeting, or the engine can't be opened.
pub async fn serve(
    mut line: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    word: &Word,
    engine: NativeBackend,
    places: Places,
    ground: Ground,
) -> Result<Ended> {
    places.make()?;
    let (power_off, mut powered_off) = watch::channel(false);
    let kills = Kills::default();
    let service = GuestService::new(places.clone(), ground, kills.clone(), power_off);
    let namespace = Namespace::parse(NAMESPACE)?;
    let server = TaskServer::new(
        GuestBackend::new(engine, kills),
        namespace,
        create_guest(Arc::new(service)),
    )
    .context("open the engine")?;
    greet_host(&mut line, word).await?;
    let mut incoming = channel::guest(line);
    loop {
        let stream = tokio::select! {
            stream = incoming.next() => stream,
            _ = powered_off.wait_for(|is_off| *is_off) => {
                // The host closes the line once it has heard the answer.
                let closed = async { while incoming.next().await.is_some() {} };
                let _unheard = time::timeout(FAREWELL_LIMIT, closed).await;
                return Ok(Ended::PowerOff);
            }
        };
        let Some(stream) = stream else { return Ok(Ended::Line) };
        tokio::spawn(streams::take(stream, server.clone(), places.clone()));
    }
}
