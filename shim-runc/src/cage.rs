//! A cgroup for processes that are no container: for those who build on the engine, such as the shim of a
//! virtual machine.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use oci_spec::runtime::LinuxResources;
use shim_core::{
    Context, Result,
    linux::{open_pid, wait_gone},
    model::{Pid, Stats},
};

use crate::engine::cgroup::{Cgroup, CgroupPath};

/// A cgroup by its path. It makes nothing by itself.
#[derive(Clone, Debug)]
pub struct Cage {
    cgroup: Cgroup,
}

impl Cage {
    /// A cgroup by its path below the root of each hierarchy.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that leads out of there; else when the host has no cgroups.
    pub fn at(path: &str) -> Result<Self> {
        Ok(Self { cgroup: Cgroup::at(CgroupPath::parse(path)?)? })
    }

    /// The path below the root of each hierarchy.
    pub fn path(&self) -> &str {
        self.cgroup.path().as_str()
    }

    /// Makes the cgroup in every hierarchy with its limits, or nothing.
    ///
    /// # Errors
    /// `FailedPrecondition` when somebody is in it; else the limit that could not be set.
    pub fn make(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let making = self.cgroup.begin(None)?;
        making.limit(resources).inspect_err(|_| making.undo())
    }

    /// The files into which a process writes `0` to join: `tasks` of each hierarchy of v1, `cgroup.procs`
    /// of v2.
    pub fn doors(&self) -> Vec<PathBuf> {
        let door = |v1: bool| if v1 { "tasks" } else { "cgroup.procs" };
        let directories = self.cgroup.directories().into_iter();
        directories.map(|dir| dir.path.join(door(!dir.hierarchy.is_empty()))).collect()
    }

    /// Every process in it, those of cgroups below too.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        if self.cgroup.exists() { self.cgroup.pids() } else { Ok(Vec::new()) }
    }

    /// The use of resources.
    ///
    /// # Errors
    /// Which file could not be read.
    pub fn stats(&self) -> Result<Stats> {
        self.cgroup.stats()
    }

    /// Kills every process in it, waits until they are gone, and removes it. Succeeds when there is none.
    ///
    /// # Errors
    /// `TimedOut` when a process would not go within the limit; else what could not be removed.
    pub fn end(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                break;
            }
            self.cgroup.kill().context("kill what is in the cgroup")?;
            for pid in pids {
                // They may be nobody's children, or another's: their end is seen through a pidfd.
                if let Ok(pidfd) = open_pid(pid) {
                    wait_gone(&pidfd, deadline).with_context(|| format!("end process {pid}"))?;
                }
            }
        }
        if self.cgroup.exists() {
            self.cgroup.remove().context("remove the cgroup")?;
        }
        Ok(())
    }
}
