//! From a spec to a plan: what to do, in which order, with which files of the host.
//!
//! Everything here is computed and checked without touching the system, one file a concern of
//! `config.json`; [`super::files`] opens what a plan names.

mod asked;
mod capabilities;
mod cgroups;
mod confine;
mod devices;
mod hooks;
#[cfg(any(test, feature = "fuzzing"))]
mod invariants;
mod masks;
mod mounts;
mod namespaces;
mod options;
mod outside;
mod path;
mod process;
#[cfg(test)]
mod property_tests;
mod refuse;
mod scheduling;
mod source;
mod sysctl;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use oci_spec::runtime::Process;
use shim_core::{Error, Result, model::Pid};

pub(crate) use asked::{Asked, Choices, Facts, Hierarchy, Inherited, Starter};
pub(crate) use capabilities::{all as capabilities, is_known as is_capability, may_trace};
pub(crate) use confine::Modules;
pub(crate) use hooks::{Hook, Hooks};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use invariants::check_all;
pub(crate) use mounts::system_mounts;
pub(crate) use namespaces::{Mappings, Namespaces};
pub(crate) use process::Limit;
pub(crate) use refuse::check;
pub(crate) use source::{Idmap, Source, Tree};

use super::{
    agent::Agent,
    net::Moves,
    stem::Request,
    step::Step,
    wire::{Slot, Text},
};

/// Where a mount's target may be, and what becomes of it.
pub(crate) mod place {
    /// The target may be inside procfs.
    pub(crate) const IN_PROC: u64 = 1;
    /// The target has to be a directory that no symlink leads to.
    pub(crate) const ORDINARY: u64 = 2;
    /// What is at the target is copied into the mount.
    pub(crate) const COPY_UP: u64 = 4;
}

/// The first two files of every request are the plan and the child's socket.
pub(crate) const FIRST_SLOT: usize = 2;

/// A container's or a process's making, complete but for the cgroup.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What the child does, in this order.
    pub(crate) steps: Vec<Step>,
    /// What the shim opens for it.
    pub(crate) sources: Vec<Source>,
    /// What the stem is asked.
    pub(crate) request: Request,
    /// The user namespace's, when a new one is made.
    pub(crate) mappings: Option<Mappings>,
    /// The score that the out-of-memory killer goes by.
    pub(crate) oom_score: Option<i32>,
    /// Resource limits; the child sets them.
    pub(crate) limits: Vec<Limit>,
    /// Interfaces of the host that become the container's.
    pub(crate) moves: Option<Moves>,
    /// The child may not raise hard limits, so the shim does.
    pub(crate) raises_limits: bool,
    /// Who decides about calls that the filter does not.
    pub(crate) agent: Option<Arc<Agent>>,
    /// The container's init process, for one that is added to it.
    pub(crate) init: Option<Pid>,
    /// What was left out of the spec, for the log.
    pub(crate) warnings: Vec<String>,
}

/// What is planned so far.
#[derive(Debug, Default)]
struct Draft {
    plan: Plan,
    /// Mounts that become read-only when nothing more is put into them.
    sealed: Vec<Text>,
    /// The SELinux label of the files of new filesystems.
    label: Option<Text>,
}

impl Draft {
    fn step(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    fn file(&mut self, source: Source) -> Slot {
        self.plan.file(source)
    }

    /// Begins a plan: a session of its own, and what the shim sets from outside.
    fn settings(
        &mut self,
        process: &Process,
        namespaces: &Namespaces,
        inherited: &Inherited,
    ) -> Result<()> {
        confine::program(self, process, inherited.modules)?;
        self.step(Step::StartSession {});
        self.plan.agent.clone_from(&inherited.agent);
        self.plan.oom_score = process.oom_score_adj().or(inherited.oom_score);
        // Inside a user namespace no one may raise a hard limit.
        let raises = namespaces.has_users() && process.rlimits().is_some();
        let maps = namespaces.is_new(libc::CLONE_NEWUSER);
        self.plan.raises_limits = raises;
        let moves = self.plan.moves.is_some();
        if self.plan.oom_score.is_some() || raises || maps || moves {
            self.step(Step::AwaitSettings {});
        }
        Ok(())
    }

    /// A session keyring of the container's own: the shim's is nobody's business inside.
    fn keyring(&mut self, inherited: &Inherited) -> Result<()> {
        if let Some(keyring) = &inherited.keyring {
            self.step(Step::JoinKeyring { name: Text::new(keyring)? });
        }
        Ok(())
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.plan.warnings.push(warning.into());
    }
}

impl Plan {
    /// Plans a container.
    ///
    /// # Errors
    /// `InvalidArgument` for a spec that makes no sense, `Unsupported` for what is not offered.
    pub(crate) fn container(asked: &Asked<'_>) -> Result<Self> {
        let Asked { spec, bundle, namespaces, inherited, hooks, choices, facts } = *asked;
        let process =
            spec.process().as_ref().ok_or_else(|| Error::invalid("the spec has no process"))?;
        let linux = spec.linux().as_ref();
        let draft = &mut Draft::default();
        draft.plan.moves = linux.map_or(Ok(None), |linux| namespaces.moves(linux))?;
        draft.settings(process, namespaces, inherited)?;
        namespaces.enter(draft)?;
        draft.keyring(inherited)?;
        if namespaces.is_new(libc::CLONE_NEWNET) {
            draft.step(Step::RaiseLoopback {});
        }
        namespaces::names(draft, spec, namespaces)?;
        sysctl::set(draft, linux.and_then(|linux| linux.sysctl().as_ref()), namespaces)?;

        let propagation = mounts::Propagation::of(spec)?;
        mounts::root(draft, spec, bundle, propagation)?;
        draft.label = confine::filesystems(spec, inherited.modules)?;
        let dev_is_bound = mounts::all(draft, spec, bundle, namespaces, propagation, facts)?;
        if !dev_is_bound {
            devices::all(draft, spec, namespaces, facts)?;
        }
        masks::all(draft, spec)?;
        hooks.create(draft, bundle)?;
        mounts::change_root(draft, choices, facts)?;
        process::directory(draft, process)?;
        process::streams(draft, process, choices, Console::Bound)?;
        mounts::finish(draft, spec, propagation)?;
        scheduling::memory(draft, linux)?;
        process::run(draft, process, inherited, choices, Start::Awaited(hooks))?;
        Ok(std::mem::take(&mut draft.plan))
    }

