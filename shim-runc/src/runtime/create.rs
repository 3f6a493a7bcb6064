//! Making a container, for a start by another process or by this one.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::SystemTime,
};

use oci_spec::runtime::{Process as OciProcess, Spec};
use shim_core::{
    Container, Process, Result, Streams, Terminal,
    backend::ExitFuture,
    model::{Bundle, Pid},
    rfc3339,
};

use super::{
    Runtime,
    console::{Console, Ready},
    folder::Folder,
    notify::{self, Readiness, Supervisor},
    own_streams,
    state::Saved,
};
use crate::{
    container::NativeContainer,
    engine::{
        cgroup::{Driver, Place},
        doors::Doors,
        plan::{Choices, Starter},
        seccomp::Cache,
    },
    making::{Draft, Made, Making, Owner, Wanted},
    record::{Init, Record},
    rootless, spec,
};

/// What is chosen beside the spec.
#[derive(Clone, Debug)]
pub struct Create {
    /// The bundle.
    pub bundle: Bundle,
    /// What becomes of its terminal.
    pub console: Console,
    /// Who makes its cgroup.
    pub cgroups: Driver,
    /// Change the root without pivot_root(2).
    pub no_pivot_root: bool,
    /// Leave the container the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who is to hear from its program that it is ready.
    pub supervisor: Option<Supervisor>,
}

/// A container that this process has made, starts and stays with.
#[derive(Debug)]
pub struct Running {
    container: NativeContainer,
    pub(super) folder: Folder,
    saved: Saved,
    /// The init process.
    pub pid: Pid,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    exit: Exit,
    readiness: Option<Readiness>,
}

/// How the init process ends.
struct Exit(ExitFuture);

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exit")
    }
}

impl Create {
    /// Gives the program a way to say that it is ready, if somebody wants to hear it.
    pub(super) fn offer(&self, folder: &Folder, spec: &mut Spec) -> Result<bool> {
        Ok(self.supervisor.is_some() && notify::offer(folder.path(), spec)?)
    }
}

impl Runtime {
    /// Makes a container that waits for its start by another process, and leaves it to its fate.
    ///
    /// # Errors
    /// `AlreadyExists` for an id that is taken; else why there is none. Nothing is left.
    pub async fn create(&self, id: &str, wanted: &Create) -> Result<Pid> {
        self.make(id, wanted, Starter::Other).await.map(|made| made.pid)
    }

    /// Makes a container that this process will start.
    ///
    /// # Errors
    /// As [`Runtime::create`].
    pub async fn run(&self, id: &str, wanted: &Create) -> Result<Running> {
        self.make(id, wanted, Starter::Maker).await
    }

    async fn make(&self, id: &str, wanted: &Create, starter: Starter) -> Result<Running> {
        let folder = self.claim(id)?;
        match Box::pin(self.make_in(&folder, wanted, starter)).await {
            Ok((made, saved, readiness)) => {
                Ok(Running { readiness, ..Running::of(folder, made, saved) })
            }
            Err(err) => Err(folder.abandon(err)),
        }
    }

    async fn make_in(
        &self,
        folder: &Folder,
        wanted: &Create,
        starter: Starter,
    ) -> Result<(Made, Saved, Option<Readiness>)> {
        let mut spec = folder.keep_spec(&wanted.bundle)?;
        if rootless::is_rootless() {
            rootless::enter(&mut spec)?;
        }
        let terminal = spec.process().as_ref().and_then(OciProcess::terminal) == Some(true);
        let console = wanted.console.prepare(terminal)?;
        if let Some(process) = spec.process_mut() {
            self.files.announce(process);
        }
        let is_other = starter == Starter::Other;
        let notifies = wanted.offer(folder, &mut spec)?;
        let asked = wanted.supervisor.as_ref().filter(|_| notifies && !is_other);
        let readiness = asked.map(|asked| Readiness::listen(folder.path(), asked)).transpose()?;
        let (draft, mut saved) = self.draft(folder, wanted, spec, terminal, starter)?;
        saved.notifies = notifies;
        let streams = if terminal { Streams::Terminal } else { own_streams()? };
        let doors = is_other.then(|| Doors::make(folder.path())).transpose()?;
        let output = is_other.then(|| folder.make_output()).transpose()?;
        let making = Making {
            streams: &streams,
            doors: doors.as_ref(),
            output: output.as_ref().map(AsFd::as_fd),
        };
        let launcher = self.launcher(folder.path(), self.files)?;
        // Hooks of the host's side may ask for the state.
        let told = |pid| {
            saved.init = Init::of(pid).ok();
            folder.save(&saved)
        };
        let begun = draft.begin(folder.bundle(), &launcher).await?;
        let mut made = draft.make(begun, &launcher, making, told).await?;
        saved.rest = made.rest.take();
        saved.is_made = is_other;
        let (made, saved) = finish(folder, made, saved, &console).await?;
        Ok((made, saved, readiness))
    }

