//! A unit's properties: what it is, and the limits of a spec as far as systemd knows them,
//! systemd.resource-control(5).
//!
//! The files are written as well, and are what counts. The properties keep systemd from putting
//! back what it thinks of the cgroup, which it does whenever its units are reloaded.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use shim_core::{Context, Error, Result, model::Pid};

use super::{
    bus::Value,
    devices, unified,
    unit::{Kind, Unit},
};
use crate::engine::cgroup::{Mode, limits};

/// No limit, and any other negative number of a spec.
const INFINITY: u64 = u64::MAX;
/// The quota's period where none is given, in microseconds: the kernel's own.
const DEFAULT_PERIOD: u64 = 100_000;
/// systemd keeps quotas in hundredths of a processor, this many microseconds a second.
const PERCENT: u64 = 10_000;

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) value: Value,
    /// The first version of systemd that has it, where that is not older than the kernels that
    /// this engine runs on.
    pub(crate) since: u32,
}

impl Property {
    /// A property that every systemd has.
    pub(crate) fn new(name: impl Into<String>, value: Value) -> Self {
        Self { name: name.into(), value, since: 0 }
    }

    pub(super) fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }

    /// As the methods that take properties want it.
    pub(super) fn pair(&self) -> Value {
        let value = Value::Variant(Box::new(self.value.clone()));
        Value::Tuple(vec![Value::Text(self.name.clone()), value])
    }
}

pub(super) fn number(name: &'static str, value: u64) -> Property {
    Property::new(name, Value::Uint64(value))
}

/// What a unit is, with a first process for a scope.
pub(crate) fn of_unit(unit: &Unit, pid: Option<Pid>, mode: Mode) -> Vec<Property> {
    let text = |text: &str| Value::Text(text.to_owned());
    let yes = |name| Property::new(name, Value::Bool(true));
    let mut all = vec![Property::new("Description", text(&format!("container {}", unit.name())))];
    match unit.kind() {
        Kind::Scope => {
            all.push(Property::new("Slice", text(unit.slice())));
            all.push(yes("Delegate"));
        }
        Kind::Slice => all.push(Property::new("Wants", Value::texts([unit.slice()]))),
    }
    if let Some(pid) = pid {
        let pids = Value::Array("u".to_owned(), vec![Value::Uint32(pid.get())]);
        all.push(Property::new("PIDs", pids));
    }
    // Without it the files of a controller may not be there.
    let io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    all.extend(["CPUAccounting", "MemoryAccounting", "TasksAccounting", io].map(yes));
    // It is not to be stopped before others at a shutdown, nor to wait for them.
    all.push(Property::new("DefaultDependencies", Value::Bool(false)));
    all
}

/// The limits and devices of a container that is made.
///
/// # Errors
/// `InvalidArgument` for what makes no sense.
pub(crate) fn of_resources(resources: &LinuxResources, mode: Mode) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    if let Some(list) = resources.devices().as_ref().filter(|list| !list.is_empty()) {
        all.extend(devices::properties(list)?);
    }
    all.extend(of_update(resources, mode)?);
    if let Some(values) = resources.unified().as_ref().filter(|_| mode == Mode::V2) {
        all.extend(unified::policy(values));
    }
    Ok(all)
}

/// The limits that can change; as with files, 0 and empty texts mean "leave it alone".
///
/// # Errors
/// `InvalidArgument` for what makes no sense.
pub(crate) fn of_update(resources: &LinuxResources, mode: Mode) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(of_memory(memory, mode)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(of_cpu(cpu, mode)?);
    }
    if let Some(weight @ 1..) = resources.block_io().as_ref().and_then(|io| io.weight()) {
        all.push(match mode {
            Mode::V2 => number("IOWeight", limits::io_weight(weight)),
            _ => number("BlockIOWeight", weight.into()),
        });
    }
    match resources.pids().as_ref().map_or(0, oci_spec::runtime::LinuxPids::limit) {
        0 => {}
        limit => all.push(number("TasksMax", limit_of(limit))),
    }
    if let Some(values) = resources.unified().as_ref().filter(|_| mode == Mode::V2) {
        all.extend(unified::properties(values).context("unified")?);
    }
    Ok(all)
}

