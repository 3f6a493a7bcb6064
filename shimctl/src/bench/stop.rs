//! A request to end early, as by ^C.
//!
//! A call to a shim that is torn in half may leave a container half made. So a request is looked at
//! between two calls; only what takes its time by design is broken off.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::watch;
use tokio::time::timeout;

/// Whether to end early. Clones are of one request.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    requested: watch::Receiver<bool>,
}

impl Stop {
    /// A request that will be made when `true` is sent.
    pub(crate) fn new(requested: watch::Receiver<bool>) -> Self {
        Self { requested }
    }

    /// Does one call, unless a stop has been requested.
    ///
    /// # Errors
    /// When one has been, or when the call fails or takes longer than the limit.
    pub(super) async fn unless<T, E: Into<anyhow::Error>>(
        &self,
        what: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        if *self.requested.borrow() {
            bail!("{what}: interrupted");
        }
        match timeout(limit, call).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => bail!("{what}: no answer within {limit:?}"),
        }
    }

    /// Does what takes its time, up to its end or a request.
    ///
    /// # Errors
    /// When a stop is requested, or when it takes longer than the limit.
    pub(super) async fn or<T>(
        &self,
        what: &str,
        limit: Duration,
        long: impl Future<Output = T>,
    ) -> Result<T> {
        let mut requested = self.requested.clone();
        let request = async move {
            // Without a sender there is nobody left to make one.
            if requested.wait_for(|requested| *requested).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            done = long => Ok(done),
            () = request => bail!("{what}: interrupted"),
            () = tokio::time::sleep(limit) => bail!("{what}: not done after {limit:?}"),
        }
    }
}
