//! Saving a container to files, and making one of them again.

use std::path::PathBuf;

use oci_spec::runtime::Process as OciProcess;
use shim_core::{
    Checkpoint, Container, Error, Kind, Process, Result, Streams, Terminal,
    linux::Reaper,
    model::{Bundle, Pid},
};

use super::{
    Allowed, Create, Extra, Files, Running, Runtime, Status,
    create::{Exit, finish},
    folder::Folder,
    own_streams,
    state::Saved,
};
use crate::{
    engine::plan::Starter,
    making::{Draft, Made, Origin, Restored},
    record::Init,
};

/// What a container is restored from, and how.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The directory of the checkpoint.
    pub image: PathBuf,
    /// Where CRIU works; nothing is that directory.
    pub work: Option<PathBuf>,
    /// What may be restored.
    pub allowed: Allowed,
    /// What its processes are confined by, whatever the spec says: `apparmor:` or `selinux:`, and a
    /// name.
    pub lsm_profile: Option<String>,
}

impl Runtime {
    /// Saves a container, which is deleted then if it ends with that.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run; else why it was not saved: it runs on then.
    pub async fn checkpoint(&self, id: &str, asked: &Checkpoint, extra: Extra) -> Result<()> {
        let folder = self.locked(id)?;
        let saved = folder.load()?;
        let status = saved.status(&folder)?;
        let init = saved.init.filter(|_| matches!(status, Status::Running | Status::Paused));
        let Some(init) = init else {
            let why = format!("cannot checkpoint a container in the {status} state");
            return Err(Error::new(Kind::FailedPrecondition, why));
        };
        let bundle = Bundle::new(&saved.bundle)?;
        let origin = Origin::new(id, &bundle, self.criu.clone());
        let draft = Draft::again(&origin, folder.spec()?, &saved.cgroup()?)?;
        let reaper = Reaper::default();
        Box::pin(draft.save(&reaper, Pid::new(init.pid)?, asked, extra)).await?;
        drop(folder);
        if asked.exit && !extra.is_before { self.delete(id, true).await } else { Ok(()) }
    }

    /// Makes a container from a checkpoint, which runs then.
    ///
    /// # Errors
    /// `AlreadyExists` for an id that is taken; else why there is none. Nothing is left.
    pub async fn restore(&self, id: &str, wanted: &Create, from: &Restore) -> Result<Running> {
        let folder = self.claim(id)?;
        match Box::pin(self.restore_in(&folder, wanted, from)).await {
            Ok((made, saved)) => {
                let Made { container, init, .. } = made;
                let Process { pid, exit, terminal } = init;
                let terminal = terminal.and_then(Terminal::into_master);
                let mut running =
                    Running { container, folder, saved, pid, terminal, exit: Exit(exit) };
                running.folder.unlock();
                Ok(running)
            }
            Err(err) => {
                if let Err(left) = folder.remove() {
                    log::warn!("{left:#}");
                }
                Err(err)
            }
        }
    }

    async fn restore_in(
        &self,
        folder: &Folder,
        wanted: &Create,
        from: &Restore,
    ) -> Result<(Made, Saved)> {
        let spec = folder.keep_spec(&wanted.bundle)?;
        let terminal = spec.process().as_ref().and_then(OciProcess::terminal) == Some(true);
        let console = wanted.console.prepare(terminal)?;
        let (draft, mut saved) = self.draft(folder, wanted, spec, terminal, Starter::Maker)?;
        let streams = if terminal { Streams::Terminal } else { own_streams()? };
        let launcher = self.launcher(folder.path(), Files::default())?;
        let restored = Restored {
            image: &from.image,
            work: Some(from.work.as_deref().unwrap_or(&from.image)),
            streams: &streams,
            allowed: &from.allowed,
            lsm_profile: from.lsm_profile.as_deref(),
        };
        let begun = draft.begin(folder.bundle(), &launcher).await?;
        let mut made = draft.restore(begun, &launcher, restored, |_| Ok(())).await?;
        saved.init = Init::of(made.init.pid).ok();
        saved.is_made = true;
        match finish(folder, &saved, &console, &mut made.init) {
            Ok(()) => Ok((made, saved)),
            Err(err) => {
                if let Err(left) = made.container.delete().await {
                    log::warn!("{left:#}");
                }
                Err(err)
            }
        }
    }
}
