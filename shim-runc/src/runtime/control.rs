//! Starting, signalling, freezing, limiting, counting and deleting a container that another process has
//! made.

use std::{fs::File, os::fd::OwnedFd};

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use shim_core::{
    Error, Kind, Result,
    linux::signal_pidfd,
    model::{Bundle, Pid, Signal, Stats},
};

use super::{
    Files, Readiness, Runtime, Status, Supervisor, folder::Folder, shares::Change, state::Saved,
};
use crate::{
    container::signal_all,
    engine::{
        cgroup::Cgroup,
        doors,
        hooks::Hooked,
        oom::OomWatch,
        plan::{Hook, Hooks},
    },
    record, spec,
};

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The init process.
    Init,
    /// Every process of the container.
    All,
}

impl Runtime {
    /// Lets the program of a container run. With somebody who wants to hear that it is ready, it returns
    /// when that is told, or when the init process has ended.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has been started; else why its program does not run.
    pub async fn start(&self, id: &str, supervisor: Option<&Supervisor>) -> Result<()> {
        let folder = self.locked(id)?;
        let saved = folder.load()?;
        let refuse = |why: String| Err(Error::new(Kind::FailedPrecondition, why));
        match saved.status(&folder)? {
            Status::Created => {}
            Status::Stopped => {
                return refuse("cannot start a container that has stopped".to_owned());
            }
            Status::Running => {
                return refuse("cannot start an already running container".to_owned());
            }
            other => return refuse(format!("cannot start a container in the {other} state")),
        }
        let asked = supervisor.filter(|_| saved.notifies);
        let readiness = asked.map(|asked| Readiness::listen(folder.path(), asked)).transpose()?;
        let rest = saved.rest.clone().unwrap_or_default();
        let output = File::open(folder.output()).ok().map(OwnedFd::from);
        let opened = doors::open(folder.path(), &rest, output);
        doors::remove(folder.path());
        opened?;
        let pid = saved.init.map(|init| Pid::new(init.pid)).transpose()?;
        self.hooks(&folder, &saved, |hooks| &hooks.poststart, "running", pid).await?;
        // Others may work on the container while we wait.
        drop(folder);
        if let Some((readiness, pid)) = readiness.zip(pid) {
            readiness.relay(pid, pid).await;
        }
        Ok(())
    }

