//! `shimctl kill`: sends a signal.

use anyhow::{Context, Result};
use shim_client::Whom;

use crate::values::parse_signal;

use super::{Found, Global};

/// Send a signal to a container's first process
///
/// That process ignores every signal that it does not handle itself, except KILL and STOP.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  shimctl kill web            SIGTERM
  shimctl kill web HUP
  shimctl kill --all web 9    every process of the container")]
pub(super) struct Arguments {
    /// The container
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "TERM", value_parser = parse_signal)]
    signal: u32,
    /// Signal every process of the container
    #[arg(long)]
    all: bool,
}

pub(super) async fn kill(global: &Global, arguments: &Arguments) -> Result<u8> {
    let store = global.store()?;
    let found = Found::find(global, &store, &arguments.id)?;
    let container = found.connect_alive().await?;
    let whom = if arguments.all { Whom::Everyone } else { Whom::Process };
    container
        .kill("", arguments.signal, whom)
        .await
        .with_context(|| format!("signal {} to {}", arguments.signal, arguments.id))?;
    Ok(0)
}
