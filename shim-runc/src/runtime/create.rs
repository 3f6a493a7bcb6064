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
}

/// A container that this process has made, starts and stays with.
#[derive(Debug)]
pub struct Running {
    pub(super) container: NativeContainer,
    pub(super) folder: Folder,
    pub(super) saved: Saved,
    /// The init process.
    pub pid: Pid,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
    pub(super) exit: Exit,
}

/// How the init process ends.
pub(super) struct Exit(pub(super) ExitFuture);

impl std::fmt::Debug for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exit")
    }
}

impl Runtime {
    /// Makes a container that waits for its start by another process, and leaves it to its fate.
    ///
    /// # Errors
    /// `AlreadyExists` for an id that is taken; else why there is none. Nothing is left.
    pub async fn create(&self, id: &str, wanted: &Create) -> Result<Pid> {
        let (folder, made, _) = self.make(id, wanted, Starter::Other).await?;
        drop(folder);
        Ok(made.init.pid)
    }

    /// Makes a container that this process will start.
    ///
    /// # Errors
    /// As [`Runtime::create`].
    pub async fn run(&self, id: &str, wanted: &Create) -> Result<Running> {
        let (folder, made, saved) = self.make(id, wanted, Starter::Maker).await?;
        let Made { container, init, .. } = made;
        let Process { pid, exit, terminal } = init;
        let terminal = terminal.and_then(Terminal::into_master);
        Ok(Running { container, folder, saved, pid, terminal, exit: Exit(exit) })
    }

    async fn make(
        &self,
        id: &str,
        wanted: &Create,
        starter: Starter,
    ) -> Result<(Folder, Made, Saved)> {
        let folder = self.claim(id)?;
        match Box::pin(self.make_in(&folder, wanted, starter)).await {
            Ok((made, saved)) => Ok((folder, made, saved)),
            Err(err) => {
                if let Err(left) = folder.remove() {
                    log::warn!("{left:#}");
                }
                Err(err)
            }
        }
    }

    async fn make_in(
        &self,
        folder: &Folder,
        wanted: &Create,
        starter: Starter,
    ) -> Result<(Made, Saved)> {
        let mut spec = folder.keep_spec(&wanted.bundle)?;
        if rootless::is_rootless() {
            rootless::enter(&mut spec)?;
        }
        let terminal = spec.process().as_ref().and_then(OciProcess::terminal) == Some(true);
        let console = wanted.console.prepare(terminal)?;
        if let Some(process) = spec.process_mut() {
            self.files.announce(process);
        }
        let (draft, mut saved) = self.draft(folder, wanted, spec, terminal, starter)?;
        let streams = if terminal { Streams::Terminal } else { own_streams()? };
        let is_other = starter == Starter::Other;
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
        match finish(folder, &saved, &console, &mut made.init) {
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
            },
            has_keyring: saved.has_keyring,
            owner: Owner::default(),
            criu: self.criu.clone(),
        };
        Ok((Draft::of(wanted, &Cache::default())?, saved))
    }
}

pub(super) fn finish(
    folder: &Folder,
    saved: &Saved,
    console: &Ready,
    init: &mut Process,
) -> Result<()> {
    let master = init.terminal.take().and_then(Terminal::into_master);
    init.terminal = console.hand_over(master)?.map(Into::into);
    folder.save(saved)
}

/// The root filesystem on the host.
fn rootfs(spec: &Spec, bundle: &Bundle) -> PathBuf {
    let root = spec.root().as_ref().map(|root| root.path().as_path());
    bundle.path().join(root.unwrap_or(Path::new("rootfs")))
}

impl Running {
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
