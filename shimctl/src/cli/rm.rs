//! `shimctl rm`: deletes a container, ends its shim and removes what is left.

use anyhow::{Context, Result};
use nix::unistd::setsid;
use shim_client::clean_up_dead;

use super::{Found, Global};

/// Remove a container that has ended
///
/// Also cleans up after a shim that died, and after a shimctl that was killed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  shimctl rm web
  shimctl rm -f web           whatever it is doing
  shimctl rm --wait web       as soon as it ends")]
pub(super) struct Arguments {
    /// The container
    id: String,
    /// Kill it first
    #[arg(short, long)]
    force: bool,
    /// Wait for its end first
    #[arg(long, conflicts_with = "force")]
    wait: bool,
    /// Leave the session of whoever started this, as `run -d --rm` does
    #[arg(long, hide = true)]
    background: bool,
}

pub(super) async fn rm(global: &Global, arguments: &Arguments) -> Result<u8> {
    if arguments.background {
        // So that the end of a terminal, or of its user's session, does not end this too.
        setsid().context("start a session")?;
    }
    let store = global.store()?;
    let id = &arguments.id;
    match Found::find(global, &store, id) {
        Ok(found) => remove(&found, arguments).await?,
        // A shimctl that was killed early may have left a folder without a record.
        Err(error) if arguments.force && store.is_claimed(id) => log::debug!("{error:#}"),
        Err(error) => return Err(error),
    }
    store.forget(id)?;
    Ok(0)
}

async fn remove(found: &Found, arguments: &Arguments) -> Result<()> {
    let container = match found.connect().await {
        Ok(container) => container,
        Err(error) => {
            log::debug!("{error:#}");
            return clean_up(found, arguments).await;
        }
    };
    if arguments.force {
        return match container.remove_by_force().await {
            // The shim may have failed to clean up, but then it is gone, and the bundle with it.
            Err(error) if !found.bundle.path().exists() => {
                log::warn!("{error:#}");
                Ok(())
            }
            removed => removed,
        };
    }
    if arguments.wait {
        container.wait("").await.context("wait")??;
    }
    let id = &arguments.id;
    container
        .remove()
        .await
        .with_context(|| format!("{id} cannot be removed yet; -f kills it first"))
}

async fn clean_up(found: &Found, arguments: &Arguments) -> Result<()> {
    if !found.bundle.path().exists() {
        return Ok(());
    }
    match clean_up_dead(&found.daemon, &found.binary, &found.bundle).await {
        Ok(ended) => {
            log::debug!("the shim was gone; its clean-up says exit {}", ended.exit_status);
            Ok(())
        }
        // A shim may be too dead even for that; what we know of it can still go.
        Err(error) if arguments.force => {
            log::warn!("{error:#}");
            Ok(())
        }
        Err(error) => Err(error.context("try rm -f")),
    }
}
