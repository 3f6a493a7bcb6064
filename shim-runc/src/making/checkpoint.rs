//! Saving a container that is there, and making one from what was saved.

use std::path::Path;

use oci_spec::runtime::{Process as OciProcess, Spec};
use shim_core::{Checkpoint, Result, Streams, linux::Reaper, model::Pid};

use super::{CRIU_CONFIG, Draft, Made, Origin, Owner, Wanted, released, streams};
use crate::{
    ahead::Begun,
    engine::{
        cgroup::{Cgroup, Place},
        criu::{self, Allowed, Extra, Restoring, Saving, Subject},
        launch::{Launched, Launcher},
        oom::OomWatch,
        plan::Choices,
        seccomp::Cache,
    },
    ground::Ground,
};

/// Where CRIU works, in a bundle.
const SCRATCH: &str = "criu";

/// How a container is to be restored.
pub(crate) struct Restored<'a> {
    pub(crate) image: &'a Path,
    /// Where CRIU works; nothing is a directory of the bundle.
    pub(crate) work: Option<&'a Path>,
    pub(crate) streams: &'a Streams,
    pub(crate) allowed: &'a Allowed,
    /// Its processes are confined by this, whatever the spec says.
    pub(crate) lsm_profile: Option<&'a str>,
}

impl Draft {
    /// Plans a container once more that is there already.
    ///
    /// # Errors
    /// As [`Self::of`]: its spec may have been changed.
    pub(crate) fn again(origin: &Origin, spec: Box<Spec>, cgroup: &Cgroup) -> Result<Box<Self>> {
        let wanted = Wanted {
            id: &origin.id,
            bundle: &origin.bundle,
            spec,
            cgroup: Place { path: cgroup.path().clone(), unit: cgroup.unit().cloned() },
            choices: Choices::default(),
            has_keyring: false,
            owner: Owner::default(),
            criu: origin.criu.clone(),
        };
        Self::of(wanted, &Cache::default())
    }

    /// Saves the container, which lives: its init process and those below.
    ///
    /// # Errors
    /// Why it was not saved. It lives on, and is as frozen as it was.
    pub(crate) async fn save(
        &self,
        reaper: &Reaper,
        init: Pid,
        asked: &Checkpoint,
        extra: Extra,
    ) -> Result<()> {
        let was_frozen = self.cgroup.frozen().unwrap_or(false);
        let scratch = &self.origin.bundle.path().join(SCRATCH);
        let saving = Saving { asked, extra, scratch };
        let saved = criu::dump(&self.subject(), &self.origin.criu, reaper, init, saving).await;
        if saved.is_err() && !was_frozen {
            // One that was ended itself leaves them frozen.
            self.cgroup.thaw()?;
        }
        saved
    }

    /// Restores the container, on its ground.
    ///
    /// # Errors
    /// What went wrong; nothing is left, the ground neither.
    pub(crate) async fn restore(
        self: Box<Self>,
        begun: Begun,
        launcher: &Launcher,
        from: Restored<'_>,
        told: impl FnOnce(Pid) -> Result<()>,
    ) -> Result<Made> {
        let Begun { ground, keeper, .. } = begun;
        let restored = self.restore_on(&ground, launcher, from).await;
        let restored = released(keeper, &ground, restored).await;
        let restored = restored.and_then(|launched| {
            ground.born(launched.pid).and_then(|()| told(launched.pid)).map(|()| launched)
        });
        match restored {
            Ok(launched) => {
                let oom = OomWatch::of_live(ground.cgroup());
                Ok(self.stand(launcher, launched, oom))
            }
            Err(err) => {
                if let Err(left) = self.cgroup.kill() {
                    log::warn!("end what was restored by halves: {left:#}");
                }
                ground.abandon().await;
                self.after_failure(launcher).await;
                Err(err)
            }
        }
    }

    async fn restore_on(
        &self,
        ground: &Ground,
        launcher: &Launcher,
        from: Restored<'_>,
    ) -> Result<Launched> {
        streams(from.streams, self.owner)?;
        // The limits are set by that; nobody has to join.
        ground.tasks()?;
        let profile = self.spec.process().as_ref().and_then(lsm_profile);
        let scratch = self.origin.bundle.path().join(SCRATCH);
        let restoring = Restoring {
            image: from.image,
            work: from.work.unwrap_or(&scratch),
            streams: from.streams,
            allowed: from.allowed,
            lsm_profile: from.lsm_profile.or(profile.as_deref()),
            hooked: self.hooked.as_ref(),
        };
        criu::restore(&self.subject(), &self.origin.criu, launcher, restoring).await
    }

    fn subject(&self) -> Subject<'_> {
        let annotations = self.spec.annotations().as_ref();
        Subject {
            plan: &self.plan,
            namespaces: &self.namespaces,
            cgroup: &self.cgroup,
            config: annotations.and_then(|all| all.get(CRIU_CONFIG)).map(String::as_str),
        }
    }
}

/// What confines a process, in CRIU's words.
fn lsm_profile(process: &OciProcess) -> Option<String> {
    let named = |kind: &str, name: &Option<String>| {
        name.as_deref().filter(|name| !name.is_empty()).map(|name| format!("{kind}:{name}"))
    };
    named("apparmor", process.apparmor_profile())
        .or_else(|| named("selinux", process.selinux_label()))
}
