//! A container's shares of cache and memory bandwidth: told, and changed while it runs.

use std::{collections::HashSet, fs};

use oci_spec::runtime::{Linux, LinuxIntelRdt};
use shim_core::{Context, Result, linux::start_time, model::Pid};

use super::{Runtime, Shares, folder::Folder, state::Saved};
use crate::{engine::resctrl::Group, record::Record};

/// What goes before the names of the kernel in an error.
const WHAT: &str = "cache and memory bandwidth";

/// How often those are looked for that were made meanwhile, by others that had not joined yet.
const ROUNDS: usize = 32;

impl Runtime {
    /// Tells what a container has and uses of cache and memory bandwidth; none without a class that the
    /// spec or an update gave it.
    ///
    /// # Errors
    /// `NotFound` when there is no container.
    pub fn shares(&self, id: &str) -> Result<Option<Shares>> {
        let folder = self.find(id)?;
        let spec = folder.load()?.spec(&folder)?;
        Ok(Group::of(&spec, id)?.map(|group| group.shares()))
    }
}

/// A change of them that is known to be possible.
pub(super) enum Change {
    /// Of the class that it has.
    Set(Group),
    /// It had none.
    Make(Group, LinuxIntelRdt),
}

impl Change {
    /// # Errors
    /// `Unsupported` on a host without them.
    pub(super) fn of(folder: &Folder, saved: &Saved, asked: &LinuxIntelRdt) -> Result<Self> {
        let spec = saved.spec(folder)?;
        let known = spec.linux().as_ref().and_then(|linux: &Linux| linux.intel_rdt().as_ref());
        let change = match known {
            None => Group::asked(asked, folder.id()).map(|group| Self::Make(group, asked.clone())),
            Some(known) => {
                let mut asked = asked.clone();
                asked.set_clos_id(known.clos_id().clone());
                Group::asked(&asked, folder.id()).and_then(|group| {
                    group.may_change()?;
                    Ok(Self::Set(group))
                })
            }
        };
        change.context(WHAT)
    }

    /// Makes the change. A class that is new takes all processes that there are.
    ///
    /// # Errors
    /// The kernel's reason.
    pub(super) fn make(
        self,
        folder: &Folder,
        mut saved: Saved,
        pids: impl Fn() -> Result<Vec<Pid>>,
    ) -> Result<()> {
        match self {
            Self::Set(group) => group.set().context(WHAT),
            Self::Make(group, asked) => {
                Record::go_on(folder.bundle())?.leaves(&group.left())?;
                group.make().context(WHAT)?;
                saved.shares = Some(asked);
                folder.save(&saved)?;
                fill(&group, pids).context(WHAT)
            }
        }
    }
}

/// Puts all threads into a class; what they make later follows them.
fn fill(group: &Group, pids: impl Fn() -> Result<Vec<Pid>>) -> Result<()> {
    let mut known = HashSet::new();
    for _ in 0..ROUNDS {
        let mut fresh: Vec<Pid> = pids()?.into_iter().flat_map(threads).collect();
        fresh.retain(|thread| known.insert(*thread));
        if fresh.is_empty() {
            break;
        }
        for thread in fresh {
            match group.join(thread) {
                // It has ended meanwhile.
                Err(_) if start_time(thread).is_err() => {}
                joined => joined?,
            }
        }
    }
    Ok(())
}

/// The threads of a process; none of one that has ended.
fn threads(pid: Pid) -> Vec<Pid> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(number).filter_map(|number| Pid::new(number).ok()).collect()
}
