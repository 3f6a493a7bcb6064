//! The world of one case: a containerd for the shim to see, and a clean-up that tells what was left.

mod ask;
mod calls;
pub(crate) mod cgroup;
mod guest;
pub(crate) mod leaks;
mod output;
mod pod;
pub(crate) mod procs;
mod restart;
mod shell;
pub(crate) mod signals;
mod together;

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shim_client::{
    Answer, Bundle, Daemon, Event, EventServer, Generation, Limits, LogTo, Output, Rootfs, Shim,
    SpecBuilder, execute,
};
use shim_protos::task::DeleteResponse;
use shim_protos::types::Mount;

pub(crate) use self::ask::{Ask, Io};
pub(crate) use self::calls::process_any;
pub(crate) use self::guest::{ExecIo, Guest, PATIENCE, open_fifo, waiting_bytes};
pub(crate) use self::output::Captured;
pub(crate) use self::pod::Pod;
pub(crate) use self::together::together;
use crate::suite::Subject;

/// How long the suite waits for what has to come soon.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// What a container executes that only has to be there.
pub(crate) const SLEEP: [&str; 2] = ["sleep", "1000"];

/// The world of one case.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) subject: Subject,
    pub(crate) generation: Generation,
    /// Everything that the case writes is below.
    pub(crate) folder: PathBuf,
    daemon: RefCell<Daemon>,
    events: RefCell<Option<EventServer>>,
    /// Events of servers that have been stopped.
    earlier: RefCell<Vec<Event>>,
    guests: RefCell<Vec<Rc<Guest>>>,
    pods: RefCell<Vec<Rc<Pod>>>,
    bundles: RefCell<Vec<Bundle>>,
    /// The bundles' logs, held open as containerd does: so a shim that opens one never waits.
    logs: RefCell<Vec<File>>,
    /// What shims answered that a case has started by hand.
    answers: RefCell<Vec<(Bundle, Answer)>>,
    names: Cell<usize>,
}

impl Lab {
    pub(crate) async fn open(
        subject: &Subject,
        generation: Generation,
        parent: &Path,
        number: usize,
    ) -> Result<Self> {
        let folder = parent.join(number.to_string());
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let daemon = Daemon {
            generation,
            // A namespace of its own makes cgroups and sockets of its own.
            namespace: format!("conform-{}-{number}", std::process::id()),
            grpc_address: folder.join("c.sock"),
            ttrpc_address: folder.join("c.sock.ttrpc"),
            publish_binary: std::env::current_exe().context("find our own executable")?,
            socket_dir: Some(folder.join("s")),
            debug: false,
            log: LogTo::File(folder.join("shim.log")),
            limits: Limits { start: Duration::from_secs(15), ..Limits::default() },
        };
        let events = EventServer::bind(&daemon.ttrpc_address).await?;
        Ok(Self {
            subject: subject.clone(),
            generation,
            folder,
            daemon: RefCell::new(daemon),
            events: RefCell::new(Some(events)),
            earlier: RefCell::default(),
            guests: RefCell::default(),
            pods: RefCell::default(),
            bundles: RefCell::default(),
            logs: RefCell::default(),
            answers: RefCell::default(),
            names: Cell::default(),
        })
    }

