//! The number of processes and threads.

use oci_spec::runtime::LinuxPids;
use shim_core::Result;

use super::Files;

/// Sets a limit, or none for negative numbers.
pub(super) fn set(files: &Files<'_>, pids: &LinuxPids) -> Result<()> {
    match pids.limit() {
        // An empty object reads as 0 too.
        0 => Ok(()),
        limit if limit < 0 => files.set("pids.max", "max"),
        limit => files.set("pids.max", limit),
    }
}
