//! Serving: the process that owns the containers, from its first system call to its last.

use std::{fs::File, io::Write, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use nix::sys::prctl;
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{accept::Callers, flags::Flags, socket::Socket, variable};
use crate::{
    backend::{Backend, Host},
    error::{Context, Result},
    event::{Herald, Publisher},
    lifecycle::Shim,
    linux::{Reaper, cgroup, sys},
    log as logs,
    model::{ContainerId, Namespace},
    service::{self, Server},
};

/// Descriptors that `start` hands over: the listening socket, and a pipe to say how it went.
pub(super) const LISTENER: i32 = 3;
pub(super) const READY: i32 = 4;
/// What goes into the pipe when all is well.
pub(super) const IS_READY: &str = "ok";
/// Set when debug lines are wanted.
pub(super) const DEBUG: &str = "SHIM_DEBUG";
/// Names the cgroup that the shim joins.
pub(super) const CGROUP: &str = "SHIM_CGROUP";
/// Set by containerd when its shims are to share no core with others.
const SCHED_CORE: &str = "SCHED_CORE";

/// How long the last events may take at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How long clients may take to read their last answers.
const ANSWERS_LIMIT: Duration = Duration::from_millis(500);

/// Serves until the last task is gone and containerd says so.
pub(super) fn serve(backend: impl Backend, flags: &Flags) -> Result<()> {
    let listener = sys::inherited(LISTENER)
        .context("the listening socket: a shim is started with the action start")?;
    let ready = sys::inherited(READY).context("the pipe to start")?;
    let prepared = prepare(backend, flags, listener);
    let text = match &prepared {
        Ok(_) => IS_READY.to_owned(),
        Err(err) => format!("{err:#}"),
    };
    File::from(ready).write_all(text.as_bytes()).context("tell start")?;
    let (runtime, serving) = prepared?;
    runtime.block_on(serving.run())
}

/// Everything that may fail for want of descriptors or memory: once `start` is told that all is well,
/// the shim lives.
fn prepare<B: Backend>(
    backend: B,
    flags: &Flags,
    listener: OwnedFd,
) -> Result<(Runtime, Serving<B>)> {
    let id = ContainerId::parse(&flags.id)?;
    let (backend, host) = open(backend, flags)?;
    // One thread: one stack and one arena, and no lock is ever contended.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("make the runtime")?;
    let entered = runtime.enter();
    let address = socket_of(&listener);
    let (callers, ending) = (accept_own(listener)?, Ending::catch()?);
    drop(entered);
    Ok((runtime, Serving { backend, host, id, address, callers, ending }))
}

/// Everything that has to happen while there is one thread and no runtime.
fn open<B: Backend>(mut backend: B, flags: &Flags) -> Result<(B, Host)> {
    let debug = flags.debug || variable(DEBUG).is_some();
    logs::install(Path::new("/proc/self/cwd/log"), backend.about().name, &flags.id, debug);
    let namespace = Namespace::parse(&flags.namespace)?;
    prctl::set_name(c"containerd-shim").context("set the process name")?;
    prctl::set_child_subreaper(true).context("become a subreaper")?;
    if variable(SCHED_CORE).is_some()
        && let Err(err) = sys::schedule_apart()
    {
        // A kernel without core scheduling, or a processor with one thread a core.
        log::warn!("schedule the shim on cores of its own: {err}");
    }
    if let Some(path) = variable(CGROUP) {
        cgroup::join(&path).context("the shim's cgroup")?;
    }
    let host = Host { reaper: Reaper::default(), namespace };
    backend.open(host.clone())?;
    Ok((backend, host))
}

/// What serves, ready to run.
struct Serving<B> {
    backend: B,
    host: Host,
    id: ContainerId,
    address: Option<Socket>,
    callers: Callers,
    ending: Ending,
}

impl<B: Backend> Serving<B> {
    async fn run(self) -> Result<()> {
        let Self { backend, host, id, address, callers, mut ending } = self;
        let publisher = Publisher::new();
        if let Some(address) = variable("TTRPC_ADDRESS") {
            tokio::spawn(publisher.clone().send_to(address));
        }
        let reaper = host.reaper.clone();
        tokio::spawn(async move {
            if let Err(err) = reaper.collect_orphans().await {
                log::error!("{err:#}");
            }
        });
        let herald = Herald { publisher: publisher.clone(), namespace: host.namespace.clone() };
        let shim = Arc::new(Shim::new(backend, host, herald));
        shim.announce(id);
        let (services, traces) = service::traced(service::services(&shim));
        let server = Server::new(services);
        let answering = server.clone();
        tokio::spawn(async move {
            loop {
                let (caller, server) = (callers.next().await, answering.clone());
                tokio::spawn(async move { server.serve(caller).await });
            }
        });
        log::debug!("serving");
        tokio::select! {
            () = shim.shut_down() => {}
            () = ending.asked() => {}
        }
        // Nobody may find the socket once nobody answers.
        let removed = address.map_or(Ok(()), |socket| socket.remove());
        tokio::join!(publisher.flushed(FLUSH_LIMIT), server.flushed(ANSWERS_LIMIT), shim.close());
        traces.flushed().await;
        removed
    }
}

fn accept_own(listener: OwnedFd) -> Result<Callers> {
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true).context("prepare the listening socket")?;
    let listener = tokio::net::UnixListener::from_std(listener).context("listen")?;
    Ok(Callers::of_own_user(listener))
}

fn socket_of(listener: &OwnedFd) -> Option<Socket> {
    let listener = std::os::unix::net::UnixListener::from(listener.try_clone().ok()?);
    let address = listener.local_addr().ok()?;
    let path = address.as_pathname()?;
    Socket::of_address(&format!("unix://{}", path.display()))
}

/// SIGTERM and SIGINT, which end the shim in good order.
struct Ending {
    term: Signal,
    interrupt: Signal,
}

impl Ending {
    /// Begins to catch them, within a runtime.
    fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("catch signals");
        let (term, interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        Ok(Self { term, interrupt })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        log::info!("asked to end");
    }
}
