//! RDMA devices. Both versions have the same file.

use std::{collections::HashMap, fmt::Write};

use oci_spec::runtime::LinuxRdma;
use shim_core::Result;

use super::Files;

/// Sets the limits of each device.
pub(super) fn set(files: &Files<'_>, limits: &HashMap<String, LinuxRdma>) -> Result<()> {
    for (device, limit) in limits {
        let mut line = device.clone();
        for (name, value) in
            [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())]
        {
            if let Some(value) = value {
                write!(line, " {name}={value}").expect("a String takes everything");
            }
        }
        if line.len() > device.len() {
            files.set("rdma.max", line)?;
        }
    }
    Ok(())
}
