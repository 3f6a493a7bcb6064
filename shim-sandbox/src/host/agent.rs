//! The guest's agent, as the host calls it.
//!
//! Each call is a task of its own: the ttrpc client gives its connection up when a request is dropped while
//! it is being sent. Each has a time limit, and none outlives the agent: once that is dead, for whatever
//! reason, everybody who waits hears so.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shim_core::{Context, Error, Kind, Result};
use shim_protos::{
    guest::{
        GuestClient, HelloRequest, HelloResponse, OnlineRequest, OnlineResponse, PowerOffRequest,
        SetTimeRequest, SetupRequest, StatsRequest, StatsResponse,
    },
    task::TaskClient,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time,
};
use ttrpc::{
    asynchronous::{Client, transport::Socket},
    context,
};

use super::answer;
use crate::{
    Build,
    channel::{self, Opener, Purpose, Stream, Word, greet_guest},
};

/// What a call may take that only asks or changes a number.
pub(super) const SHORT: Duration = Duration::from_secs(10);

/// What a call may take that makes or removes something.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// What the line itself may take longer than a call: the guest is to be heard when it gives up.
const SLACK: Duration = Duration::from_secs(5);

/// How often a live agent is asked whether it is.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// The time between two questions, and for each answer.
    pub every: Duration,
    /// How many answers in line may be missing before the agent is taken for dead.
    pub misses: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { every: Duration::from_secs(5), misses: 3 }
    }
}

/// The agent in a guest. Clones are the same.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    clients: Clients,
    /// What the guest's half has to be.
    build: Build,
    /// Taken when the agent is dead: with the last of it the line ends.
    opener: Mutex<Option<Opener>>,
    /// Why the agent is dead, once it is.
    dead: watch::Sender<Option<String>>,
    /// Where the guest has its folders. It is said back to the guest alone.
    root: OnceLock<String>,
    /// Numbers streams.
    streams: AtomicU64,
}

/// What calls are made on.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) task: TaskClient,
    pub(super) guest: GuestClient,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("dead", &*self.shared.dead.borrow()).finish_non_exhaustive()
    }
}

impl Agent {
    /// Greets the agent at the other end of a line, and learns what it is. Whoever calls this has a limit
    /// for it: a guest that boots says nothing for a while.
    ///
    /// # Errors
    /// When the line breaks, or who is there is not of this boot or not of this build.
    pub async fn greet(
        mut line: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        word: &Word,
        build: Build,
        health: Health,
    ) -> Result<(Self, HelloResponse)> {
        greet_guest(&mut line, word).await?;
        let opener = channel::host(line);
        let calls = channel::open(&opener, &Purpose::Calls);
        let calls = time::timeout(SHORT, calls).await.map_err(|_| late("open calls", SHORT))??;
        let client = Client::new(Socket::new(calls));
        let clients =
            Clients { task: TaskClient::new(client.clone()), guest: GuestClient::new(client) };
        let agent = Self {
            shared: Arc::new(Shared {
                clients,
                build,
                opener: Mutex::new(Some(opener.clone())),
                dead: watch::Sender::new(None),
                root: OnceLock::new(),
                streams: AtomicU64::new(1),
            }),
        };
        let hello = agent.hello(SHORT).await?;
        agent.shared.build.check(&answer::text(&hello.build))?;
        agent.shared.root.get_or_init(|| answer::text(&hello.root));
        agent.watch(opener, health);
        Ok((agent, hello))
    }

    /// Waits until the agent is dead, and says why.
    pub async fn dead(&self) -> String {
        let mut dead = self.shared.dead.subscribe();
        let why = dead.wait_for(Option::is_some).await;
        why.ok().and_then(|why| why.clone()).unwrap_or_default()
    }

    /// Whether it is.
    pub fn is_dead(&self) -> bool {
        self.shared.dead.borrow().is_some()
    }

    /// Takes the agent for dead, as when its machine is: whatever waits for it ends now.
    pub fn end(&self, why: impl Into<String>) {
        self.shared.dead.send_if_modified(|dead| {
            let is_news = dead.is_none();
            if is_news {
                *dead = Some(why.into());
            }
            is_news
        });
        drop(self.opener().take());
    }

    /// Makes the guest the pod that it is to be.
    ///
    /// # Errors
    /// What the guest says; half of it may be done.
    pub async fn setup(&self, request: SetupRequest) -> Result<()> {
        let set_up = self.call("set the guest up", Some(LONG), |it, context| async move {
            it.guest.setup(context, &request).await
        });
        set_up.await.map(drop)
    }

    /// Brings processors online, up to a number, and all memory.
    ///
    /// # Errors
    /// What the guest says.
    pub async fn online(&self, processors: u32) -> Result<OnlineResponse> {
        let request = OnlineRequest { processors, ..Default::default() };
        self.call("bring processors online", Some(SHORT), |it, context| async move {
            it.guest.online(context, &request).await
        })
        .await
    }

    /// Sets the guest's clock to nanoseconds since 1970.
    ///
    /// # Errors
    /// What the guest says.
    pub async fn set_time(&self, time: i64) -> Result<()> {
        let request = SetTimeRequest { time, ..Default::default() };
        let set = self.call("set the clock", Some(SHORT), |it, context| async move {
            it.guest.set_time(context, &request).await
        });
        set.await.map(drop)
    }