fn of_memory(memory: &LinuxMemory, mode: Mode) -> Result<Vec<Property>> {
    let (limit, both) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    let mut all = Vec::new();
    if limit != 0 {
        let name = if mode == Mode::V2 { "MemoryMax" } else { "MemoryLimit" };
        all.push(number(name, limit_of(limit)));
    }
    if mode != Mode::V2 {
        return Ok(all);
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        all.push(number("MemoryLow", limit_of(reservation)));
    }
    if let Some(swap) = limits::swap_alone(limit, both)? {
        all.push(number("MemorySwapMax", limit_of(swap)));
    }
    Ok(all)
}

fn of_cpu(cpu: &LinuxCpu, mode: Mode) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    match (mode, cpu.idle(), cpu.shares()) {
        // An idle group has no weight.
        (Mode::V2, Some(1), _) => all.push(idle()),
        (Mode::V2, _, Some(shares @ 1..)) => {
            all.push(number("CPUWeight", limits::cpu_weight(shares)));
        }
        (_, _, Some(shares @ 1..)) => all.push(number("CPUShares", shares)),
        _ => {}
    }
    all.extend(quota(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0)));
    for (name, set) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
        if let Some(set) = set.as_deref().filter(|set| !set.is_empty()) {
            all.push(self::set(name, set)?);
        }
    }
    Ok(all)
}

/// A group that runs when nobody else wants to.
pub(super) fn idle() -> Property {
    number("CPUWeight", 0).since(252)
}

/// A quota of microseconds each period, 0 where it is not given; negative is none.
pub(super) fn quota(quota: i64, period: u64) -> Vec<Property> {
    let mut all = Vec::new();
    if period != 0 {
        all.push(number("CPUQuotaPeriodUSec", period));
    }
    // A period alone leaves the share of a processor that there is.
    if quota != 0 {
        let period = if period == 0 { DEFAULT_PERIOD } else { period };
        let per_second = match u64::try_from(quota) {
            Ok(quota @ 1..) => {
                let exact = u128::from(quota) * 1_000_000 / u128::from(period);
                // Rounded up: what is below this cgroup may ask for all of it.
                u64::try_from(exact).unwrap_or(INFINITY).div_ceil(PERCENT).saturating_mul(PERCENT)
            }
            _ => INFINITY,
        };
        all.push(number("CPUQuotaPerSecUSec", per_second));
    }
    all
}

/// A set such as `0-3,7`, as the bytes of a mask with the lowest first.
///
/// # Errors
/// `InvalidArgument` when it is none.
pub(super) fn set(name: &'static str, set: &str) -> Result<Property> {
    Ok(Property::new(name, Value::bytes(&bits(set)?)))
}

/// More processors than any kernel knows.
const MOST: usize = 1 << 16;

