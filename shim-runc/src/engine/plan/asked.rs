//! What a plan is made from: the spec, the client's choices, and what the host is like.

use std::{path::PathBuf, sync::Arc};

use oci_spec::runtime::{Process, Spec};
use shim_core::{Result, model::Bundle};

use super::{
    Hooks, Modules, Namespaces,
    capabilities::{self, Sets},
    scheduling,
};
use crate::engine::{agent::Agent, resctrl::Group, seccomp::Filter};

/// What the host is like, as far as plans depend on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// There is a `/proc/kcore`.
    pub(crate) kcore: bool,
    /// The container's own directory in each hierarchy.
    pub(crate) hierarchies: Vec<Hierarchy>,
    /// We are in a user namespace ourselves, where no device can be made.
    pub(crate) has_no_nodes: bool,
    /// The host has only cgroup v2.
    pub(crate) is_unified: bool,
    /// Where procfs and sysfs are mounted whole; only looked up without pivot_root(2).
    pub(crate) system_mounts: Vec<PathBuf>,
}

/// One cgroup hierarchy: of v1, or the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The name of its mount point: `cpu,cpuacct`, `systemd`.
    pub(crate) name: String,
    /// What it is mounted with: `cpu,cpuacct`, `name=systemd`.
    pub(crate) options: String,
    /// The container's directory.
    pub(crate) directory: PathBuf,
}

/// What the client decided beside the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choices {
    /// Change the root without pivot_root(2), which a root filesystem in memory refuses.
    pub(crate) no_pivot_root: bool,
    /// The process gets a terminal.
    pub(crate) terminal: bool,
    /// How many files behind the standard streams the program gets, under the numbers that they have
    /// in the stem.
    pub(crate) kept_files: u32,
    /// Who starts the container.
    pub(crate) starter: Starter,
    /// For an added process: others in the container may have the right to trace it, whatever the
    /// container's own may.
    pub(crate) is_watched: bool,
}

/// Who lets a container's program run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Starter {
    /// The process that has made the container, and is there until then.
    #[default]
    Maker,
    /// Another one, which finds the way by files that were given for it.
    Other,
}

/// What a container's processes all have, the added ones too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    /// The seccomp filter.
    pub(crate) filter: Option<Arc<Filter>>,
    /// Who decides about calls that the filter does not.
    pub(crate) agent: Option<Arc<Agent>>,
    /// Their share of cache and memory bandwidth.
    pub(crate) group: Option<Group>,
    /// The execution domain.
    pub(crate) personality: Option<u64>,
    /// The score of processes that name none.
    pub(crate) oom_score: Option<i32>,
    /// The capabilities of processes that name none.
    pub(super) capabilities: Sets,
    /// The container's processes may have the right to trace each other (capabilities(7)).
    pub(crate) may_trace: bool,
    /// What may confine them.
    pub(crate) modules: Modules,
    /// The name of the session keyring; nothing leaves them the shim's.
    pub(crate) keyring: Option<String>,
}

/// All that a container's plan is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) bundle: &'a Bundle,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) inherited: &'a Inherited,
    pub(crate) hooks: &'a Hooks,
    pub(crate) choices: Choices,
    pub(crate) facts: &'a Facts,
}

impl Inherited {
    /// Reads what a spec says for all processes; the filter is compiled elsewhere.
    ///
    /// # Errors
    /// As [`Plan::container`].
    pub(crate) fn of(
        spec: &Spec,
        filter: Option<Arc<Filter>>,
        agent: Option<Agent>,
        group: Option<Group>,
        modules: Modules,
        keyring: Option<String>,
    ) -> Result<Self> {
        let personality = spec.linux().as_ref().and_then(|linux| linux.personality().as_ref());
        Ok(Self {
            filter,
            agent: agent.map(Arc::new),
            group,
            personality: personality.map(scheduling::domain).transpose()?,
            oom_score: spec.process().as_ref().and_then(Process::oom_score_adj),
            capabilities: spec.process().as_ref().and_then(Sets::of).unwrap_or_default(),
            may_trace: spec.process().as_ref().is_some_and(capabilities::may_trace),
            modules,
            keyring,
        })
    }
}