    /// Plans one more process of a container whose init process is known.
    ///
    /// # Errors
    /// As [`Plan::container`].
    pub(crate) fn process(
        process: &Process,
        namespaces: &Namespaces,
        inherited: &Inherited,
        choices: Choices,
    ) -> Result<Self> {
        refuse::check_process(process)?;
        let draft = &mut Draft::default();
        draft.settings(process, namespaces, inherited)?;
        // AppArmor's profile is set by the host's procfs, so that comes first; it forbids the same.
        let has_profile =
            process.apparmor_profile().as_deref().is_some_and(|name| !name.is_empty());
        let is_watched = inherited.may_trace || choices.is_watched;
        if is_watched && !namespaces.has_users() && !has_profile {
            namespaces.follow_between(draft);
        } else {
            namespaces.follow(draft);
        }
        draft.keyring(inherited)?;
        process::streams(draft, process, choices, Console::Apart)?;
        process::run(draft, process, inherited, choices, Start::AtOnce)?;
        Ok(std::mem::take(&mut draft.plan))
    }

    /// Adds the container's cgroup: a `tasks` file for each hierarchy of v1, the directory of the
    /// unified one. They come first: what the child uses is the container's from the start.
    pub(crate) fn enter_cgroup<'a>(
        &mut self,
        hierarchies: impl Iterator<Item = &'a str>,
        has_unified: bool,
    ) -> Result<()> {
        let mut joins = Vec::new();
        for (index, hierarchy) in hierarchies.enumerate() {
            let tasks = Slot(index);
            joins.push(Step::JoinCgroup { tasks, hierarchy: Text::new(hierarchy)? });
        }
        if !joins.is_empty() {
            joins.insert(0, Step::AwaitCgroup {});
        }
        self.steps.splice(0..0, joins);
        if has_unified {
            self.request.cgroup = Some(self.file(Source::Unified));
        }
        Ok(())
    }

    /// Plans a process that is there for its user namespace only.
    pub(crate) fn user_namespace(mappings: &Mappings) -> Self {
        let mut plan = Self { mappings: Some(mappings.clone()), ..Self::default() };
        plan.request.namespaces = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        plan.steps = vec![Step::AwaitSettings {}, Step::AwaitStart { with_state: 0 }];
        plan
    }

    /// The mappings that mounts of the plan need a user namespace for.
    pub(crate) fn mount_mappings(&self) -> impl Iterator<Item = &Mappings> {
        self.sources.iter().filter_map(|source| match source {
            Source::Tree(Tree { idmap: Some((Idmap::Mappings(mappings), _)), .. }) => {
                Some(mappings)
            }
            _ => None,
        })
    }

    /// The number of the step that waits for the start.
    pub(crate) fn start(&self) -> Option<usize> {
        let waits =
            |step: &Step| matches!(step, Step::AwaitStart { .. } | Step::AwaitStarter { .. });
        self.steps.iter().position(waits)
    }

    /// The plan's bytes, as the executor reads them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4096);
        for step in &self.steps {
            step.write(&mut bytes);
        }
        bytes
    }

    /// What the process is asked to run.
    pub(crate) fn program(&self) -> String {
        let program = self.steps.iter().find_map(|step| match step {
            Step::FindProgram { name, .. } => Some(name.to_string()),
            _ => None,
        });
        program.unwrap_or_default()
    }

    fn file(&mut self, source: Source) -> Slot {
        // A mount can be moved to one place only, so each step has a tree of its own.
        let is_shared = matches!(source, Source::Null | Source::Init | Source::Output);
        let known = || self.sources.iter().position(|known| *known == source);
        let known = if is_shared { known() } else { None };
        let index = known.unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        Slot(FIRST_SLOT + index)
    }
}

/// Whether a terminal is the container's console as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Console {
    Bound,
    Apart,
}

/// When the program begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start<'a> {
    /// When the shim says so, after these hooks.
    Awaited(&'a Hooks),
    /// As soon as everything is set up.
    AtOnce,
}

/// A path of the spec as it is in the container: absolute, without `.` and `..`.
fn in_container(path: &Path) -> Result<Text> {
    Text::new(path::clean(path))
}