    /// Signals a container.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub fn kill(&self, id: &str, whom: Whom, signal: Signal) -> Result<()> {
        let folder = self.find(id)?;
        let saved = folder.load()?;
        let cgroup = saved.cgroup()?;
        let init = saved.live_init();
        // Nobody knows more of its processes; they end with the init process of their namespace.
        let whom = if cgroup.is_nowhere() { Whom::Init } else { whom };
        match (whom, init) {
            (Whom::All, _) if signal == Signal::KILL => return cgroup.kill(),
            (Whom::All, _) => signal_all(&cgroup.pids()?, signal)?,
            (Whom::Init, None) => return Err(not_running()),
            (Whom::Init, Some(_))
                if signal == Signal::KILL
                    && !cgroup.is_nowhere()
                    && !spec::has_own_pids(folder.spec()?.as_ref()) =>
            {
                // Nothing else ends what the init process would leave.
                return cgroup.kill();
            }
            (Whom::Init, Some(init)) => signal_pidfd(init, signal)
                .map_err(|err| if err.kind() == Kind::NotFound { not_running() } else { err })?,
        }
        if signal == Signal::KILL && cgroup.frozen()? {
            // On cgroup v1 a frozen process ends only when it is thawed.
            cgroup.thaw()?;
        }
        Ok(())
    }

    /// Removes a container: one that has ended, that waits for its start, or by force any.
    ///
    /// # Errors
    /// `FailedPrecondition` when it runs, `NotFound` when there is none; by force neither.
    pub async fn delete(&self, id: &str, force: bool) -> Result<()> {
        let folder = match self.locked(id) {
            Err(err) if err.kind() == Kind::NotFound && force => return Ok(()),
            folder => folder?,
        };
        let saved = match folder.load() {
            // Its making was cut short, or its file is damaged: the record says what to remove.
            Err(_) if force => None,
            saved => Some(saved?),
        };
        if let Some(saved) = &saved {
            let status = saved.status(&folder)?;
            if !force && !matches!(status, Status::Stopped | Status::Created) {
                let why = format!("cannot delete container {id} that is not stopped: {status}");
                return Err(Error::new(Kind::FailedPrecondition, why));
            }
        }
        record::clean_up_own(folder.bundle()).await?;
        if let Some(saved) = &saved {
            self.hooks(&folder, saved, |hooks| &hooks.poststop, "stopped", None).await?;
        }
        folder.remove()
    }

    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let folder = self.locked(id)?;
        let saved = folder.load()?;
        match saved.status(&folder)? {
            Status::Running | Status::Created => saved.cgroup()?.freeze().await,
            _ => Err(not_running()),
        }
    }

    /// Lets all processes of a paused container go on.
    ///
    /// # Errors
    /// `FailedPrecondition` when it is not paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        let folder = self.locked(id)?;
        let saved = folder.load()?;
        match saved.status(&folder)? {
            Status::Paused => saved.cgroup()?.thaw(),
            _ => Err(Error::new(Kind::FailedPrecondition, "container not paused")),
        }
    }

    /// Changes the limits that are given, and the shares of cache and memory bandwidth.
    ///
    /// # Errors
    /// The limit that could not be set; those before it are. `Unsupported` for shares on a host without
    /// them, `FailedPrecondition` where others may have the same: nothing is changed then.
    pub async fn update(
        &self,
        id: &str,
        resources: &LinuxResources,
        shares: Option<&LinuxIntelRdt>,
    ) -> Result<()> {
        let folder = self.locked(id)?;
        let saved = folder.load()?;
        if saved.status(&folder)? == Status::Stopped {
            return Err(not_running());
        }
        let change = shares.map(|asked| Change::of(&folder, &saved, asked)).transpose()?;
        saved.cgroup()?.update(resources).await?;
        change.map_or(Ok(()), |change| change.make(&folder, saved, || self.pids(id)))
    }

    /// Lists the processes of a container as the host sees them; one that has ended has none, or those
    /// that its init process has left. Of one without a cgroup only the init process is known.
    ///
    /// # Errors
    /// `NotFound` when there is no container.
    pub fn pids(&self, id: &str) -> Result<Vec<Pid>> {
        let saved = self.find(id)?.load()?;
        let cgroup = saved.cgroup()?;
        if !cgroup.is_nowhere() {
            return cgroup.pids();
        }
        let init = saved.live_init().and(saved.init);
        init.into_iter().map(|init| Pid::new(init.pid)).collect()
    }

    /// Counts what a container uses.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub fn stats(&self, id: &str) -> Result<Stats> {
        self.live(id)?.stats()
    }

    /// Begins to watch for processes of a container that the kernel kills for want of memory.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub fn watch_memory(&self, id: &str) -> Result<MemoryWatch> {
        Ok(MemoryWatch(OomWatch::of_live(&self.live(id)?)))
    }

    /// The cgroup of a container that lives.
    fn live(&self, id: &str) -> Result<Cgroup> {
        let folder = self.find(id)?;
        let saved = folder.load()?;
        match saved.status(&folder)? {
            Status::Stopped => Err(not_running()),
            _ => saved.cgroup(),
        }
    }

    /// Runs hooks of one moment, whose failures change nothing any more.
    async fn hooks(
        &self,
        folder: &Folder,
        saved: &Saved,
        moment: impl Fn(&Hooks) -> &Vec<Hook>,
        status: &str,
        pid: Option<Pid>,
    ) -> Result<()> {
        let bundle = Bundle::new(&saved.bundle)?;
        let Some(hooked) = Hooked::of(folder.spec()?.as_ref(), folder.id(), &bundle)? else {
            return Ok(());
        };
        let hooks = moment(&hooked.hooks);
        if !hooks.is_empty() {
            let launcher = self.launcher(folder.path(), Files::default())?;
            hooked.run_all(&launcher, hooks, status, pid).await;
        }
        Ok(())
    }
}

/// News of processes that the kernel kills for want of memory.
#[derive(Debug)]
pub struct MemoryWatch(OomWatch);

impl MemoryWatch {
    /// Waits for the next one.
    ///
    /// # Errors
    /// When the watch is broken.
    pub async fn next(&self) -> Result<()> {
        self.0.next().await
    }
}

fn not_running() -> Error {
    // The words that callers of runc look for.
    Error::new(Kind::FailedPrecondition, "container not running")
}
