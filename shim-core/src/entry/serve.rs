//! Serving: the process that owns the containers, from its fork to its last system call.

use std::{
    fs::{self, File},
    io::Write,
    ops::Range,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use nix::sys::prctl;
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::{accept::Callers, flags::Flags, kind::Kind, read_text, socket::Socket, variable};
use crate::{
    backend::{Backend, Coming, Host},
    error::{Context, Result},
    event::{Herald, Publisher},
    lifecycle::Shim,
    linux::{Reaper, cgroup, limits, stdio::Exchange, sys},
    log as logs,
    model::{ContainerId, Namespace},
    service::{self, Server, Streaming},
};

/// What goes into the pipe when all is well.
pub(super) const IS_READY: &str = "ok";
/// Set by containerd when its shims are to share no core with others.
const SCHED_CORE: &str = "SCHED_CORE";

/// How long the last events may take at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// How long clients may take to read their last answers.
const ANSWERS_LIMIT: Duration = Duration::from_millis(500);

/// What the process that was asked to `start` leaves to the one that serves.
pub(super) struct Legacy {
    /// The bound socket.
    pub(super) listener: OwnedFd,
    /// Where to say how it went.
    pub(super) ready: OwnedFd,
    /// The container that it is started for.
    pub(super) coming: Coming,
    pub(super) wishes: Wishes,
}

/// How containerd wants the shim to be.
pub(super) struct Wishes {
    /// Where events go.
    pub(super) ttrpc_address: String,
    /// Whether debug lines are wanted.
    pub(super) debug: bool,
    /// The cgroup that the shim joins.
    pub(super) cgroup: Option<String>,
}

/// Serves until the last task is gone and containerd says so, in a fresh fork of `start`.
pub(super) fn serve<B: Backend>(
    backend: B,
    flags: &Flags,
    legacy: Legacy,
    kind: impl Kind<B>,
) -> Result<()> {
    let Legacy { listener, ready, coming, wishes } = legacy;
    let prepared = prepare(backend, flags, coming, listener, wishes);
    let text = match &prepared {
        Ok(_) => IS_READY.to_owned(),
        Err(err) => format!("{err:#}"),
    };
    File::from(ready).write_all(text.as_bytes()).context("tell start")?;
    let (runtime, serving) = prepared?;
    if let Err(err) = close_inherited() {
        log::warn!("{err:#}");
    }
    runtime.block_on(serving.run(kind))
}

/// Everything that may fail for want of descriptors or memory: once `start` is told that all is well,
/// the shim lives.
fn prepare<B: Backend>(
    mut backend: B,
    flags: &Flags,
    coming: Coming,
    listener: OwnedFd,
    wishes: Wishes,
) -> Result<(Runtime, Serving<B>)> {
    let namespace = Namespace::parse(&flags.namespace)?;
    settle(backend.about().name, &coming.id, flags, &wishes)?;
    // One thread: one stack and one arena, and no lock is ever contended.
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("make the runtime")?;
    let entered = runtime.enter();
    let host = Host { reaper: Reaper::default(), namespace };
    backend.open(host.clone())?;
    let address = socket_of(&listener);
    let (callers, ending) = (accept_own(listener)?, Ending::catch()?);
    drop(entered);
    let events = Some(wishes.ttrpc_address).filter(|address| !address.is_empty());
    Ok((runtime, Serving { backend, host, coming, address, events, callers, ending }))
}

/// Makes a fork of `start` into a process of its own.
fn settle(name: &str, id: &ContainerId, flags: &Flags, wishes: &Wishes) -> Result<()> {
    let debug = flags.debug || wishes.debug;
    logs::install(name, id, debug);
    if let Err(err) = limits::raise_files() {
        // Fewer containers fit in, that is all.
        log::warn!("{err:#}");
    }
    rename()?;
    prctl::set_child_subreaper(true).context("become a subreaper")?;
    if variable(SCHED_CORE).is_some()
        && let Err(err) = sys::schedule_apart()
    {
        // A kernel without core scheduling, or a processor with one thread a core.
        log::warn!("schedule the shim on cores of its own: {err}");
    }
    if let Some(path) = &wishes.cgroup {
        cgroup::join(path).context("the shim's cgroup")?;
    }
    Ok(())
}

/// Takes the word `start` off the command line, for those who look at processes.
fn rename() -> Result<()> {
    let stat = read_text("/proc/self/stat")?;
    if let Some(bounds) = arguments_of(&stat) {
        sys::blank_last_argument(bounds, c"start");
    }
    prctl::set_name(c"containerd-shim").context("set the process name")
}

/// Closes whatever containerd had open without close-on-exec.
fn close_inherited() -> Result<()> {
    let open = fs::read_dir("/proc/self/fd").context("list the descriptors")?;
    let open = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for fd in open.filter(|fd: &i32| *fd > 2) {
        sys::close_inherited(fd).context("close a descriptor")?;
    }
    Ok(())
}

/// Where the command line lies in memory: fields 48 and 49 of proc_pid_stat(5).
fn arguments_of(stat: &str) -> Option<Range<usize>> {
    // The second field may hold spaces and parentheses, and ends with the last of these.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(48 - 3);
    Some(fields.next()?.parse().ok()?..fields.next()?.parse().ok()?)
}

/// What serves, ready to run.
struct Serving<B> {
    backend: B,
    host: Host,
    coming: Coming,
    address: Option<Socket>,
    /// Where events go.
    events: Option<String>,
    callers: Callers,
    ending: Ending,
}

impl<B: Backend> Serving<B> {
    async fn run(self, kind: impl Kind<B>) -> Result<()> {
        let Self { backend, host, coming, address, events, mut callers, mut ending } = self;
        let publisher = Publisher::new();
        if let Some(events) = events {
            tokio::spawn(publisher.clone().send_to(events));
        }
        let reaper = host.reaper.clone();
        tokio::spawn(async move {
            if let Err(err) = reaper.collect_orphans().await {
                log::error!("{err:#}");
            }
        });
        let herald = Herald { publisher: publisher.clone(), namespace: host.namespace.clone() };
        let exchange = address.as_ref().map(|socket| Exchange::at(socket.path().to_owned()));
        let exchange = exchange.unwrap_or_default();
        let shim = Arc::new(Shim::new(backend, host, herald, exchange.clone()));
        shim.announce(coming.id.clone())?;
        let mut services = service::services(&shim);
        services.extend(kind.services(&shim, coming.options.clone()));
        let preparing = Arc::clone(&shim);
        tokio::spawn(async move { preparing.prepare(coming).await });
        let (services, traces) = service::traced(services);
        let server = Server::new(services, Streaming(exchange));
        let (answering, holder) = (server.clone(), Arc::clone(&shim));
        tokio::spawn(async move {
            loop {
                let Some(caller) = callers.next().await else {
                    // What is only prepared gives way to those who are there.
                    holder.give_way().await;
                    continue;
                };
                let server = answering.clone();
                tokio::spawn(async move { server.serve(caller).await });
            }
        });
        log::debug!("serving");
        let is_done = tokio::select! {
            () = shim.shut_down() => true,
            () = ending.asked() => false,
        };
        shim.refuse_more();
        // Nobody may find the socket once nobody answers.
        let removed = address.map_or(Ok(()), |socket| socket.remove());
        tokio::join!(publisher.flushed(FLUSH_LIMIT), server.flushed(ANSWERS_LIMIT), shim.close());
        if is_done {
            // The Shutdown of one container comes while another's client reads its last answer.
            server.deserted(ANSWERS_LIMIT).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_where_the_kernel_says() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b (c)) S {}\n", numbers.join(" "));
        assert_eq!(arguments_of(&stat), Some(48..49));
        assert_eq!(arguments_of("7 (a) S 4 5"), None);
    }
}
