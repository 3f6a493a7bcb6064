//! erofs images: files that the kernel mounts as they are since Linux 6.12, or by way of loop devices.
//!
//! One filesystem may be several images: `device=` names those that have the data of the first one.

use std::path::Path;

use nix::{errno::Errno, mount::mount};

use super::{
    explain,
    image::{Access, Caching, LoopDevice},
    options::Options,
    overlay::LONGEST,
};
use crate::error::{Context, Error, Result};

/// The filesystem's type.
pub(super) const KIND: &str = "erofs";

const DEVICE: &str = "device=";

/// Mounts an image, with or without the option `loop`: which way is up to the kernel, as it is for
/// containerd.
///
/// # Errors
/// The image that got no device, or the kernel's reason.
pub(super) fn attach(source: &str, options: &Options, target: &Path) -> Result<()> {
    // The paths of loop devices are shorter: more of them fit into the page that mount(2) takes.
    if options.data.len() <= LONGEST {
        let data = Some(options.data.as_str());
        match mount(Some(source), target, Some(KIND), options.flags, data) {
            Err(Errno::ENOTBLK) => {}
            done => return done.map_err(explain),
        }
    }
    by_loop_devices(source, options, target).context("by way of loop devices")
}

/// As [`attach`], on a kernel that takes block devices alone.
///
/// # Errors
/// As [`attach`].
pub(super) fn by_loop_devices(source: &str, options: &Options, target: &Path) -> Result<()> {
    let caching = options.image.unwrap_or(Caching::Cached);
    let over = |image: &str| LoopDevice::over(image, Access::ReadOnly, caching);
    let main = over(source)?;
    let (mut devices, mut data) = (Vec::new(), Vec::new());
    for option in options.data.split(',') {
        let Some(image) = option.strip_prefix(DEVICE) else {
            data.push(option.to_owned());
            continue;
        };
        let device = over(image)?;
        data.push(format!("{DEVICE}{}", device.path.display()));
        devices.push(device);
    }
    let data = data.join(",");
    if data.len() > LONGEST {
        return Err(Error::invalid("the image has more devices than mount(2) takes"));
    }
    mount(Some(&main.path), target, Some(KIND), options.flags, Some(data.as_str()))?;
    Ok(())
}
