//! Files of v2 set by name, as far as a unit has properties for them.

use std::collections::HashMap;

use shim_core::{Error, Result};

use super::{
    bus::Value,
    properties::{Property, idle, number, quota, set},
};

/// The properties of a spec's `unified` map that can change. A file that none stands for is only
/// written.
///
/// # Errors
/// `InvalidArgument` for a value that makes no sense.
pub(super) fn properties(values: &HashMap<String, String>) -> Result<Vec<Property>> {
    let value = |name: &str| values.get(name).map(|value| value.trim());
    let mut all = Vec::new();
    let is_idle = value("cpu.idle") == Some("1");
    if is_idle {
        all.push(idle());
    }
    if let Some(weight) = value("cpu.weight").filter(|_| !is_idle) {
        all.push(number("CPUWeight", plain("cpu.weight", weight)?));
    }
    if let Some(max) = value("cpu.max") {
        all.extend(cpu_max(max)?);
    }
    for (name, property) in [("cpuset.cpus", "AllowedCPUs"), ("cpuset.mems", "AllowedMemoryNodes")]
    {
        if let Some(text) = value(name).filter(|text| !text.is_empty()) {
            all.push(set(property, text)?);
        }
    }
    for (name, property) in [
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.max", "MemoryMax"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("pids.max", "TasksMax"),
    ] {
        match value(name) {
            None => {}
            Some("max") => all.push(number(property, u64::MAX)),
            Some(text) => all.push(number(property, plain(name, text)?)),
        }
    }
    Ok(all)
}

/// What becomes of a container one of whose processes is killed for want of memory: a property that
/// a unit has from its beginning, scopes since version 253.
pub(super) fn policy(values: &HashMap<String, String>) -> Option<Property> {
    let word = match values.get("memory.oom.group")?.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property::new("OOMPolicy", Value::Text(word.to_owned())).since(253))
}

/// `QUOTA [PERIOD]`, where the quota may be `max`.
fn cpu_max(text: &str) -> Result<Vec<Property>> {
    let mut parts = text.split_whitespace();
    let quota_of = match parts.next() {
        Some("max") => -1,
        Some(quota) => i64::try_from(plain("cpu.max", quota)?).unwrap_or(-1),
        None => return Err(invalid("cpu.max", text)),
    };
    let period = parts.next().map_or(Ok(0), |period| plain("cpu.max", period))?;
    match parts.next() {
        None => Ok(quota(quota_of, period)),
        Some(_) => Err(invalid("cpu.max", text)),
    }
}

fn plain(name: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| invalid(name, text))
}

fn invalid(name: &str, text: &str) -> Error {
    Error::invalid(format!("{name} {text:?} is not what it takes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(values: &[(&str, &str)]) -> Result<String> {
        let values =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let one = |one: Property| match one.value {
            Value::Uint64(u64::MAX) => format!("{}=infinity", one.name),
            Value::Uint64(number) => format!("{}={number}", one.name),
            _ => one.name,
        };
        Ok(properties(&values)?.into_iter().map(one).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn files_with_a_property_have_it() {
        for (values, expected) in [
            (&[("cpu.weight", "7")][..], "CPUWeight=7"),
            (&[("cpu.weight", "7"), ("cpu.idle", "1")], "CPUWeight=0"),
            (&[("cpu.idle", "0")], ""),
            (&[("cpu.max", "50000 100000")], "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=500000"),
            (&[("cpu.max", "max")], "CPUQuotaPerSecUSec=infinity"),
            (&[("memory.high", " max\n"), ("memory.min", "5")], "MemoryHigh=infinity MemoryMin=5"),
            (&[("pids.max", "9"), ("cpuset.cpus", "0-1")], "AllowedCPUs TasksMax=9"),
            (&[("hugetlb.2MB.max", "0"), ("io.max", "8:0 rbps=1")], ""),
        ] {
            assert_eq!(told(values).unwrap(), expected);
        }
        for bad in [("cpu.max", "1 2 3"), ("cpu.max", ""), ("pids.max", "-1"), ("cpu.weight", "x")]
        {
            assert!(told(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_oom_group_is_a_policy() {
        let said = |value: &str| {
            let values = HashMap::from([("memory.oom.group".to_owned(), value.to_owned())]);
            policy(&values).map(|one| (one.value, one.since))
        };
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(said("1"), Some((text("kill"), 253)));
        assert_eq!(said("0\n"), Some((text("continue"), 253)));
        assert_eq!(said("max"), None);
    }
}
