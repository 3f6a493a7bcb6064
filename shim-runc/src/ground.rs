//! The ground that a container stands on: its cgroup with all limits, and the record of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxResources, Spec};
use shim_core::{
    Context, Result,
    model::{Bundle, Pid},
};

use crate::{
    engine::{
        cgroup::{Cgroup, Making, Mode},
        resctrl::Group,
    },
    record::Record,
    spec,
};

/// A cgroup that has been made for a container, and is named in its bundle.
#[derive(Debug)]
pub(crate) struct Ground {
    bundle: Bundle,
    cgroup: Cgroup,
    making: Making,
    record: Record,
    resources: Option<LinuxResources>,
    group: Option<Group>,
    unified: Option<OwnedFd>,
}

impl Ground {
    /// Makes the cgroup, or nothing. What is recorded is recorded first.
    ///
    /// # Errors
    /// `FailedPrecondition` when the cgroup is somebody else's.
    pub(crate) fn lay(
        bundle: &Bundle,
        cgroup: Cgroup,
        group: Option<Group>,
        spec: &Spec,
    ) -> Result<Self> {
        let resources = spec::resources(spec)?;
        let record = Record::begin(bundle, cgroup.path())?;
        if let Some(group) = &group {
            record.leaves(&group.left())?;
            group.make().inspect_err(|_| leave(group))?;
        }
        let laid = || -> Result<_> {
            let making = cgroup.begin().context("create the cgroup")?;
            let settled = || -> Result<Option<OwnedFd>> {
                record.made()?;
                // On v2 a process is born in its cgroup; a hierarchy of v1 it joins by itself, later.
                if cgroup.mode() == Mode::V2 {
                    making.limit(resources.as_ref()).context("create the cgroup")?;
                }
                if let Some(owner) = spec::cgroup_owner(spec)? {
                    cgroup.give_to(owner)?;
                }
                cgroup.unified().context("open the cgroup")
            };
            let unified = settled().inspect_err(|_| making.undo())?;
            Ok((making, unified))
        };
        let (making, unified) = laid().inspect_err(|_| {
            group.iter().for_each(leave);
            Record::erase(bundle);
        })?;
        Ok(Self { bundle: bundle.clone(), cgroup, making, record, resources, group, unified })
    }

    /// The cgroup.
    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its directory of v2, for a process to be born in.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Opens its `tasks` files of v1, with all limits in force: see [`Cgroup::tasks`].
    ///
    /// # Errors
    /// The limit that could not be set.
    pub(crate) fn tasks(&self) -> Result<Vec<OwnedFd>> {
        if self.cgroup.mode() != Mode::V2 {
            self.making.limit(self.resources.as_ref()).context("create the cgroup")?;
        }
        self.cgroup.tasks().context("open the cgroup")
    }

    /// Records the container's first process.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn born(&self, pid: Pid) -> Result<()> {
        self.record.born(pid)?;
        self.group.as_ref().map_or(Ok(()), |group| group.join(pid))
    }

    /// Removes the directories again in which nobody is.
    pub(crate) fn undo(&self) {
        self.making.undo();
        self.group.iter().for_each(leave);
    }

    /// Removes all of it, as soon as those in it are dead.
    pub(crate) async fn abandon(self) {
        if let Err(left) = self.cgroup.remove_async().await {
            log::warn!("remove the cgroup of a container that was not made: {left:#}");
        }
        self.group.iter().for_each(leave);
        Record::erase(&self.bundle);
    }
}

/// Removes what a container has in resctrl, if it can be.
fn leave(group: &Group) {
    if let Err(left) = group.left().remove() {
        log::warn!("remove the class of a container that was not made: {left:#}");
    }
}