fn bits(set: &str) -> Result<Vec<u8>> {
    let invalid = || Error::invalid(format!("{set:?} is not a set such as 0-3,7"));
    let number = |text: &str| {
        let number = text.trim().parse::<usize>().ok().filter(|number| *number < MOST);
        number.ok_or_else(invalid)
    };
    let mut bytes = Vec::new();
    for part in set.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(invalid());
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        for bit in first..=last {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    if bytes.is_empty() { Err(invalid()) } else { Ok(bytes) }
}

/// A spec's limit, where a negative one is none.
fn limit_of(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cgroup::systemd::unit::Owner;

    fn told(all: &[Property]) -> String {
        let one = |property: &Property| match &property.value {
            Value::Uint64(INFINITY) => format!("{}=infinity", property.name),
            Value::Uint64(number) => format!("{}={number}", property.name),
            Value::Array(kind, bytes) if kind == "y" => {
                let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:?}")).collect();
                format!("{}={}", property.name, bytes.join(" "))
            }
            value => format!("{}={value:?}", property.name),
        };
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn check(resources: &str, mode: Mode, expected: &str) {
        let resources: LinuxResources = serde_json::from_str(resources).unwrap();
        assert_eq!(told(&of_resources(&resources, mode).unwrap()), expected);
    }

    #[test]
    fn limits_of_v2_have_properties() {
        check(
            r#"{"memory": {"limit": 1000, "reservation": 500, "swap": 1500},
                "cpu": {"shares": 1024, "quota": 50000, "cpus": "0-1,9", "mems": "0"},
                "blockIO": {"weight": 100}, "pids": {"limit": 7}}"#,
            Mode::V2,
            "MemoryMax=1000, MemoryLow=500, MemorySwapMax=500, CPUWeight=100, \
             CPUQuotaPerSecUSec=500000, AllowedCPUs=Byte(3) Byte(2), AllowedMemoryNodes=Byte(1), \
             IOWeight=910, TasksMax=7",
        );
        check(
            r#"{"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"idle": 1, "shares": 9}}"#,
            Mode::V2,
            "MemoryMax=infinity, MemorySwapMax=infinity, CPUWeight=0, TasksMax=infinity",
        );
        check(r#"{"memory": {}, "cpu": {"cpus": ""}, "pids": {"limit": 0}}"#, Mode::V2, "");
    }

    #[test]
    fn limits_of_v1_have_older_ones() {
        check(
            r#"{"memory": {"limit": 1000, "reservation": 500, "swap": 1500},
                "cpu": {"shares": 1024}, "blockIO": {"weight": 100}}"#,
            Mode::Hybrid,
            "MemoryLimit=1000, CPUShares=1024, BlockIOWeight=100",
        );
    }

    #[test]
    fn quotas_are_rounded_up_to_hundredths() {
        for (given, expected) in [
            ((0, 0), ""),
            ((-1, 0), "CPUQuotaPerSecUSec=infinity"),
            ((0, 50_000), "CPUQuotaPeriodUSec=50000"),
            ((12_345, 100_000), "CPUQuotaPeriodUSec=100000, CPUQuotaPerSecUSec=130000"),
            ((150_000, 0), "CPUQuotaPerSecUSec=1500000"),
        ] {
            assert_eq!(told(&quota(given.0, given.1)), expected, "{given:?}");
        }
        // No overflow, whatever is asked for.
        quota(i64::MAX, 1);
    }

    #[test]
    fn sets_become_masks() {
        assert_eq!(bits("0").unwrap(), [1]);
        assert_eq!(bits("1,3-9\n").unwrap(), [0b1111_1010, 0b11]);
        for bad in ["", "x", "3-1", "-1", "0-99999999", "1-2-3"] {
            assert!(bits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scope_is_delegated_and_a_slice_only_wants_another() {
        let unit = |path| Unit::of(Some(path), "c1", Owner::System).unwrap();
        let pid = Some(Pid::new(7).unwrap());
        let names =
            |all: Vec<Property>| all.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" ");
        assert_eq!(
            names(of_unit(&unit("::x"), pid, Mode::V2)),
            "Description Slice Delegate PIDs CPUAccounting MemoryAccounting TasksAccounting \
             IOAccounting DefaultDependencies"
        );
        assert_eq!(
            names(of_unit(&unit("::x.slice"), None, Mode::V1)),
            "Description Wants CPUAccounting MemoryAccounting TasksAccounting BlockIOAccounting \
             DefaultDependencies"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            r#"{"memory": {"limit": 100, "swap": 50}}"#,
            r#"{"cpu": {"cpus": "all"}}"#,
            r#"{"unified": {"memory.max": "much"}}"#,
        ] {
            let resources: LinuxResources = serde_json::from_str(bad).unwrap();
            let err = of_resources(&resources, Mode::V2).unwrap_err();
            assert_eq!(err.kind(), shim_core::Kind::InvalidArgument, "{bad}");
        }
    }
}
