//! Several things at once, in one thread.

use std::future::poll_fn;
use std::task::Poll;

/// Does all of these at once, and tells their outcomes in the order of the list.
pub(crate) async fn together<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    poll_fn(|context| {
        for (one, outcome) in &mut running {
            if outcome.is_none()
                && let Poll::Ready(ready) = one.as_mut().poll(context)
            {
                *outcome = Some(ready);
            }
        }
        let over = running.iter().all(|(_, outcome)| outcome.is_some());
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, outcome)| outcome).collect()
}