    pub(super) fn draft(
        &self,
        folder: &Folder,
        wanted: &Create,
        spec: Box<Spec>,
        terminal: bool,
        starter: Starter,
    ) -> Result<(Box<Draft>, Saved)> {
        let id = folder.id();
        let cgroup = Place::of(wanted.cgroups, spec::cgroup(&spec), "shim-runc", id)?;
        let rootfs = rootfs(&spec, &wanted.bundle);
        let (bundle, created) = (wanted.bundle.path().to_owned(), rfc3339(SystemTime::now()));
        let mut saved = Saved::new(bundle, rootfs, created, &cgroup);
        saved.has_keyring = !wanted.no_new_keyring;
        let wanted = Wanted {
            id,
            bundle: &wanted.bundle,
            spec,
            cgroup,
            choices: Choices {
                no_pivot_root: wanted.no_pivot_root,
                terminal,
                kept_files: self.files.count(),
                starter,
                is_watched: false,
            },
            has_keyring: saved.has_keyring,
            owner: Owner::default(),
            criu: self.criu.clone(),
        };
        Ok((Draft::of(wanted, &Cache::default())?, saved))
    }
}

/// Hands over the terminal of what was made, and writes down what it is; after an error it is gone.
pub(super) async fn finish(
    folder: &Folder,
    mut made: Made,
    saved: Saved,
    console: &Ready,
) -> Result<(Made, Saved)> {
    let master = made.init.terminal.take().and_then(Terminal::into_master);
    let done = console.hand_over(master).and_then(|master| {
        made.init.terminal = master.map(Into::into);
        folder.save(&saved)
    });
    match done {
        Ok(()) => Ok((made, saved)),
        Err(err) => {
            // It may have ended meanwhile.
            if let Err(left) = made.container.delete().await {
                log::warn!("{left:#}");
            }
            Err(err)
        }
    }
}

/// The root filesystem on the host.
fn rootfs(spec: &Spec, bundle: &Bundle) -> PathBuf {
    let root = spec.root().as_ref().map(|root| root.path().as_path());
    bundle.path().join(root.unwrap_or(Path::new("rootfs")))
}

impl Running {
    pub(super) fn of(folder: Folder, made: Made, saved: Saved) -> Self {
        let Made { container, init: Process { pid, exit, terminal }, .. } = made;
        let terminal = terminal.and_then(Terminal::into_master);
        Self { container, folder, saved, pid, terminal, exit: Exit(exit), readiness: None }
    }

    /// Lets the program run, and forgets the lock: from now on others may work on the container.
    ///
    /// # Errors
    /// Why it does not run; the container is still to be deleted.
    pub async fn start(&mut self) -> Result<()> {
        self.container.start().await?;
        self.saved.is_made = true;
        self.folder.save(&self.saved)?;
        self.folder.unlock();
        Ok(())
    }

    /// The way by which the program says that it is ready, if somebody wants to hear that; once.
    pub fn readiness(&mut self) -> Option<Readiness> {
        self.readiness.take()
    }

    /// Waits until the init process has ended, and tells its status as a shell does: the code, or 128
    /// and the signal's number. To be called once.
    pub async fn wait(&mut self) -> u32 {
        (&mut self.exit.0).await.status.wire()
    }

    /// Removes the container, ending whatever is left of it.
    ///
    /// # Errors
    /// What stays.
    pub async fn delete(self) -> Result<()> {
        self.container.delete().await?;
        Record::erase(self.folder.bundle());
        self.folder.remove()
    }
}
