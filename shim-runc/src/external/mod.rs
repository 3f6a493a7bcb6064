//! Containers that another OCI runtime makes: runc, crun, gVisor's runsc.
//!
//! ```text
//! shim ── fork, exec ──▶ runtime create ──▶ init     the runtime ends, and init is the shim's,
//!   ◀──── pid file, SCM_RIGHTS ◀──┘          │        which is the subreaper
//!   ◀──────────────── exit, by pidfd ────────┘
//! ```
//! A verb is one command (`cli`), run to its end (`command`); what it logs becomes the error
//! (`failure`). No exit is lost: while a command may leave a process behind, the reaper collects no
//! orphans, and a pid file names one of those. A container in a pod's process has no pid (`member`). What
//! only reads, reads the cgroup (`place`), for a
//! command costs as much as all else here.

mod cli;
mod command;
mod console;
mod container;
mod failure;
mod life;
mod member;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use failure::read_log;
mod place;
mod process;
mod runtime;
mod usage;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use shim_core::{
    Container, Create, Created, Error, Host, Init, Kind, Result,
    linux::Reaper,
    model::{Bundle, ContainerId, Namespace},
};
use tokio::{runtime::Builder, time::timeout};

pub(crate) use self::runtime::{Asked, Runtime};
use self::{
    command::{Caller, Io},
    container::{ExternalContainer, Parts},
    process::Whose,
};
use crate::{
    engine::cgroup::{Cgroup, CgroupPath, Driver, Place},
    making::Owner,
    options::Options,
    record::Record,
    spec,
};

/// containerd gives `delete` five seconds, in which processes have to be ended too.
const DELETE_LIMIT: Duration = Duration::from_secs(3);

/// Makes a container by the runtime that the options name, or nothing.
pub(crate) async fn create(
    options: &Options,
    asked: &Asked,
    mut request: Create,
) -> Result<Created<Box<dyn Container>>> {
    let runtime = Runtime::find(asked, &request.host.namespace)?;
    if request.checkpoint.is_none() {
        request.checkpoint.clone_from(&options.criu_image_path);
    }
    let how = How {
        owner: Owner::chosen(options),
        making: cli::Making::of(options),
        driver: options.driver,
    };
    make(runtime, how, request).await
}

/// How a runtime is asked to make a container.
#[derive(Default)]
struct How {
    owner: Owner,
    making: cli::Making,
    /// Who makes the cgroup.
    driver: Driver,
}

/// Makes a container by a runtime, or nothing.
async fn make(runtime: Runtime, how: How, request: Create) -> Result<Created<Box<dyn Container>>> {
    let How { owner, making, driver } = how;
    let Create { id, bundle, streams, checkpoint, host, .. } = request;
    let spec = spec::read(&bundle).ok();
    let path = spec.as_deref().and_then(spec::cgroup);
    let cgroup = Cgroup::at(asked_place(driver, path, &host.namespace, &id)?)?;
    let record = Record::begin(&bundle, cgroup.path(), cgroup.unit())?;
    record.driven_by(&runtime)?;
    let is_fresh = !cgroup.exists();
    if is_fresh {
        record.made()?;
    }
    let is_others = runtime.knows(&id);
    let container = ExternalContainer::new(Parts {
        caller: Caller::new(runtime, host.reaper, &bundle),
        id,
        bundle,
        owner,
        making,
        whose: spec.as_deref().map_or(Whose::Own, Whose::of),
        fresh: is_fresh.then_some(cgroup),
        has_own_pids: spec.as_ref().is_some_and(|spec| spec::has_own_pids(spec)),
    });
    if let Some(checkpoint) = checkpoint {
        container.keep(checkpoint, streams);
        return Ok(Created { container: Box::new(container), init: Init::AtStart });
    }
    match container.make(streams).await {
        Ok(process) => Ok(Created { container: Box::new(container), init: process.into() }),
        Err(err) => {
            // What was refused because it is another's must stay.
            if !is_others && err.kind() != Kind::AlreadyExists {
                container.undo().await;
            }
            Record::erase(container.bundle());
            Err(err)
        }
    }
}

