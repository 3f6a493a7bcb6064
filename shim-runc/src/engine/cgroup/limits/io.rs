//! Weights and throttles of block devices.

use nix::errno::Errno;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};
use shim_core::Result;

use super::{Files, Version};

/// Sets what is asked for.
pub(super) fn set(files: &Files<'_>, io: &LinuxBlockIo) -> Result<()> {
    match files.version() {
        Version::V1 => set_v1(files, io),
        Version::V2 => set_v2(files, io),
    }
}

fn set_v1(files: &Files<'_>, io: &LinuxBlockIo) -> Result<()> {
    // The CFQ scheduler's files went with it in Linux 5.0; BFQ's are named after it.
    let weigh = |name: &str, value: String| match files.set_unless(
        &[Errno::ENOENT],
        &format!("blkio.{name}"),
        &value,
    )? {
        true => Ok(()),
        false => files.set(&format!("blkio.bfq.{name}"), &value),
    };
    if let Some(weight @ 1..) = io.weight() {
        weigh("weight", weight.to_string())?;
    }
    if let Some(weight @ 1..) = io.leaf_weight() {
        files.set("blkio.leaf_weight", weight)?;
    }
    for device in io.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        if let Some(weight @ 1..) = device.weight() {
            weigh("weight_device", format!("{major}:{minor} {weight}"))?;
        }
        if let Some(weight @ 1..) = device.leaf_weight() {
            files.set("blkio.leaf_weight_device", format!("{major}:{minor} {weight}"))?;
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            files.set(file, throttle(device, ""))?;
        }
    }
    Ok(())
}

// v2 has no weights of leaves; as runc, we pass them over there.
fn set_v2(files: &Files<'_>, io: &LinuxBlockIo) -> Result<()> {
    const BFQ: &str = "io.bfq.weight";
    if let Some(weight @ 1..) = io.weight()
        && !files.set_unless(&[Errno::ENOENT], BFQ, weight)?
    {
        files.set("io.weight", weight_v2(weight))?;
    }
    let devices = io.weight_device().as_deref().unwrap_or_default();
    // Only BFQ weighs devices, and since Linux 5.4: the file then lists a `default` first.
    if !devices.is_empty() && files.read(BFQ)?.is_some_and(|text| text.starts_with("default")) {
        for device in devices {
            if let Some(weight @ 1..) = device.weight() {
                files.set(BFQ, format!("{}:{} {weight}", device.major(), device.minor()))?;
            }
        }
    }
    for (key, devices) in [
        ("rbps=", io.throttle_read_bps_device()),
        ("wbps=", io.throttle_write_bps_device()),
        ("riops=", io.throttle_read_iops_device()),
        ("wiops=", io.throttle_write_iops_device()),
    ] {
        for device in devices.iter().flatten() {
            files.set("io.max", throttle(device, key))?;
        }
    }
    Ok(())
}

fn throttle(device: &LinuxThrottleDevice, key: &str) -> String {
    let rate = match device.rate() {
        // v1 lifts a throttle by 0, v2 by a word.
        0 if !key.is_empty() => "max".to_owned(),
        rate => rate.to_string(),
    };
    format!("{}:{} {key}{rate}", device.major(), device.minor())
}

/// BFQ's weights, 10 to 1000, on a line to io.weight's, 1 to 10000.
pub(in super::super) fn weight_v2(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_stretched() {
        assert_eq!((weight_v2(10), weight_v2(100), weight_v2(1000)), (1, 910, 10_000));
        assert_eq!(weight_v2(1), 1);
    }
}
