//! A container of another runtime, from its creation to its deletion.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use shim_core::{
    Checkpoint, Container, Context, Error, Exec, Kind, Process, Result, Streams, Target, Update,
    backend::ExitFuture,
    linux::signal_pidfd,
    model::{Bundle, ContainerId, ExecId, ExitStatus, Pid, Signal, Stats},
};
use tokio::time::{sleep, timeout};

use super::{
    cli::{self, Line, Making},
    command::{Caller, Io, Scratch},
    life::{Life, has_ended},
    member::Member,
    process::{Left, Whose, read_pid, write},
    usage,
};
use crate::{
    engine::cgroup::Cgroup,
    making::{self, Owner},
    record::Record,
};

/// How long a command may go on when the container has ended: one that hangs would keep that from
/// being told.
const GRACE: Duration = Duration::from_secs(5);

/// How long the runtime may take to kill, before the kernel is asked.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A container that another runtime has made, or is to restore.
#[derive(Debug)]
pub(super) struct ExternalContainer {
    parts: Parts,
    /// What it is restored from, until it is.
    saved: Mutex<Option<(PathBuf, Streams)>>,
    /// There from the moment that there is a process.
    life: OnceLock<Life>,
    execs: Arc<Mutex<HashMap<ExecId, Running>>>,
    paused: AtomicBool,
}

/// What a container is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) caller: Caller,
    pub(super) id: ContainerId,
    pub(super) bundle: Bundle,
    pub(super) owner: Owner,
    pub(super) making: Making,
    pub(super) whose: Whose,
    /// The cgroup that its spec asks for, where there was none: some runtimes leave it.
    pub(super) fresh: Option<Cgroup>,
    /// The kernel ends what outlives the init process.
    pub(super) has_own_pids: bool,
}

/// An exec.
#[derive(Debug)]
struct Running {
    pidfd: OwnedFd,
    /// The pid that it has in a sandbox.
    inner: Option<Pid>,
}