/// Where the runtime is asked to put a container.
fn asked_place(
    driver: Driver,
    path: Option<&Path>,
    namespace: &Namespace,
    id: &ContainerId,
) -> Result<Place> {
    let (above, id) = (namespace.as_str(), id.as_str());
    match Place::of(driver, path, above, id) {
        // crun takes other texts than runc does, and only it knows what they mean.
        Err(_) if driver == Driver::Systemd => CgroupPath::of(path, above, id).map(Place::from),
        place => place,
    }
}

/// An OCI runtime that is driven by its command line, for those who build on its containers.
#[derive(Clone, Debug)]
pub struct OciRuntime(Runtime);

impl OciRuntime {
    /// Looks up a runtime by its path, or its name in `PATH`. Its state goes below `root`, and `flags`
    /// stand before every verb.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such executable file.
    pub fn find(binary: &str, root: PathBuf, flags: Vec<String>) -> Result<Self> {
        Runtime::at(binary, root, flags).map(Self)
    }

    /// Makes a container, or nothing. What a later [`clean_up`](crate::clean_up) needs to know is left in the bundle.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn create(&self, request: Create) -> Result<Created<Box<dyn Container>>> {
        make(self.0.clone(), How::default(), request).await
    }

    /// Removes what a creation has left that was given up. Processes in its cgroup are the caller's.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn remove(&self, id: &ContainerId, bundle: &Bundle, host: &Host) -> Result<()> {
        if self.0.knows(id) {
            let caller = Caller::new(self.0.clone(), host.reaper.clone(), bundle);
            caller.call(cli::force_delete(id), Io::Kept).await?;
        }
        Record::erase(bundle);
        Ok(())
    }
}

/// Has the runtime remove what it knows of a dead shim's container, and end it.
///
/// # Errors
/// Why it did not; what the shim knows by itself is still to be removed.
pub(crate) fn clean_up(runtime: &Runtime, id: &ContainerId, bundle: &Bundle) -> Result<()> {
    if !runtime.knows(id) {
        return Ok(());
    }
    let deleted = alone(async |reaper| {
        let caller = Caller::new(runtime.clone(), reaper, bundle);
        caller.call(cli::force_delete(id), Io::Kept).await.map(drop)
    });
    match deleted.and_then(|deleted| deleted) {
        // Of two that delete at once one finds things missing.
        Err(err) if !runtime.knows(id) => {
            log::debug!("{err:#}");
            Ok(())
        }
        deleted => deleted,
    }
}

/// The features document of the runtime that the options name; none where it has no such command.
pub(crate) fn features(asked: &Asked) -> Option<String> {
    let told = alone(async |reaper| {
        let runtime = Runtime::find(asked, &Namespace::parse("default").ok()?).ok()?;
        let text = command::ask(&runtime, &reaper, cli::features()).await.ok()?;
        // An old runtime prints its usage, and says that all is well.
        serde_json::from_slice::<serde_json::Map<_, _>>(text.as_bytes()).ok()?;
        Some(text)
    });
    told.ok().flatten()
}

/// Runs in a process that does not serve.
fn alone<T>(work: impl AsyncFnOnce(Reaper) -> T) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let worked = runtime.block_on(async { timeout(DELETE_LIMIT, work(Reaper::default())).await });
    // A command that goes on is killed with this process.
    worked.map_err(|_| Error::new(Kind::TimedOut, "the runtime does not come to an end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_recorded_where_systemd_is_to_make_the_cgroup() {
        let (namespace, id) =
            (Namespace::parse("k8s.io").unwrap(), ContainerId::parse("c").unwrap());
        let place =
            |driver, path| asked_place(driver, Some(Path::new(path)), &namespace, &id).unwrap();
        let unit = place(Driver::Systemd, "a.slice:cri:c1");
        assert!(unit.path.as_str().ends_with("/a.slice/cri-c1.scope"), "{}", unit.path);
        assert_eq!(unit.unit.unwrap().name(), "cri-c1.scope");
        for (driver, path) in [(Driver::Files, "a.slice:cri:c1"), (Driver::Systemd, "a/c1")] {
            let place = place(driver, path);
            assert_eq!((place.path.as_str(), place.unit), (&*format!("/{path}"), None));
        }
    }
}
