//! Tags on network traffic, which only v1 has.

use oci_spec::runtime::LinuxNetwork;
use shim_core::Result;

use super::{Files, Version};

/// Sets the class of packets and the priority on interfaces.
pub(super) fn set(class: &Files<'_>, priority: &Files<'_>, network: &LinuxNetwork) -> Result<()> {
    // v2 marks traffic by programs. runc passes these settings over there, and so do we: engines
    // that always send them would else not run.
    if class.version() == Version::V2 {
        return Ok(());
    }
    if let Some(id @ 1..) = network.class_id() {
        class.set("net_cls.classid", id)?;
    }
    for interface in network.priorities().iter().flatten() {
        let line = format!("{} {}", interface.name(), interface.priority());
        priority.set("net_prio.ifpriomap", line)?;
    }
    Ok(())
}
