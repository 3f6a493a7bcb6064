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

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    }

    #[test]
    fn a_call_is_not_begun_after_a_request_and_not_broken_off_by_it() {
        run(async {
            let (request, requested) = watch::channel(false);
            let stop = Stop::new(requested);
            let call = async {
                request.send(true)?;
                tokio::task::yield_now().await;
                anyhow::Ok(7)
            };
            assert_eq!(stop.unless("create", Duration::MAX, call).await.unwrap(), 7);
            let refused = stop.unless("start", Duration::MAX, async { anyhow::Ok(()) }).await;
            assert_eq!(refused.unwrap_err().to_string(), "start: interrupted");
        });
    }

    #[test]
    fn what_takes_its_time_is_broken_off() {
        run(async {
            let (request, requested) = watch::channel(false);
            let stop = Stop::new(requested);
            let forever = std::future::pending::<()>();
            let (ended, sent) = tokio::join!(stop.or("pause", Duration::MAX, forever), async {
                request.send(true)
            });
            sent.unwrap();
            assert_eq!(ended.unwrap_err().to_string(), "pause: interrupted");
            drop(request);
        });
    }

    #[test]
    fn nothing_takes_longer_than_its_limit() {
        run(async {
            let (_request, requested) = watch::channel(false);
            let stop = Stop::new(requested);
            let long = stop.or("streams", Duration::ZERO, std::future::pending::<()>()).await;
            assert!(long.unwrap_err().to_string().starts_with("streams: not done"));
        });
    }
}
