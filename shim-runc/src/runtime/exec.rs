//! Adding a process to a container.

use std::os::fd::AsFd;

use oci_spec::runtime::Process as OciProcess;
use shim_core::{
    Context, Error, Kind, Process, Result, Streams,
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
    /// Cgroups below the container's, which have to be there, by paths that are relative to it: one for
    /// all hierarchies, or any number of `CONTROLLER[,CONTROLLER..]:PATH` for those of cgroup v1.
    pub cgroups: Vec<String>,
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
        let Exec { mut process, console, cgroups, ignore_paused } = wanted;
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
        let mut spec = saved.spec(&folder)?;
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
            cgroup: &below(saved.cgroup()?, &cgroups).context("cgroup")?,
            namespaces: &namespaces,
            inherited: &inherited,
            owner,
            pid: Pid::new(pid)?,
            init: init.as_fd(),
        };
        let choices = Choices {
            kept_files: self.files.count(),
            // What other processes were added, and may do, is not written down.
            is_watched: true,
            ..Choices::default()
        };
        let launched = joining.add(&process, &streams, choices).await?;
        let terminal = console.hand_over(launched.terminal)?;
        Ok(Process { pid: launched.pid, exit: launched.exit, terminal: terminal.map(Into::into) })
    }
}

/// A container's cgroup, or those below it that are asked for.
fn below(cgroup: Cgroup, asked: &[String]) -> Result<Cgroup> {
    if asked.is_empty() {
        return Ok(cgroup);
    }
    if cgroup.is_nowhere() {
        let why = "the container has none of its own";
        return Err(Error::new(Kind::FailedPrecondition, why));
    }
    let own = cgroup.path().clone();
    // It is cleaned of `..`, so it stays below.
    let path = |path: &str| CgroupPath::parse(&format!("{own}/{path}"));
    if let [all] = asked
        && !all.contains(':')
    {
        return Cgroup::at(path(all)?);
    }
    let mut paths = Vec::new();
    for one in asked {
        let split = one.split_once(':').filter(|(controllers, _)| !controllers.is_empty());
        let (controllers, below) = split.ok_or_else(|| {
            Error::invalid(format!("{one:?} names no controller, and is not the only one"))
        })?;
        for controller in controllers.split(',') {
            paths.push((controller, path(below)?));
        }
    }
    cgroup.apart(paths)
}
