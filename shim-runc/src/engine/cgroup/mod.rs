//! A container's cgroup: making it with its limits, entering, freezing, counting, killing and
//! removing it, on v1, hybrid and v2 hosts alike.
//!
//! Two rules keep a start fast:
//! - Limits are set before a process joins, so that nothing runs without them.
//! - Nothing here writes to `cgroup.procs`: that waits for a grace period of RCU, 5 to 35 ms. On v2
//!   a child is cloned into its cgroup; on v1 it writes `0` to `tasks` itself. See
//!   [`Cgroup::tasks`].

mod apart;
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper in nix")]
mod bpf;
mod create;
mod delegate;
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
mod systemd;
#[cfg(test)]
mod v1_file_tests;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::stats::read_counters;

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};

use nix::{
    fcntl::{OFlag, open},
    sys::stat,
};
use oci_spec::runtime::LinuxResources;
use shim_core::{
    Context, Result,
    model::{Pid, Stats},
};

pub use self::path::Driver;
use self::{apart::Apart, dir::Dir};
pub(crate) use self::{
    create::Making,
    hierarchy::{Hierarchies, Mode},
    path::{CgroupPath, Place},
    systemd::{unit::Unit, with_room},
};

/// A container's place in the hierarchies. It makes nothing by itself.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    hierarchies: Arc<Hierarchies>,
    path: CgroupPath,
    /// What systemd makes it as, if it does.
    unit: Option<Arc<Unit>>,
    apart: Apart,
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

impl Cgroup {
    /// A cgroup of this host. The hierarchies are looked for once in a process.
    ///
    /// # Errors
    /// When the host has no cgroups.
    pub(crate) fn at(place: impl Into<Place>) -> Result<Self> {
        let Place { path, unit } = place.into();
        let unit = unit.map(Arc::new);
        let mut hierarchies = Hierarchies::of_host()?;
        if path.is_nowhere() {
            hierarchies = Arc::new(hierarchies.none());
        }
        Ok(Self { unit, ..Self::under(hierarchies, path) })
    }

    /// Looks for the hierarchies, so that they are known when they are needed.
    pub(crate) fn prepare() {
        // Whoever needs them is told why there are none.
        let _ = Hierarchies::of_host();
    }

    /// A cgroup in hierarchies that were found elsewhere.
    pub(crate) fn under(hierarchies: Arc<Hierarchies>, path: CgroupPath) -> Self {
        Self { hierarchies, path, unit: None, apart: Arc::default() }
    }

    /// The unit that it is, if systemd makes it.
    pub(crate) fn unit(&self) -> Option<&Unit> {
        self.unit.as_deref()
    }

    /// The path below each hierarchy's root.
    pub(crate) fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Whether it is none: the container stays where its maker was.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.path.is_nowhere()
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
                path: root.join(self.relative_in(name)),
            })
            .collect()
    }

    /// Whether any of the directories is there.
    pub(crate) fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.path.exists())
    }

    /// Makes the cgroup in every hierarchy, without limits yet; what it made is gone again after an
    /// error. The process is one of its own, if it has one.
    ///
    /// # Errors
    /// `FailedPrecondition` when the cgroup is frozen or has other processes: it is somebody else's.
    pub(crate) fn begin(&self, own: Option<Pid>) -> Result<Making> {
        Making::begin(self, own)
    }

    /// Makes it with its limits, or nothing.
    #[cfg(test)]
    fn create(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let making = self.begin(None)?;
        making.limit(resources).inspect_err(|_| making.undo())
    }

    /// The hierarchies of v1 that a child joins, in the order of [`Self::tasks`].
    pub(crate) fn joined(&self) -> impl Iterator<Item = &str> {
        self.hierarchies.v1.iter().map(|found| found.name.as_str())
    }

    /// Opens a `tasks` file for each hierarchy of v1, close-on-exec. A child, which has one thread,
    /// writes `0` to each to join it.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub(crate) fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let v1 = self.hierarchies.v1.iter();
        v1.map(|found| {
            let path = found.root.join(self.relative_in(&found.name)).join("tasks");
            let opened = open(&path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, stat::Mode::empty());
            opened.with_context(|| format!("open {}", path.display()))
        })
        .collect()
    }

    /// Opens the v2 directory, if there is one: for `CLONE_INTO_CGROUP`, and to open `cgroup.procs`
    /// where that fails.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub(crate) fn unified(&self) -> Result<Option<OwnedFd>> {
        let Some(unified) = &self.hierarchies.unified else { return Ok(None) };
        let path = unified.root.join(self.path.relative());
        let opened = Dir::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Some(opened.into_fd()))
    }

    /// Hands the cgroup to a user of the host, where it is one of v2 alone; its limits stay the host's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn give_to(&self, uid: u32) -> Result<()> {
        if self.mode() == Mode::V2 { delegate::give(self, uid) } else { Ok(()) }
    }

    /// Opens the v2 directory for a process that is added to a running container.
    ///
    /// A container that hands controllers down has none but the cgroups below for its processes
    /// (cgroup-v2.rst, "No Internal Process Constraint"): then it is the init process's, as runc does.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub(crate) fn unified_beside(&self, init: Pid) -> Result<Option<OwnedFd>> {
        let divided = match &self.hierarchies.unified {
            Some(unified) if self.mode() == Mode::V2 => processes::divided(self, unified, init),
            _ => None,
        };
        match divided {
            // It may have gone meanwhile.
            Some(path) => match Dir::open(&path) {
                Ok(dir) => Ok(Some(dir.into_fd())),
                Err(_) => self.unified(),
            },
            None => self.unified(),
        }
    }

    /// Changes the limits that are given.
    ///
    /// Devices are left alone, as `runc update` does: engines send the spec's list back, without
    /// the devices that a runtime always allows.
    ///
    /// # Errors
    /// The limit that could not be set; those before it are.
    pub(crate) async fn update(&self, resources: &LinuxResources) -> Result<()> {
        let whole = self.unit.as_ref().map(|_| limits::completed(self, resources)).transpose()?;
        let resources = whole.as_ref().unwrap_or(resources);
        self.update_unit(resources).await?;
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
    pub(crate) fn thaw(&self) -> Result<()> {
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

    /// Removes the cgroup and those below it, and its unit. Blocks for a while when processes still die: for the
    /// `delete` mode, which has no runtime.
    ///
    /// # Errors
    /// The directory that stays, and why.
    pub(crate) fn remove(&self) -> Result<()> {
        let stopped = self.stop_unit_blocking();
        remove::remove(self).and(stopped)
    }

    /// As [`Cgroup::remove`], waiting on the runtime's clock.
    ///
    /// # Errors
    /// As [`Cgroup::remove`].
    pub(crate) async fn remove_async(&self) -> Result<()> {
        let stopped = self.stop_unit().await;
        remove::remove_async(self).await.and(stopped)
    }
}
