//! Limits and devices: what counts in the guest, and what only on the host.

use serde_json::{Value, json};
use shim_core::{Error, Kind, Result};

use super::{Around, Object, list, text};

/// Devices that the guest's kernel has as the host's does: character devices by their numbers. The
/// second is missing where all of the first are meant: memory's (null, zero, random), the terminals'
/// multiplexers.
const DEVICES: [(i64, Option<i64>); 4] = [(1, None), (5, None), (10, Some(200)), (10, Some(229))];

/// Makes limits and devices the guest's.
pub(super) fn prepare(linux: &mut Object, around: Around<'_>) -> Result<()> {
    // The host's paths have their limits on the machine; the guest has a tree of its own.
    linux.insert("cgroupsPath".into(), json!(format!("{}/{}", around.places.cgroup, around.id)));
    linux.remove("mountLabel");
    for name in ["intelRdt", "netDevices"] {
        if linux.get(name).is_some_and(|value| !value.is_null()) {
            let why = format!("linux.{name}: it is of the host's hardware, which a guest has not");
            return Err(Error::new(Kind::FailedPrecondition, why));
        }
    }
    for device in list(linux, "devices")? {
        check_device(device)?;
    }
    if let Some(Value::Object(resources)) = linux.get_mut("resources") {
        limits(resources);
    }
    Ok(())
}

fn check_device(device: &Value) -> Result<()> {
    let number = |name: &str| device.get(name).and_then(Value::as_i64);
    let is_known = text(device, "type") == "p"
        || (matches!(text(device, "type"), "c" | "u")
            && DEVICES.iter().any(|(major, minor)| {
                number("major") == Some(*major) && minor.is_none_or(|_| number("minor") == *minor)
            }));
    if is_known {
        return Ok(());
    }
    let why =
        format!("linux.devices: {} is the host's, and a guest has it not", text(device, "path"));
    Err(Error::new(Kind::FailedPrecondition, why))
}

/// Numbers of processors, memory nodes and disks are the host's; so are its huge pages.
fn limits(resources: &mut Object) {
    if let Some(Value::Object(cpu)) = resources.get_mut("cpu") {
        cpu.remove("cpus");
        cpu.remove("mems");
    }
    if let Some(Value::Object(block)) = resources.get_mut("blockIO") {
        block.retain(|name, _| matches!(name.as_str(), "weight" | "leafWeight"));
    }
    for name in ["hugepageLimits", "rdma", "network"] {
        resources.remove(name);
    }
}