    /// Uses of the guest as a whole.
    ///
    /// # Errors
    /// What the guest says.
    pub async fn usage(&self) -> Result<StatsResponse> {
        self.call("read the guest's uses", Some(SHORT), |it, context| async move {
            it.guest.stats(context, &StatsRequest::new()).await
        })
        .await
    }

    /// Asks the guest to end, and takes it for dead then.
    ///
    /// # Errors
    /// When it does not hear.
    pub async fn power_off(&self) -> Result<()> {
        let off = self.call("power the guest off", Some(SHORT), |it, context| async move {
            it.guest.power_off(context, &PowerOffRequest::new()).await
        });
        off.await?;
        self.end("it was powered off");
        Ok(())
    }

    /// Connects to a port of the guest's loopback.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn dial(&self, port: u16) -> Result<Stream> {
        self.open(Purpose::Dial(port)).await
    }

    /// Where the guest has its folders, as it says: for paths of the guest's alone.
    pub fn root(&self) -> &str {
        self.shared.root.get().map_or("", String::as_str)
    }

    /// A name for a stream that no other has.
    pub(super) fn stream_name(&self) -> String {
        format!("s{}", self.shared.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens a stream.
    pub(super) async fn open(&self, purpose: Purpose) -> Result<Stream> {
        let opener = self.opener().clone();
        let opener = opener.ok_or_else(|| self.gone())?;
        tokio::select! {
            opened = time::timeout(SHORT, channel::open(&opener, &purpose)) => {
                opened.map_err(|_| late("open a stream", SHORT))?.map_err(|err| {
                    // The guest's own words are among it.
                    Error::new(err.kind(), answer::text(&format!("{err:#}")))
                })
            }
            _ = self.dead() => Err(self.gone()),
        }
    }

    /// Calls the guest. The call goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// What the guest says; `TimedOut` when it says nothing for so long, `Unavailable` when it is dead.
    pub(super) async fn call<T, F>(
        &self,
        what: &'static str,
        limit: Option<Duration>,
        call: impl FnOnce(Clients, context::Context) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = ttrpc::Result<T>> + Send + 'static,
    {
        if self.is_dead() {
            return Err(self.gone()).context(what);
        }
        let context = limit
            .map_or_else(context::Context::default, |limit| context::with_duration(limit + SLACK));
        let answered = tokio::spawn(call(self.shared.clients.clone(), context));
        let limited = async {
            match limit {
                Some(limit) => time::timeout(limit, answered).await.map_err(|_| late(what, limit)),
                None => Ok(answered.await),
            }
        };
        let answered = tokio::select! {
            answered = limited => answered?,
            _ = self.dead() => return Err(self.gone()).context(what),
        };
        let answered = answered.map_err(|err| Error::other(format!("{what}: {err}")))?;
        answered.map_err(|err| {
            // A refusal is an answer. After anything else the connection is of no more use.
            if !matches!(err, ttrpc::Error::RpcStatus(_)) {
                self.end(format!("{what}: {}", answer::text(&err.to_string())));
            }
            answer::error(err)
        })
    }

    /// Says that the agent is dead, and why.
    pub(super) fn gone(&self) -> Error {
        let why = self.shared.dead.borrow().clone().unwrap_or_default();
        Error::new(Kind::Unavailable, format!("the guest is gone: {why}"))
    }

    async fn hello(&self, limit: Duration) -> Result<HelloResponse> {
        let request =
            HelloRequest { build: self.shared.build.as_str().to_owned(), ..Default::default() };
        self.call("ask who is there", Some(limit), |it, context| async move {
            it.guest.hello(context, &request).await
        })
        .await
    }

    /// Takes the agent for dead when its line ends or it does not answer. Ends with the agent's last clone,
    /// too.
    fn watch(&self, opener: Opener, health: Health) {
        let weak = Arc::downgrade(&self.shared);
        let mut dead = self.shared.dead.subscribe();
        let line = opener.ended();
        drop(opener);
        tokio::spawn(async move {
            let asking = async {
                let mut misses = 0;
                while misses < health.misses {
                    time::sleep(health.every).await;
                    let agent = Self { shared: weak.upgrade()? };
                    match agent.hello(health.every).await {
                        Ok(_) => misses = 0,
                        Err(err) => {
                            misses += 1;
                            log::warn!("the guest has missed {misses} questions: {err:#}");
                        }
                    }
                }
                Some(format!("it has not answered {misses} questions"))
            };
            let why = tokio::select! {
                why = line => Some(why),
                why = asking => why,
                _ = dead.wait_for(Option::is_some) => None,
            };
            if let (Some(why), Some(shared)) = (why, weak.upgrade()) {
                Self { shared }.end(why);
            }
        });
    }

    fn opener(&self) -> MutexGuard<'_, Option<Opener>> {
        self.shared.opener.lock().expect("nobody panics with it locked")
    }
}

fn late(what: &str, limit: Duration) -> Error {
    Error::new(Kind::TimedOut, format!("{what}: the guest has not answered for {limit:?}"))
}
