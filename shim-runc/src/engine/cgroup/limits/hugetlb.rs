//! Huge pages.

use nix::errno::Errno;
use oci_spec::runtime::LinuxHugepageLimit;
use shim_core::{Error, Result};

use super::{Files, Version};

/// Sets the limit of each page size, on use and, where the kernel can, on reservation.
pub(super) fn set(files: &Files<'_>, limits: &[LinuxHugepageLimit]) -> Result<()> {
    let suffix = match files.version() {
        Version::V1 => "limit_in_bytes",
        Version::V2 => "max",
    };
    for limit in limits {
        let size = limit.page_size();
        if size.is_empty() || size.contains(['/', '.']) {
            return Err(Error::invalid(format!("{size:?} is not a size of huge pages")));
        }
        let value = match (limit.limit(), files.version()) {
            (-1, Version::V2) => "max".to_owned(),
            (limit, _) => limit.to_string(),
        };
        files.set(&format!("hugetlb.{size}.{suffix}"), &value)?;
        // Since Linux 5.7.
        files.set_unless(&[Errno::ENOENT], &format!("hugetlb.{size}.rsvd.{suffix}"), &value)?;
    }
    Ok(())
}