impl ExternalContainer {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            parts,
            saved: Mutex::default(),
            life: OnceLock::new(),
            execs: Arc::default(),
            paused: AtomicBool::new(false),
        }
    }

    pub(super) fn bundle(&self) -> &Bundle {
        &self.parts.bundle
    }

    /// Keeps what it is to be restored from.
    pub(super) fn keep(&self, checkpoint: PathBuf, streams: Streams) {
        *self.saved() = Some((checkpoint, streams));
    }

    /// Makes the init process, which waits for its start.
    pub(super) async fn make(&self, streams: Streams) -> Result<Process> {
        let Parts { id, bundle, making, .. } = &self.parts;
        self.init(streams, |told| cli::create(id, bundle.path(), making, told)).await
    }

    async fn init(
        &self,
        streams: Streams,
        line: impl FnOnce(&cli::Told) -> Line,
    ) -> Result<Process> {
        let Parts { caller, id, owner, whose, has_own_pids, .. } = &self.parts;
        making::streams(&streams, *owner)?;
        let left = caller.leave_init(id, *whose, streams, line).await?;
        let life = Life::of(&left)?;
        self.life.get_or_init(|| life);
        let process = left.process;
        let exit = if *has_own_pids { process.exit } else { self.end_all_after(process.exit) };
        Ok(Process { exit, ..process })
    }

    /// Removes what a creation has left that failed, and a cgroup that was not there before.
    pub(super) async fn undo(&self) {
        if let Err(err) = self.force_delete().await {
            log::debug!("after a failed create: {err:#}");
        }
        let fresh = self.parts.fresh.as_ref();
        let Some(cgroup) = fresh.filter(|cgroup| cgroup.exists()) else { return };
        let removed = async { cgroup.kill().and(cgroup.remove_async().await) };
        if let Err(err) = removed.await {
            log::warn!("after a failed create: {err:#}");
        }
    }

    /// Ends whatever outlives the init process: without a pid namespace of its own the kernel does
    /// not.
    fn end_all_after(&self, exit: ExitFuture) -> ExitFuture {
        let (caller, id) = (self.parts.caller.clone(), self.parts.id.clone());
        Box::pin(async move {
            let exit = exit.await;
            if !caller.runtime.knows(&id) {
                return exit;
            }
            if let Err(err) = caller.call(cli::kill_all(&id, Signal::KILL), Io::Kept).await {
                log::debug!("kill what the init process left: {err:#}");
            }
            exit
        })
    }

    async fn command(&self, line: Line) -> Result<()> {
        self.parts.caller.call(line, Io::Kept).await.map(drop)
    }

    /// Does what makes sense only as long as the container lives.
    async fn in_life<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(life) = self.life.get() else { return work.await };
        let over = async {
            life.until_end().await;
            sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = over => {
                let why = "the container has ended, and its runtime does not come to an end";
                Err(Error::new(Kind::FailedPrecondition, why))
            }
        }
    }

    /// Deletes what the runtime knows of the container, whatever state that is in.
    async fn force_delete(&self) -> Result<()> {
        let Parts { caller, id, .. } = &self.parts;
        if caller.runtime.knows(id) { self.command(cli::force_delete(id)).await } else { Ok(()) }
    }

    /// Signals the init process, or all, as long as that one lives.
    async fn signal(&self, line: Line, signal: Signal) -> Result<()> {
        let ended = || Error::not_found("process already finished");
        let life = self.life.get().filter(|life| !life.has_ended()).ok_or_else(ended)?;
        // Signal 0 only asks that, and runsc does not know it.
        if signal.number() == 0 {
            return Ok(());
        }
        if let Some(member) = life.member.as_ref().filter(|member| member.is_created())
            && signal == Signal::KILL
        {
            // Its runtime signals only what has been started, and removes this one with the rest.
            member.end(ExitStatus::Signal(signal));
            return Ok(());
        }
        let limit = if signal == Signal::KILL { KILL_LIMIT } else { Duration::MAX };
        let sent = timeout(limit, self.in_life(self.command(line))).await;
        let late = |_| Err(Error::new(Kind::TimedOut, "the runtime does not come to an end"));
        let Err(err) = sent.unwrap_or_else(late) else { return Ok(()) };
        if life.has_ended() {
            return Err(ended());
        }
        // The process of a member is the others', too.
        if signal != Signal::KILL || life.member.is_some() {
            return Err(err);
        }
        // Whatever is wrong with the runtime, the user gets rid of the container.
        log::warn!("kill {} without its runtime: {err:#}", self.parts.id);
        signal_pidfd(&life.pidfd, signal)
    }

    /// Signals an exec, whose process on the host only stands for it in a sandbox.
    async fn signal_exec(&self, id: &ExecId, signal: Signal) -> Result<()> {
        let inner = match self.execs().get(id) {
            None => return Err(Error::not_found("process already finished")),
            // Signal 0 asks about the process here, which lives as long.
            Some(Running { inner: Some(inner), .. }) if signal.number() != 0 => *inner,
            Some(Running { pidfd, .. }) => return signal_pidfd(pidfd, signal),
        };
        let line = cli::kill_inner(&self.parts.id, inner.get(), signal);
        let signalled = self.in_life(self.command(line)).await;
        let ended = self.execs().get(id).is_none_or(|exec| has_ended(&exec.pidfd));
        if signalled.is_err() && ended {
            return Err(Error::not_found("process already finished"));
        }
        signalled
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<ExecId, Running>> {
        self.execs.lock().expect("nobody panics with the execs locked")
    }

    fn saved(&self) -> MutexGuard<'_, Option<(PathBuf, Streams)>> {
        self.saved.lock().expect("nobody panics with it locked")
    }

    fn refuse_for_a_member(&self, verb: &str) -> Result<()> {
        self.life.get().map_or(Ok(()), |life| life.refuse_for_a_member(verb))
    }

    /// The cgroup, for what is read there.
    fn cgroup(&self, verb: &'static str) -> Result<&Cgroup> {
        let cgroup = self.life.get().and_then(|life| life.cgroup.as_ref());
        cgroup.ok_or_else(|| Error::unsupported(verb))
    }
}

#[async_trait]
impl Container for ExternalContainer {
    async fn start(&self) -> Result<()> {
        let Parts { caller, id, .. } = &self.parts;
        let member = self.life.get().and_then(|life| life.member.as_deref());
        let io = member.map_or(Io::Kept, Member::take_streams);
        let started = self.in_life(caller.call(cli::start(id), io)).await.map(drop);
        // Clients delete what has failed to start, and only when it has stopped. One that has ended by
        // itself needs no signal.
        match (&started, member, self.life.get()) {
            (Ok(()), Some(member), _) => member.has_started(),
            (Err(_), Some(member), _) => member.end(ExitStatus::Signal(Signal::KILL)),
            (Err(_), None, Some(life)) => drop(signal_pidfd(&life.pidfd, Signal::KILL)),
            _ => {}
        }
        started
    }

