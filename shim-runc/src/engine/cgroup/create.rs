//! Making a cgroup: a directory a hierarchy, then the limits.

use std::path::{Path, PathBuf};

use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::LinuxResources;
use shim_core::{Error, Kind, Result, model::Pid};

use super::{
    Cgroup, Mode, devices,
    dir::{self, Dir, Fresh},
    limits::{self, Files},
    processes,
};

/// A cgroup whose directories are made, and what it takes to make it undone.
#[derive(Debug)]
pub(crate) struct Making {
    cgroup: Cgroup,
    /// The directories that were not there before, parents first.
    made: Vec<PathBuf>,
    fresh: Fresh,
}

impl Making {
    /// Makes the directories, or nothing.
    pub(super) fn begin(cgroup: &Cgroup, own: Option<Pid>) -> Result<Self> {
        let mut making = Self { cgroup: cgroup.clone(), made: Vec::new(), fresh: Fresh::Made };
        match making.make_all(own) {
            Ok(()) => Ok(making),
            Err(err) => {
                making.undo();
                Err(err)
            }
        }
    }

    fn make_all(&mut self, own: Option<Pid>) -> Result<()> {
        for directory in self.cgroup.directories() {
            let done = dir::make(&directory.path, &mut self.made).map_err(|(path, err)| {
                Error::from(err).context(format!("make cgroup {}", path.display()))
            })?;
            if done == Fresh::Found {
                self.fresh = Fresh::Found;
                refuse_in_use(&self.cgroup, &directory.path, own)?;
            }
        }
        if self.fresh == Fresh::Found && self.cgroup.frozen()? {
            return Err(in_use(&self.cgroup, "is frozen"));
        }
        Ok(())
    }

    /// Sets the limits, which have to be there before a process is.
    ///
    /// # Errors
    /// `InvalidArgument` for limits that make no sense, or the one that could not be set.
    pub(crate) fn limit(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let cgroup = &self.cgroup;
        hand_down(cgroup, resources);
        let cpuset = cgroup.hierarchies.v1_of("cpuset").map(|cpuset| cpuset.root.as_path());
        let path = |root: &Path| root.join(cgroup.path.relative());
        if let Some(root) = cpuset.filter(|_| resources.is_some_and(limits::ask_for_cpuset)) {
            // A part of the parent's sets: so these have to be there first.
            limits::fill_cpuset(root, path(root).parent().unwrap_or(root))?;
        }
        if let Some(resources) = resources {
            limits::set(cgroup, resources)?;
            // Without a cgroup there is nothing to deny them by; the kernel denies users their making.
            let devices = resources.devices().as_ref().filter(|_| !cgroup.path.is_nowhere());
            if let Some(list) = devices.filter(|list| !list.is_empty()) {
                devices::set(&Files::of(cgroup, "devices", "devices"), list, self.fresh)?;
            }
        }
        cpuset.map_or(Ok(()), |root| limits::fill_cpuset(root, &path(root)))
    }

    /// Removes the directories that were made, when nobody is in them.
    pub(crate) fn undo(&self) {
        for path in self.made.iter().rev() {
            // A parent may have become somebody else's as well: then it stays.
            let _ = unlinkat(nix::fcntl::AT_FDCWD, path, UnlinkatFlags::RemoveDir);
        }
    }
}

fn refuse_in_use(cgroup: &Cgroup, path: &Path, own: Option<Pid>) -> Result<()> {
    match processes::below(path)?.into_iter().filter(|pid| Some(*pid) != own).count() {
        0 => Ok(()),
        1 => Err(in_use(cgroup, "has a process already")),
        count => Err(in_use(cgroup, &format!("has {count} processes already"))),
    }
}

fn in_use(cgroup: &Cgroup, how: &str) -> Error {
    Error::new(Kind::FailedPrecondition, format!("cgroup {} {how}", cgroup.path))
}

/// Hands v2 controllers down to the container: all of them on a v2 host, as runc does, so that the
/// counters are there too; beside v1 only those that limits need.
///
/// What can't be handed down is found out by the limit that needs it, whose message is better.
pub(super) fn hand_down(cgroup: &Cgroup, resources: Option<&LinuxResources>) {
    let Some(unified) = &cgroup.hierarchies.unified else { return };
    let wanted: Vec<&str> = match cgroup.hierarchies.mode {
        Mode::V2 => unified.controllers.iter().map(String::as_str).collect(),
        _ => resources.map_or_else(Vec::new, |r| limits::unified_controllers(cgroup, r)),
    };
    if wanted.is_empty() {
        return;
    }
    let path = unified.root.join(cgroup.path.relative());
    let has_all =
        |list: String| wanted.iter().all(|name| list.split_whitespace().any(|n| n == *name));
    // One read instead of several writes, for every container but the first below a parent.
    if Dir::open(&path).and_then(|dir| dir.read("cgroup.controllers")).is_ok_and(has_all) {
        return;
    }
    let mut above: Vec<_> =
        path.ancestors().skip(1).take_while(|above| above.starts_with(&unified.root)).collect();
    above.reverse();
    let all = wanted.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    for dir in above.into_iter().filter_map(|path| Dir::open(path).ok()) {
        if dir.write("cgroup.subtree_control", &all).is_err() {
            // The kernel takes all or none: one that it can't hand down must not keep the others.
            for one in all.split(' ') {
                let _ = dir.write("cgroup.subtree_control", one);
            }
        }
    }
}
