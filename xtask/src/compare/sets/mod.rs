//! The bundles, a file a family of concerns.

mod capabilities;
mod cgroups;
mod devices;
mod errors;
mod exec;
mod hooks;
mod life;
mod limits;
mod masks;
mod mounts;
mod namespaces;
mod process;
mod propagation;
mod seccomp;
mod sysctl;
mod terminals;
mod users;

use super::bundle::Bundle;

/// All of them.
pub(super) fn all() -> Vec<Bundle> {
    let families = [
        process::bundles(),
        users::bundles(),
        capabilities::bundles(),
        limits::bundles(),
        namespaces::bundles(),
        sysctl::bundles(),
        mounts::bundles(),
        propagation::bundles(),
        masks::bundles(),
        devices::bundles(),
        cgroups::bundles(),
        seccomp::bundles(),
        terminals::bundles(),
        hooks::bundles(),
        exec::bundles(),
        life::bundles(),
        errors::bundles(),
    ];
    families.into_iter().flatten().collect()
}
