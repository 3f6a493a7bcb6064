//! How large a guest is: what the pod asks for, and what the guest's kernel takes beside.

use oci_spec::runtime::LinuxResources;
use serde_json::Value;
use shim_protos::cri::{LinuxContainerResources, PodSandboxConfig};

use crate::config::Guest;

/// A guest's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// MiB.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
}

/// What a pod asks for: bytes, and microseconds of processors in a period. 0 is nothing said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    memory: u64,
    quota: i64,
    period: u64,
}

/// A pod that is told of by annotations alone (containerd's CRI, without the Sandbox API).
const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
const QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

impl Wish {
    /// By what CRI says of a pod: its containers together, and what it may take beyond.
    pub fn of_pod(config: &PodSandboxConfig) -> Self {
        let linux = config.linux.as_ref();
        let own =
            linux.and_then(|linux| linux.resources.as_ref()).map(Self::of).unwrap_or_default();
        let more =
            linux.and_then(|linux| linux.overhead.as_ref()).map(Self::of).unwrap_or_default();
        // Something beyond nothing said is nothing said.
        let memory = if own.memory == 0 { 0 } else { own.memory.saturating_add(more.memory) };
        Self { memory, ..own }
    }

    fn of(resources: &LinuxContainerResources) -> Self {
        Self {
            memory: u64::try_from(resources.memory_limit_in_bytes).unwrap_or(0),
            quota: resources.cpu_quota,
            period: u64::try_from(resources.cpu_period).unwrap_or(0),
        }
    }

    /// By the annotations of the container that is the pod, else by its own limits: one that is alone is
    /// all that there is.
    pub fn of_spec(spec: &Value) -> Self {
        let annotation = |name: &str| {
            spec.get("annotations").and_then(|all| all.get(name)).and_then(Value::as_str)
        };
        let annotated = Self {
            memory: annotation(MEMORY).and_then(|text| text.parse().ok()).unwrap_or(0),
            quota: annotation(QUOTA).and_then(|text| text.parse().ok()).unwrap_or(0),
            period: annotation(PERIOD).and_then(|text| text.parse().ok()).unwrap_or(0),
        };
        if annotated != Self::default() {
            return annotated;
        }
        let resources = spec.pointer("/linux/resources").cloned();
        let resources: Option<LinuxResources> =
            resources.and_then(|resources| serde_json::from_value(resources).ok());
        let Some(resources) = resources else { return Self::default() };
        let memory = resources.memory().as_ref().and_then(|memory| memory.limit());
        let cpu = resources.cpu().as_ref();
        Self {
            memory: memory.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0),
            quota: cpu.and_then(|cpu| cpu.quota()).unwrap_or(0),
            period: cpu.and_then(|cpu| cpu.period()).unwrap_or(0),
        }
    }
}

impl Size {
    /// A guest for a pod. One that asks for less than a guest can start with gets that.
    pub fn of(wish: Wish, config: Guest) -> Self {
        let asked = u32::try_from(wish.memory.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        let memory = match asked {
            0 => config.memory,
            asked => asked.saturating_add(config.overhead).max(config.memory),
        };
        let processors = match u64::try_from(wish.quota) {
            Ok(quota) if quota > 0 && wish.period > 0 => {
                u32::try_from(quota.div_ceil(wish.period)).unwrap_or(u32::MAX)
            }
            _ => config.processors,
        };
        Self { memory, processors: processors.clamp(1, config.most_processors) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shim_protos::{cri::LinuxPodSandboxConfig, protobuf::MessageField};

    use super::*;

    #[test]
    fn a_pod_gets_what_it_asks_for_and_the_kernels_part_beside() {
        let config = Guest::default();
        for ((memory, quota, period), expected) in [
            ((0, 0, 0), (256, 1)),
            ((64 << 20, 50_000, 100_000), (256, 1)),
            ((1 << 30, 250_000, 100_000), (1024 + 96, 3)),
            (((1 << 30) + 1, 10_000_000, 100_000), (1024 + 97, 8)),
            ((u64::MAX, -1, 100_000), (u32::MAX, 1)),
        ] {
            let size = Size::of(Wish { memory, quota, period }, config);
            assert_eq!((size.memory, size.processors), expected, "{memory} {quota} {period}");
        }
    }

    #[test]
    fn annotations_count_before_limits() {
        let mut spec = json!({
            "annotations": {MEMORY: "1048576", QUOTA: "20000", PERIOD: "10000"},
            "linux": {"resources": {"memory": {"limit": 5}, "cpu": {"quota": 7, "period": 9}}},
        });
        let wish = Wish { memory: 1 << 20, quota: 20_000, period: 10_000 };
        assert_eq!(Wish::of_spec(&spec), wish);
        spec["annotations"] = json!({});
        assert_eq!(Wish::of_spec(&spec), Wish { memory: 5, quota: 7, period: 9 });
        assert_eq!(Wish::of_spec(&json!({})), Wish::default());
    }

    #[test]
    fn overhead_comes_on_top_of_something() {
        let resources = |memory| {
            let limit =
                LinuxContainerResources { memory_limit_in_bytes: memory, ..Default::default() };
            MessageField::some(limit)
        };
        let pod = |own, more| {
            let linux = LinuxPodSandboxConfig {
                resources: resources(own),
                overhead: resources(more),
                ..Default::default()
            };
            let linux = MessageField::some(linux);
            Wish::of_pod(&PodSandboxConfig { linux, ..Default::default() }).memory
        };
        assert_eq!(pod(100, 20), 120);
        assert_eq!(pod(0, 20), 0);
        assert_eq!(pod(-1, 20), 0);
    }
}
