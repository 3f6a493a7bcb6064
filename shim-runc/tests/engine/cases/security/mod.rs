//! Classes of holes that runtimes have had, attacked as they were then. A test's name begins with its
//! class; `docs/security.md` says which check each of them proves, and what happens without it.

mod bounds;
mod devices;
mod proc;
mod process;
mod program;
mod race;
mod targets;

use super::{another, cases};
use crate::Case;

/// Every test of a class.
pub(super) fn all() -> impl Iterator<Item = &'static (&'static str, Case)> {
    let files =
        [program::ALL, proc::ALL, devices::ALL, targets::ALL, race::ALL, bounds::ALL, process::ALL];
    files.into_iter().flatten()
}

/// Drops the mounts of a spec at a place and below it.
fn without_mounts(spec: &mut serde_json::Value, place: &str) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|one| !one["destination"].as_str().unwrap().starts_with(place));
}

/// Adds a mount to a spec.
fn mount(spec: &mut serde_json::Value, mount: serde_json::Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}
