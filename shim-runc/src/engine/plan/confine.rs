//! What security modules hold a process to: AppArmor's profile, SELinux's labels.

use oci_spec::runtime::{Process, Spec};
use shim_core::{Error, Kind, Result};

use super::Draft;
use crate::engine::{step::Step, wire::Text};

/// The security modules that the host's kernel has, and uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modules {
    pub(crate) has_apparmor: bool,
    pub(crate) has_selinux: bool,
}

/// Filesystems whose files are labelled by the policy, whatever a mount says; as with runc.
const OWN_LABELS: [&str; 5] = ["proc", "sysfs", "mqueue", "cgroup", "cgroup2"];

/// Plans the confinement of a program. First of all steps: the host's procfs is at `/proc` yet.
pub(super) fn program(draft: &mut Draft, process: &Process, modules: Modules) -> Result<()> {
    if let Some(profile) = given(process.apparmor_profile().as_deref()) {
        require(modules.has_apparmor, "AppArmor", "profile", profile)?;
        draft.step(Step::ApplyProfile { profile: Text::new(profile)? });
    }
    if let Some(label) = given(process.selinux_label().as_deref()) {
        require(modules.has_selinux, "SELinux", "label", label)?;
        draft.step(Step::ApplyLabel { label: Text::new(label)? });
    }
    Ok(())
}

/// The option that labels the files of a new filesystem.
pub(super) fn filesystems(spec: &Spec, modules: Modules) -> Result<Option<Text>> {
    let label = spec.linux().as_ref().and_then(|linux| given(linux.mount_label().as_deref()));
    label
        .map(|label| {
            require(modules.has_selinux, "SELinux", "mount label", label)?;
            Text::new(label)
        })
        .transpose()
}

/// Whether a filesystem of this type takes a label as an option.
pub(super) fn takes_label(kind: &str) -> bool {
    !OWN_LABELS.contains(&kind)
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn require(has: bool, module: &str, what: &str, name: &str) -> Result<()> {
    if has {
        return Ok(());
    }
    let why = format!("{module}, for {what} {name}, is not enabled on this host");
    Err(Error::new(Kind::Unsupported, why))
}
