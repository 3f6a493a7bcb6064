//! Limits of containers, and what they have used.

use anyhow::{Context, Result, ensure};
use integration::cri::container::{Container, Draft};
use integration::cri::stage::Stage;
use integration::messages::cri::{ContainerState, PodState, Resources};
use integration::wait::{self, SOON};

integration::pod_tests![
    a_container_s_counters_grow_with_its_work,
    a_pod_s_counters_are_those_of_all_in_it,
    a_container_s_limits_are_changed_while_it_runs,
    a_container_out_of_memory_says_so,
];

const MIB: i64 = 1 << 20;

fn a_container_s_counters_grow_with_its_work(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let busy = pod.start(&Draft::new("busy", &["sh", "-c", "while :; do :; done"]))?;
    let first = cpu(&busy)?;
    wait::until("more time used", SOON, || {
        let now = cpu(&busy)?;
        ensure!(now > first, "{now} after {first}");
        Ok(())
    })?;
    let memory = busy.stats()?.memory.working_set_bytes.value;
    ensure!(memory > 0, "no memory used");
    pod.remove()
}

/// The nanoseconds that a container has used, which are some at once.
fn cpu(container: &Container) -> Result<u64> {
    wait::until("time used", SOON, || {
        let used = container.stats()?.cpu.usage_core_nano_seconds.value;
        ensure!(used > 0, "none");
        Ok(used)
    })
}

fn a_pod_s_counters_are_those_of_all_in_it(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let busy = pod.start(&Draft::new("busy", &["sh", "-c", "while :; do :; done"]))?;
    pod.sleeper("idle")?;
    cpu(&busy)?;
    let stats = wait::until("the pod's counters", SOON, || {
        let stats = pod.stats()?;
        ensure!(stats.cpu.usage_core_nano_seconds.value > 0, "{stats:?}");
        ensure!(stats.memory.working_set_bytes.value > 0, "{stats:?}");
        Ok(stats)
    })?;
    assert_eq!(stats.containers.len(), 2);
    assert_eq!(stats.network.default_interface.name, "eth0");
    pod.remove()
}

fn a_container_s_limits_are_changed_while_it_runs(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let draft = Draft::new("one", &["sleep", "1000"]);
    let container = pod.start(&draft.resources(limits(64 * MIB, 20_000)))?;
    assert_eq!(memory_limit(&container)?, 64 * MIB);
    assert_eq!(cpu_quota(&container)?, 20_000);
    container.update(limits(96 * MIB, 50_000))?;
    assert_eq!(memory_limit(&container)?, 96 * MIB);
    assert_eq!(cpu_quota(&container)?, 50_000);
    assert_eq!(container.status()?.state, ContainerState::CONTAINER_RUNNING.into());
    pod.remove()
}

fn limits(memory: i64, quota: i64) -> Resources {
    Resources {
        cpu_period: 100_000,
        cpu_quota: quota,
        memory_limit_in_bytes: memory,
        ..Default::default()
    }
}

fn memory_limit(container: &Container) -> Result<i64> {
    control(container, "memory/memory.limit_in_bytes", "memory.max")
}

fn cpu_quota(container: &Container) -> Result<i64> {
    control(container, "cpu/cpu.cfs_quota_us", "cpu.max")
}

/// The first number in a file of the container's cgroup as it sees that itself: in a virtual machine
/// the version may be another than here.
fn control(container: &Container, v1: &str, v2: &str) -> Result<i64> {
    let read = format!("cd /sys/fs/cgroup; if [ -e {v1} ]; then cat {v1}; else cat {v2}; fi");
    let text = container.exec(&["sh", "-c", &read])?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().with_context(|| format!("no number: {text:?}"))
}

fn a_container_out_of_memory_says_so(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.pod()?;
    let neighbour = pod.sleeper("neighbour")?;
    let limit = Resources { memory_limit_in_bytes: 24 * MIB, ..Default::default() };
    let draft = Draft::new("greedy", &["tail", "/dev/zero"]).resources(limit);
    let status = pod.start(&draft)?.wait()?;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(pod.status()?.state, PodState::SANDBOX_READY.into());
    assert_eq!(neighbour.exec(&["echo", "well"])?, "well");
    pod.remove()
}
