//! Adding a process to a container.

use std::os::fd::AsFd;

use oci_spec::runtime::Process as OciProcess;
use shim_core::{
    Error, Kind, Process, Result, Streams,
    model::{Bundle, Pid},
};

use super::{Console, Runtime, Status, own_streams};
use crate::{
    container::Joining,
    engine::{
        cgroup::{Cgroup, CgroupPath},
        plan::Choices,
        seccomp::Cache,
    },
    making::{self, Owner},
    record::Init,
    rootless,
};

/// A process to add.
#[derive(Clone, Debug)]
pub struct Exec {
    /// What to run, in OCI terms.
    pub process: OciProcess,
    /// What becomes of its terminal.
    pub console: Console,
    /// A cgroup below the container's, which has to be there; a path that is relative to it.
    pub cgroup: Option<String>,
    /// Add it to a container that is paused, too: it runs when that goes on.
    pub ignore_paused: bool,
}

impl Runtime {
    /// A container's own process, for one like it.
    ///
    /// # Errors
    /// `NotFound` when there is no container.
    pub fn process(&self, id: &str) -> Result<OciProcess> {
        let spec = self.find(id)?.spec()?;
        spec.process().clone().ok_or_else(|| Error::invalid("the spec has no process"))
    }

    /// Adds a process to a container.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container does not run; else why the program does not.
    pub async fn exec(&self, id: &str, wanted: Exec) -> Result<Process> {
        let Exec { mut process, console, cgroup, ignore_paused } = wanted;
        let folder = self.find(id)?;
        let saved = folder.load()?;
        let refuse = |why: &'static str| Err(Error::new(Kind::FailedPrecondition, why));
        match saved.status(&folder)? {
            Status::Stopped => return refuse("cannot exec in a stopped container"),
            Status::Creating => return refuse("cannot exec in a container that is being made"),
            Status::Paused if !ignore_paused => {
                return refuse(
                    "cannot exec in a paused container (use --ignore-paused to override)",
                );
            }
            _ => {}
        }
        let (Some(init), Some(Init { pid, .. })) = (saved.live_init(), saved.init) else {
            return refuse("cannot exec in a stopped container");
        };
        let terminal = process.terminal() == Some(true);
        let console = console.prepare(terminal)?;
        self.files.announce(&mut process);
        let mut spec = folder.spec()?;
        rootless::follow(&mut spec, init.as_fd())?;
        let filters = Cache::default();
        let bundle = Bundle::new(&saved.bundle)?;
        let (namespaces, inherited) =
            making::shared(&spec, id, &bundle, saved.has_keyring, &filters)?;
        let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
        let owner = Owner { uid: namespaces.outside(&spec, uid), ..Owner::default() };
        let streams = if terminal { Streams::Terminal } else { own_streams()? };
        let joining = Joining {
            launcher: &self.launcher(folder.path(), self.files)?,
            cgroup: &below(&saved.cgroup, cgroup.as_deref())?,
            namespaces: &namespaces,
            inherited: &inherited,
            owner,
            pid: Pid::new(pid)?,
            init: init.as_fd(),
        };
        let choices = Choices { kept_files: self.files.count(), ..Choices::default() };
        let launched = joining.add(&process, &streams, choices).await?;
        let terminal = console.hand_over(launched.terminal)?;
        Ok(Process { pid: launched.pid, exit: launched.exit, terminal: terminal.map(Into::into) })
    }
}

/// A container's cgroup, or one below it.
fn below(cgroup: &str, path: Option<&str>) -> Result<Cgroup> {
    let path = match path {
        // It is cleaned of `..`, so it stays below.
        Some(path) => CgroupPath::parse(&format!("{cgroup}/{path}")),
        None => CgroupPath::recorded(cgroup),
    };
    Cgroup::at(path?)
}
