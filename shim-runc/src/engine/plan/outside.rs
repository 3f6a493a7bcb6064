//! A container's plan, as those see it who do not run it: what saves and restores processes.

use std::path::Path;

use super::{FIRST_SLOT, Plan, Source};
use crate::engine::{step::Step, wire::Slot};

impl Plan {
    /// The root filesystem on the host.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::AttachRoot { path, .. } => Some(path.as_path()),
            _ => None,
        })
    }

    /// The file of a slot.
    pub(crate) fn source(&self, slot: Slot) -> Option<&Source> {
        self.sources.get(slot.0.checked_sub(FIRST_SLOT)?)
    }

    /// Plans a process that makes the mounts of this one for itself alone, and waits then. What they
    /// stand on is in the root filesystem afterwards.
    pub(crate) fn mounts_only(&self) -> Self {
        let mut plan = Self::default();
        plan.request.namespaces = u64::from(libc::CLONE_NEWNS.cast_unsigned());
        for step in &self.steps {
            let mut step = step.clone();
            match &mut step {
                Step::AttachRoot { tree, .. } | Step::Bind { tree, .. } => {
                    let Some(source) = self.source(*tree) else { continue };
                    *tree = plan.file(source.clone());
                }
                Step::Propagate { .. }
                | Step::Mount { .. }
                | Step::MountWhole { .. }
                | Step::MakeDirectory { .. } => {}
                _ => continue,
            }
            plan.steps.push(step);
        }
        plan.steps.push(Step::AwaitStart { with_state: 0 });
        plan
    }
}
