//! Sends events to containerd: in order, again and again until they arrive, and never in anybody's
//! way.
//!
//! One task sends the head of the queue and nothing else, so no later event overtakes one that
//! has to be sent again (containerd's own shim lets it). containerd may be gone for long: the queue
//! is bounded, and past the bound the oldest goes, since containerd asks for the state of every task
//! when it comes back.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use shim_protos::{
    forward::{Envelope, EventsClient, ForwardRequest},
    protobuf::MessageField,
};
use tokio::{sync::Notify, time};
use ttrpc::{r#async::Client, context};

use super::Event;
use crate::{error::Error, model::Namespace, service::convert};

/// How many events wait for a containerd that is away: some hours of a quiet pod.
const BOUND: usize = 2048;
/// containerd's own limit for one event.
const SEND_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The queue to containerd. Clones are the same queue.
#[derive(Clone)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something is there to send.
    filled: Notify,
    /// Nothing is left to send.
    emptied: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Envelope>,
    /// One has been taken out and is not sent yet.
    sending: bool,
    lost: u64,
    /// Nobody will ever empty it.
    is_unheard: bool,
}

impl Publisher {
    /// A queue that nobody empties yet.
    pub(crate) fn new() -> Self {
        let shared =
            Shared { queue: Mutex::default(), filled: Notify::new(), emptied: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Queues an event. Returns at once.
    pub(crate) fn publish(&self, namespace: &Namespace, event: &Event) {
        log::debug!("publish {} {event:?}", event.topic());
        let envelope = Envelope {
            timestamp: MessageField::some(convert::timestamp(SystemTime::now())),
            namespace: namespace.to_string(),
            topic: event.topic().to_owned(),
            event: MessageField::some(event.to_any()),
            ..Default::default()
        };
        let mut queue = self.queue();
        if queue.is_unheard {
            return;
        }
        if queue.waiting.len() == BOUND {
            queue.waiting.pop_front();
            queue.lost += 1;
        }
        queue.waiting.push_back(envelope);
        drop(queue);
        self.shared.filled.notify_one();
    }

    /// A queue that stays empty.
    pub(crate) fn to_nobody() -> Self {
        let publisher = Self::new();
        publisher.queue().is_unheard = true;
        publisher
    }

    /// Sends for as long as the shim lives.
    pub(crate) async fn send_to(self, address: String) {
        let mut connection = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(envelope) = self.take() else {
                self.shared.emptied.notify_waiters();
                self.shared.filled.notified().await;
                // Clients that wait for an answer come first.
                tokio::task::yield_now().await;
                continue;
            };
            while let Err(err) = forward(&mut connection, &address, &envelope).await {
                log::debug!("send an event: {err:#}");
                connection = None;
                time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            pause = FIRST_PAUSE;
        }
    }

    /// Waits until everything is sent, or until `limit` has passed.
    pub(crate) async fn flushed(&self, limit: Duration) {
        let empty = async {
            loop {
                let emptied = self.shared.emptied.notified();
                if self.queue().is_sent() {
                    return;
                }
                emptied.await;
            }
        };
        if time::timeout(limit, empty).await.is_err() {
            log::warn!("{} events were not sent", self.queue().waiting.len());
        }
    }

    /// Takes the oldest event, to be sent until it arrives.
    fn take(&self) -> Option<Envelope> {
        let mut queue = self.queue();
        if queue.lost > 0 {
            log::warn!("{} events were dropped while containerd was away", queue.lost);
            queue.lost = 0;
        }
        let head = queue.waiting.pop_front();
        queue.sending = head.is_some();
        head
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.shared.queue.lock().expect("nobody panics with the queue locked")
    }
}

impl Queue {
    fn is_sent(&self) -> bool {
        self.waiting.is_empty() && !self.sending
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("waiting", &self.queue().waiting.len()).finish()
    }
}

async fn forward(
    connection: &mut Option<EventsClient>,
    address: &str,
    envelope: &Envelope,
) -> Result<(), Error> {
    let events = match connection {
        Some(events) => events,
        None => {
            let address = match address.strip_prefix("unix://") {
                Some(_) => address.to_owned(),
                None => format!("unix://{address}"),
            };
            let client = Client::connect(&address).await.map_err(unavailable)?;
            connection.insert(EventsClient::new(client))
        }
    };
    let mut ctx = context::with_duration(SEND_LIMIT);
    ctx.add("containerd-namespace-ttrpc".to_owned(), envelope.namespace.clone());
    let request =
        ForwardRequest { envelope: MessageField::some(envelope.clone()), ..Default::default() };
    events.forward(ctx, &request).await.map_err(unavailable)?;
    Ok(())
}

fn unavailable(err: ttrpc::Error) -> Error {
    Error::new(crate::error::Kind::Unavailable, err.to_string())
}

#[cfg(test)]
impl Publisher {
    /// The topics of all events that wait to be sent.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.queue().waiting.iter().map(|envelope| envelope.topic.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ContainerId;

    #[test]
    fn past_the_bound_the_oldest_goes() {
        let publisher = Publisher::new();
        let namespace = Namespace::parse("ns").unwrap();
        let id = ContainerId::parse("c").unwrap();
        publisher.publish(&namespace, &Event::Paused { container: id.clone() });
        for _ in 0..BOUND {
            publisher.publish(&namespace, &Event::Resumed { container: id.clone() });
        }
        let topics = publisher.topics();
        assert_eq!(topics.len(), BOUND);
        assert!(topics.iter().all(|topic| topic == "/tasks/resumed"));
    }
}