    async fn kill(&self, target: Target<'_>, signal: Signal) -> Result<()> {
        let id = &self.parts.id;
        match target {
            Target::Init => self.signal(cli::kill(id, signal), signal).await?,
            Target::All => self.signal(cli::kill_all(id, signal), signal).await?,
            Target::Exec { id, .. } => self.signal_exec(id, signal).await?,
        }
        if signal == Signal::KILL && self.paused.load(Ordering::Relaxed) {
            // On cgroup v1 a frozen process ends only when it is thawed. Runtimes that do so by
            // themselves find it done.
            if let Err(err) = self.in_life(self.command(cli::resume(id))).await {
                log::debug!("thaw what was killed: {err:#}");
            }
        }
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        let Parts { caller, id, .. } = &self.parts;
        let is_live = self.life.get().is_some_and(|life| !life.has_ended());
        if !is_live
            && caller.runtime.knows(id)
            && let Err(err) = self.command(cli::delete(id)).await
        {
            log::debug!("delete {id}, by force next: {err:#}");
        }
        match self.force_delete().await {
            // A sandbox that has died first answers nobody, but what was known of it is gone.
            Err(err) if !caller.runtime.knows(id) => log::debug!("delete {id}: {err:#}"),
            deleted => deleted.context("delete")?,
        }
        if let Some(member) = self.life.get().and_then(|life| life.member.as_ref()) {
            member.end(ExitStatus::Signal(Signal::KILL));
        }
        if let Some(cgroup) = &self.parts.fresh
            && cgroup.exists()
            && cgroup.pids()?.is_empty()
        {
            cgroup.remove_async().await.context("remove the cgroup")?;
        }
        self.saved().take();
        Record::erase(&self.parts.bundle);
        Ok(())
    }

    async fn exec(&self, request: Exec) -> Result<Process> {
        let Exec { id, process, streams } = request;
        let Parts { caller, id: container, bundle, owner, .. } = &self.parts;
        let name = format!("exec-{id}");
        let file = |kind| bundle.path().join(format!("{name}.{kind}"));
        let spec = write(&file("json"), &serde_json::to_vec(&process)?)?;
        let is_sandbox = self.life.get().is_some_and(|life| life.is_sandbox);
        let inner = is_sandbox.then(|| Scratch(file("inner.pid")));
        let inner_file = inner.as_ref().map(|file| file.0.as_path());
        making::streams(&streams, *owner)?;
        let line = |told: &cli::Told| cli::exec(container, &spec.0, inner_file, told);
        let left = self.in_life(caller.leave(&name, streams, line)).await?;
        let Left { process, pidfd, .. } = left;
        let inner = inner.and_then(|file| read_pid(&file.0).ok());
        self.execs().insert(id.clone(), Running { pidfd, inner });
        let execs = Arc::clone(&self.execs);
        let exit = Box::pin(async move {
            let exit = process.exit.await;
            execs.lock().expect("nobody panics with the execs locked").remove(&id);
            exit
        });
        Ok(Process { exit, ..process })
    }

    async fn pause(&self) -> Result<()> {
        self.refuse_for_a_member("pause")?;
        self.in_life(self.command(cli::pause(&self.parts.id))).await?;
        self.paused.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.in_life(self.command(cli::resume(&self.parts.id))).await?;
        self.paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn update(&self, request: &Update) -> Result<()> {
        let Some(resources) = &request.resources else { return Ok(()) };
        let input = Io::Input(serde_json::to_vec(resources)?);
        let call = self.parts.caller.call(cli::update(&self.parts.id), input);
        self.in_life(call).await.map(drop)
    }

    async fn checkpoint(&self, request: &Checkpoint) -> Result<()> {
        self.refuse_for_a_member("checkpoint")?;
        self.in_life(self.command(cli::checkpoint(&self.parts.id, request))).await
    }

    async fn restore(&self) -> Result<Process> {
        let saved = self.saved().take();
        let Some((image, streams)) = saved else {
            let why = "the container is restored already";
            return Err(Error::new(Kind::FailedPrecondition, why));
        };
        let Parts { id, bundle, making, .. } = &self.parts;
        let restored =
            self.init(streams, |told| cli::restore(id, bundle.path(), &image, making, told)).await;
        if restored.is_err() {
            self.undo().await;
        }
        restored
    }

    async fn stats(&self) -> Result<Stats> {
        let cgroup = self.cgroup("stats")?;
        if self.life.get().is_none_or(|life| life.member.is_none()) {
            return cgroup.stats();
        }
        let Parts { caller, id, .. } = &self.parts;
        let counted = self.in_life(caller.call(cli::events(id), Io::Kept)).await?;
        usage::parse(&counted, cgroup.mode())
    }

    async fn out_of_memory(&self) -> Result<()> {
        match self.life.get() {
            Some(life) => life.oom.next().await,
            None => std::future::pending().await,
        }
    }

    async fn pids(&self) -> Result<Vec<Pid>> {
        // Those of a sandbox have no number here.
        match self.life.get() {
            Some(Life { is_sandbox: true, .. }) => Err(Error::unsupported("pids")),
            _ => self.cgroup("pids")?.pids(),
        }
    }
}