    /// The containerd that shims are started by.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon.borrow().clone()
    }

    /// Changes the containerd for shims that are started from now on.
    pub(crate) fn change_daemon(&self, change: impl FnOnce(&mut Daemon)) {
        change(&mut self.daemon.borrow_mut());
    }

    /// A name that the case has not used yet.
    pub(crate) fn name(&self, stem: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{stem}{}", self.names.get())
    }

    /// containerd's default spec for a container of that id.
    pub(crate) fn spec(&self, id: &str, args: &[&str]) -> SpecBuilder {
        SpecBuilder::new(&self.daemon.borrow().namespace, id).args(args)
    }

    /// What makes a root filesystem for that container: the host's own, below an overlay.
    pub(crate) fn rootfs(&self, id: &str) -> Result<Vec<Mount>> {
        Rootfs::Host.mounts(&self.folder.join("rootfs").join(id))
    }

    /// A bundle with that spec; none leaves `config.json` out.
    pub(crate) fn bundle(&self, id: &str, spec: Option<&serde_json::Value>) -> Result<Bundle> {
        self.bundle_below(&self.folder.join("bundles"), id, spec)
    }

    fn bundle_below(
        &self,
        parent: &Path,
        id: &str,
        spec: Option<&serde_json::Value>,
    ) -> Result<Bundle> {
        let bundle = Bundle::create(parent, id, &self.folder.join("work").join(id), spec)?;
        self.logs.borrow_mut().push(open_fifo(&bundle.log())?);
        self.bundles.borrow_mut().push(bundle.clone());
        Ok(bundle)
    }

    /// A shim that has been started and has no container yet.
    pub(crate) async fn bare(&self, args: &[&str]) -> Result<Rc<Guest>> {
        self.prepare(Ask::new(args)).await
    }

    /// A container with its streams at `/dev/null`, created and not started.
    pub(crate) async fn created(&self, args: &[&str]) -> Result<Rc<Guest>> {
        self.create(Ask::new(args)).await
    }

    /// The same, started.
    pub(crate) async fn running(&self, args: &[&str]) -> Result<Rc<Guest>> {
        self.run(Ask::new(args)).await
    }

    /// The shim for what is asked, started.
    pub(crate) async fn prepare(&self, ask: Ask) -> Result<Rc<Guest>> {
        let id = ask.id.clone().unwrap_or_else(|| self.name("c"));
        let spec = ask.spec(self, &id);
        let bundle = self.bundle(&id, Some(&spec))?;
        let daemon = self.daemon();
        let options = self.subject.options.clone();
        let shim = Shim::start(&daemon, &self.subject.binary, &bundle, options.as_ref()).await?;
        let guest = Rc::new(Guest::new(shim, spec, ask, options, self)?);
        self.guests.borrow_mut().push(Rc::clone(&guest));
        Ok(guest)
    }

    /// The container that is asked for, created and not started.
    pub(crate) async fn create(&self, ask: Ask) -> Result<Rc<Guest>> {
        let guest = self.prepare(ask).await?;
        guest.create().await?;
        Ok(guest)
    }

    /// The same, started.
    pub(crate) async fn run(&self, ask: Ask) -> Result<Rc<Guest>> {
        let guest = self.create(ask).await?;
        guest.start("").await?;
        Ok(guest)
    }

    /// Executes `start` in a bundle as containerd does, with this on stdin; nothing of its outcome
    /// is interpreted.
    pub(crate) async fn raw_start(
        &self,
        bundle: &Bundle,
        input: Option<Vec<u8>>,
    ) -> Result<Output> {
        let daemon = self.daemon();
        let started =
            execute::raw(&daemon, &self.subject.binary, bundle, &["start"], input).await?;
        if let Ok(answer) = Answer::parse(self.generation, &started.stdout) {
            self.answered(bundle, answer);
        }
        Ok(started)
    }

    /// Notes what a shim answered that a case has started by hand, to end it in good order.
    pub(crate) fn answered(&self, bundle: &Bundle, answer: Answer) {
        self.answers.borrow_mut().push((bundle.clone(), answer));
    }

    /// Executes `delete` for a bundle as containerd does, in five seconds.
    pub(crate) async fn clean_up(&self, bundle: &Bundle) -> Result<DeleteResponse> {
        let daemon = self.daemon();
        procs::while_reaping(execute::delete(&daemon, &self.subject.binary, bundle)).await
    }

    /// What `start` of this generation gets on stdin.
    pub(crate) fn start_input(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let options = self.subject.options.as_ref();
        execute::start_input(&self.daemon(), &self.subject.binary, id, options)
    }

    /// All events so far, in the order of their arrival.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = self.earlier.borrow().clone();
        events.extend(self.events.borrow().iter().flat_map(EventServer::received));
        events
    }

    /// The topics of a container's events, without `/tasks/`, and the exec that each is about:
    /// `create`, `exec-added e1`, `exit e1`, `exit`.
    pub(crate) fn topics(&self, id: &str) -> Vec<String> {
        self.events().iter().filter_map(|event| topic_of(event, id)).collect()
    }

    /// How many of a container's events are that one.
    pub(crate) fn count_topic(&self, id: &str, topic: &str) -> usize {
        self.topics(id).iter().filter(|one| *one == topic).count()
    }

    /// Waits until a container's events are these, in this order.
    pub(crate) async fn expect_topics(&self, id: &str, expected: &[&str]) -> Result<()> {
        let is = || self.topics(id) == expected;
        if eventually(SOON, is).await {
            return Ok(());
        }
        bail!("expected the events {expected:?} of {id}, got {:?}", self.topics(id))
    }

    /// Waits for a container's event.
    pub(crate) async fn expect_topic(&self, id: &str, topic: &str) -> Result<()> {
        let is = || self.topics(id).iter().any(|one| one == topic);
        if eventually(SOON, is).await {
            return Ok(());
        }
        bail!("expected the event {topic:?} of {id}, got {:?}", self.topics(id))
    }

    /// Ends the events service, as a containerd that stops.
    pub(crate) async fn stop_events(&self) {
        let server = self.events.borrow_mut().take();
        if let Some(server) = server {
            self.earlier.borrow_mut().extend(server.received());
            server.close().await;
        }
    }

    /// Serves events again.
    pub(crate) async fn resume_events(&self) -> Result<()> {
        let path = self.daemon.borrow().ttrpc_address.clone();
        let server = EventServer::bind(&path).await?;
        self.events.borrow_mut().replace(server);
        Ok(())
    }

    /// Ends every container and shim in good order, and tells what is left then; that is removed.
    pub(crate) async fn close(self) -> Result<Vec<String>> {
        if self.events.borrow().is_none() {
            self.resume_events().await?;
        }
        let guests = self.guests.take();
        for guest in &guests {
            guest.end().await;
        }
        drop(guests);
        for pod in self.pods.take() {
            pod.end().await;
        }
        let daemon = self.daemon();
        let binary = &self.subject.binary;
        for (bundle, answer) in self.answers.take() {
            if let Ok(shim) = Shim::connect(&daemon, binary, &bundle, answer).await
                && let Err(error) = shim.clean_up().await
            {
                log::debug!("clean up {}: {error:#}", bundle.id());
            }
        }
        for bundle in self.bundles.take() {
            if bundle.path().exists() {
                // `delete` has to cope with whatever state a case left it in.
                let delete = execute::delete(&daemon, binary, &bundle);
                if let Err(error) = procs::while_reaping(delete).await {
                    log::debug!("delete {}: {error:#}", bundle.id());
                }
                bundle.remove()?;
            }
        }
        let left = leaks::settle(&self.folder, &daemon.namespace).await;
        leaks::remove(&self.folder, &daemon.namespace).await;
        drop(self.events.take());
        fs::remove_dir_all(&self.folder)
            .with_context(|| format!("remove {}", self.folder.display()))?;
        Ok(left)
    }
}

fn topic_of(event: &Event, id: &str) -> Option<String> {
    let told = event.to_json();
    let payload = &told["event"];
    if payload["container_id"] != id {
        return None;
    }
    let topic = event.topic.strip_prefix("/tasks/").unwrap_or(&event.topic);
    let exec = payload["exec_id"].as_str().or_else(|| payload["id"].as_str()).unwrap_or_default();
    let of_init = exec.is_empty() || exec == id;
    Some(if of_init { topic.to_owned() } else { format!("{topic} {exec}") })
}

/// Waits for a condition that nothing tells of; false when it does not come in time.
pub(crate) async fn eventually(limit: Duration, mut is: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    while !is() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    true
}
