//! The ground that a container stands on: its cgroup with all limits, and the record of it.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use oci_spec::runtime::{LinuxResources, Spec};
use shim_core::{
    Context, Result,
    model::{Bundle, Pid},
};

use crate::{
    engine::{
        cgroup::{self, Cgroup, Making, Mode},
        launch::{Launcher, Waiting},
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

/// A process that is in a unit so that there is one, until the container's own is.
///
/// That one could be given to systemd itself. But then it would not be born in its cgroup, which
/// would cost it the limits of its first moments, and the root of its cgroup namespace; and what is
/// moved by a pid waits for the kernel's grace period.
pub(crate) struct Keeper {
    waiting: Waiting,
    /// The container's, without the room that there is for the keeper.
    resources: Option<LinuxResources>,
}

impl Ground {
    /// Makes the cgroup, or nothing, with a keeper if it needs one. What is recorded is recorded first.
    ///
    /// # Errors
    /// `FailedPrecondition` when the cgroup is somebody else's.
    pub(crate) async fn lay(
        bundle: &Bundle,
        cgroup: Cgroup,
        group: Option<Group>,
        spec: &Spec,
        launcher: &Launcher,
    ) -> Result<(Self, Option<Keeper>)> {
        let (mut resources, owner) = (spec::resources(spec)?, spec::cgroup_owner(spec)?);
        let record = Record::begin(bundle, cgroup.path(), cgroup.unit())?;
        let forget = || {
            group.iter().for_each(leave);
            Record::erase(bundle);
        };
        if let Some(group) = &group {
            record.leaves(&group.left())?;
            group.make().inspect_err(|_| forget())?;
        }
        let mut keeper = None;
        if cgroup.unit().is_some() {
            // In a box of its own: most containers are not to carry the weight of it.
            let started =
                Box::pin(Keeper::start(&cgroup, spec, resources.as_ref(), launcher)).await;
            keeper = started.context("create the cgroup").inspect_err(|_| forget())?;
        }
        if keeper.is_some() {
            resources = resources.as_ref().map(cgroup::with_room);
        }
        let own = keeper.as_ref().map(|keeper| keeper.waiting.pid());
        match settle(&cgroup, &record, resources.as_ref(), (own, owner)) {
            Ok((making, unified)) => {
                let bundle = bundle.clone();
                Ok((Self { bundle, cgroup, making, record, resources, group, unified }, keeper))
            }
            Err(err) => {
                if let Some(keeper) = keeper {
                    keeper.waiting.dismiss().await;
                }
                if cgroup.unit().is_some() {
                    // It is ours, and nobody is in it.
                    remove(&cgroup).await;
                }
                forget();
                Err(err)
            }
        }
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
        remove(&self.cgroup).await;
        self.group.iter().for_each(leave);
        Record::erase(&self.bundle);
    }
}

/// Makes the directories, with the limits that a process has from its birth.
fn settle(
    cgroup: &Cgroup,
    record: &Record,
    resources: Option<&LinuxResources>,
    (own, owner): (Option<Pid>, Option<u32>),
) -> Result<(Making, Option<OwnedFd>)> {
    let making = cgroup.begin(own).context("create the cgroup")?;
    let settled = || -> Result<Option<OwnedFd>> {
        record.made()?;
        // On v2 a process is born in its cgroup; a hierarchy of v1 it joins by itself, later.
        if cgroup.mode() == Mode::V2 {
            making.limit(resources).context("create the cgroup")?;
        }
        if let Some(owner) = owner {
            cgroup.give_to(owner)?;
        }
        cgroup.unified().context("open the cgroup")
    };
    let unified = settled().inspect_err(|_| making.undo())?;
    Ok((making, unified))
}

async fn remove(cgroup: &Cgroup) {
    if let Err(left) = cgroup.remove_async().await {
        log::warn!("remove the cgroup of a container that was not made: {left:#}");
    }
}

/// Removes what a container has in resctrl, if it can be.
fn leave(group: &Group) {
    if let Err(left) = group.left().remove() {
        log::warn!("remove the class of a container that was not made: {left:#}");
    }
}

impl Keeper {
    /// Has systemd start the unit, with a process if it needs one.
    async fn start(
        cgroup: &Cgroup,
        spec: &Spec,
        resources: Option<&LinuxResources>,
        launcher: &Launcher,
    ) -> Result<Option<Self>> {
        let none = HashMap::new();
        let annotations = spec.annotations().as_ref().unwrap_or(&none);
        if !cgroup.needs_keeper() {
            cgroup.start_unit(None, resources, annotations).await?;
            return Ok(None);
        }
        let waiting = launcher.ahead(0, None, || ()).await?;
        match cgroup.start_unit(Some(waiting.pid()), resources, annotations).await {
            Ok(()) => Ok(Some(Self { waiting, resources: resources.cloned() })),
            Err(err) => {
                waiting.dismiss().await;
                Err(err)
            }
        }
    }

    /// Lets it go: the container's own process is in the unit now, or will not be.
    ///
    /// # Errors
    /// When its room can't be taken back.
    pub(crate) async fn release(self, ground: &Ground) -> Result<()> {
        self.waiting.dismiss().await;
        match &self.resources {
            Some(resources) => ground.cgroup.without_room(resources).context("create the cgroup"),
            None => Ok(()),
        }
    }

    /// Ends it, with a ground that is of no use.
    pub(crate) async fn dismiss(self) {
        self.waiting.dismiss().await;
    }
}
