//! A container's cgroup: making it with its limits, entering, freezing, counting, killing and
//! removing it, on v1, hybrid and v2 hosts alike.
//!
//! Two rules keep a start fast:
//! - Limits are set before there is a process, so that nothing runs without them.
//! - Nothing here writes to `cgroup.procs`: that waits for a grace period of RCU, 5 to 35 ms. On v2
//!   a child is cloned into its cgroup; on v1 it writes `0` to `tasks` itself. See [`Joins`].

#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper in nix")]
mod bpf;
mod create;
mod devices;
mod dir;
#[cfg(test)]
mod file_tests;
mod freeze;
mod hierarchy;
#[cfg(test)]
mod kernel_tests;
mod limits;
mod path;
mod processes;
mod remove;
mod stats;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat,
};
use oci_spec::runtime::LinuxResources;
use shim_core::{
    Error, Result,
    model::{Pid, Stats},
};

use self::dir::Dir;
pub(crate) use self::{
    hierarchy::{Hierarchies, Mode},
    path::CgroupPath,
};

/// A container's place in the hierarchies. It makes nothing by itself.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    hierarchies: Arc<Hierarchies>,
    path: CgroupPath,
}

/// The container's directory in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    /// `cpu,cpuacct` or `name=systemd` on v1, empty on v2.
    pub(crate) hierarchy: String,
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The container's directory.
    pub(crate) path: PathBuf,
}

/// What a child needs to enter a cgroup.
#[derive(Debug)]
pub(crate) struct Joins {
    /// The v1 hierarchies. The child, which has one thread, writes `0` to each.
    pub(crate) tasks: Vec<Tasks>,
    /// The v2 directory, for `CLONE_INTO_CGROUP` and to open `cgroup.procs` where that fails.
    pub(crate) unified: Option<OwnedFd>,
}

/// A `tasks` file that is open for writing.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// As [`Directory::hierarchy`], for messages.
    pub(crate) hierarchy: String,
    /// The file, close-on-exec.
    pub(crate) fd: OwnedFd,
}

impl Cgroup {
    /// A cgroup of this host. The hierarchies are looked for once in a process.
    ///
    /// # Errors
    /// When the host has no cgroups.
    pub(crate) fn at(path: CgroupPath) -> Result<Self> {
        Ok(Self::under(Hierarchies::of_host()?, path))
    }

    /// Looks for the hierarchies, so that they are known when they are needed.
    pub(crate) fn prepare() {
        // Whoever needs them is told why there are none.
        let _ = Hierarchies::of_host();
    }

    /// A cgroup in hierarchies that were found elsewhere.
    pub(crate) fn under(hierarchies: Arc<Hierarchies>, path: CgroupPath) -> Self {
        Self { hierarchies, path }
    }

    /// The path below each hierarchy's root.
    pub(crate) fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// How the host spreads its controllers.
    pub(crate) fn mode(&self) -> Mode {
        self.hierarchies.mode
    }

    /// The container's directory in each hierarchy, there or not: to mount them inside, for one.
    pub(crate) fn directories(&self) -> Vec<Directory> {
        let v1 = self.hierarchies.v1.iter().map(|found| (found.name.as_str(), &found.root));
        let unified = self.hierarchies.unified.iter().map(|unified| ("", &unified.root));
        v1.chain(unified)
            .map(|(name, root)| Directory {
                hierarchy: name.to_owned(),
                mount: root.clone(),
                path: root.join(self.path.relative()),
            })
            .collect()
    }

    /// Whether any of the directories is there.
    pub(crate) fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.path.exists())
    }

    /// Makes the cgroup in every hierarchy and sets its limits; what it made is gone again after
    /// an error.
    ///
    /// # Errors
    /// `FailedPrecondition` when the cgroup is frozen or has processes: it is somebody else's.
    /// `InvalidArgument` for limits that make no sense.
    pub(crate) fn create(&self, resources: Option<&LinuxResources>) -> Result<()> {
        create::create(self, resources)
    }

    /// Opens what children need to enter. Each child can use it again.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub(crate) fn joins(&self) -> Result<Joins> {
        let mut joins = Joins { tasks: Vec::new(), unified: None };
        for Directory { hierarchy, path, .. } in self.directories() {
            let opened = |err: Errno, path: &Path| {
                Error::from(err).context(format!("open {}", path.display()))
            };
            if hierarchy.is_empty() {
                let dir = Dir::open(&path).map_err(|err| opened(err, &path))?;
                joins.unified = Some(dir.into_fd());
            } else {
                let path = path.join("tasks");
                let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let fd =
                    open(&path, flags, stat::Mode::empty()).map_err(|err| opened(err, &path))?;
                joins.tasks.push(Tasks { hierarchy, fd });
            }
        }
        Ok(joins)
    }

    /// Changes the limits that are given.
    ///
    /// Devices are left alone, as `runc update` does: engines send the spec's list back, without
    /// the devices that a runtime always allows.
    ///
    /// # Errors
    /// The limit that could not be set; those before it are.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<()> {
        create::hand_down(self, Some(resources));
        limits::set(self, resources)
    }

    /// Freezes every process, and returns when all stand still.
    ///
    /// # Errors
    /// `TimedOut` when some don't; all are thawed then. `Unsupported` without a freezer.
    pub(crate) async fn freeze(&self) -> Result<()> {
        freeze::freeze(self).await
    }

    /// Lets every process run again.
    ///
    /// # Errors
    /// `Unsupported` without a freezer.
    pub(crate) async fn thaw(&self) -> Result<()> {
        freeze::thaw(self)
    }

    /// Whether every process stands still, by this cgroup's own doing.
    ///
    /// # Errors
    /// When the freezer can't be read.
    pub(crate) fn frozen(&self) -> Result<bool> {
        freeze::frozen(self)
    }

    /// Counts what the container uses.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone.
    pub(crate) fn stats(&self) -> Result<Stats> {
        stats::read(self)
    }

    /// Lists the processes, those in cgroups below too. A cgroup that is gone has none.
    ///
    /// # Errors
    /// When a list can't be read.
    pub(crate) fn pids(&self) -> Result<Vec<Pid>> {
        processes::list(self)
    }

    /// Sends SIGKILL to every process, frozen ones too. It does not wait until they are dead.
    ///
    /// # Errors
    /// When a process can't be signalled.
    pub(crate) fn kill(&self) -> Result<()> {
        processes::kill(self)
    }

    /// Removes the cgroup and those below it. Blocks for a while when processes still die: for the
    /// `delete` mode, which has no runtime.
    ///
    /// # Errors
    /// The directory that stays, and why.
    pub(crate) fn remove(&self) -> Result<()> {
        remove::remove(self)
    }

    /// As [`Cgroup::remove`], waiting on the runtime's clock.
    ///
    /// # Errors
    /// As [`Cgroup::remove`].
    pub(crate) async fn remove_async(&self) -> Result<()> {
        remove::remove_async(self).await
    }
}
