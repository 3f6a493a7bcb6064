//! Stats: the container's counters, in the form that containerd can read.

use anyhow::{Context, Result, ensure};
use shim_protos::protobuf::Message;
use shim_protos::{cgroups_v1, cgroups_v2};
use ttrpc::Code;

use crate::case::group;
use crate::expect;
use crate::lab::{Guest, Lab, SLEEP, SOON, cgroup};

group! { "stats":
    Must type_of_the_host: "The type of Stats MUST be that of the host's cgroup version.";
    Must processes: "Stats MUST count the container's processes as its cgroup does.";
    Must memory: "Stats MUST tell the memory that the container's cgroup tells.";
    Must cpu: "Stats MUST tell CPU time that grows as the container works.";
    Must before_start: "Stats of a container that was not started MUST succeed.";
    Must before_create: "Stats without a container MUST be NOT_FOUND.";
    Must after_exit: "Stats of a container that has ended MUST be answered, with numbers or a refusal.";
    Must paused: "Stats of a paused container MUST succeed.";
}

/// Of all that there is, what both versions of cgroups have.
#[derive(Debug)]
struct Numbers {
    processes: u64,
    memory: u64,
    /// Nanoseconds.
    cpu: u64,
}

async fn numbers(guest: &Guest) -> Result<Numbers> {
    let stats = expect::optional(guest.stats().await)?.stats.into_option().context("no stats")?;
    if cgroup::is_v2() {
        let metrics = cgroups_v2::Metrics::parse_from_bytes(&stats.value)?;
        let (pids, memory, cpu) = (metrics.pids, metrics.memory, metrics.cpu);
        return Ok(Numbers {
            processes: pids.current,
            memory: memory.usage,
            cpu: cpu.usage_usec * 1000,
        });
    }
    let metrics = cgroups_v1::Metrics::parse_from_bytes(&stats.value)?;
    Ok(Numbers {
        processes: metrics.pids.current,
        memory: metrics.memory.usage.usage,
        cpu: metrics.cpu.usage.total,
    })
}

async fn type_of_the_host(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let stats = expect::optional(guest.stats().await)?.stats.into_option().context("no stats")?;
    let version = if cgroup::is_v2() { "v2" } else { "v1" };
    let expected = format!("io.containerd.cgroups.{version}.Metrics");
    ensure!(stats.type_url == expected, "expected the type {expected}, got {}", stats.type_url);
    Ok(())
}

async fn processes(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    guest.started("e1", &SLEEP).await?;
    guest.started("e2", &SLEEP).await?;
    let told = numbers(&guest).await?.processes;
    let truth = cgroup::number(guest.pid().await?, "pids", "pids.current", "pids.current")?;
    ensure!(told == truth && told >= 3, "Stats tells {told} processes, the cgroup {truth}");
    Ok(())
}

async fn memory(lab: &Lab) -> Result<()> {
    let guest = lab
        .running(&["/bin/sh", "-c", "x=$(head -c 8000000 /dev/zero | tr '\\0' a); sleep 1000"])
        .await?;
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let told = numbers(&guest).await?.memory;
        let file = ("memory.usage_in_bytes", "memory.current");
        let truth = cgroup::number(guest.pid().await?, "memory", file.0, file.1)?;
        // It moves while the process grows.
        if truth > 8_000_000 && told.abs_diff(truth) < 1 << 20 {
            return Ok(());
        }
        let late = tokio::time::Instant::now() > deadline;
        ensure!(!late, "Stats tells {told} bytes of memory, the cgroup {truth}");
        tokio::task::yield_now().await;
    }
}

async fn cpu(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let before = numbers(&guest).await?.cpu;
    guest
        .started("e", &["/bin/sh", "-c", "n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done"])
        .await?;
    guest.expect_exit("e", 0).await?;
    let after = numbers(&guest).await?.cpu;
    // The loop takes at least a tenth of a second, whose unit a shim may get wrong.
    let worked = after.saturating_sub(before);
    ensure!((10_000_000..10_000_000_000).contains(&worked), "{before} ns of CPU, then {after} ns");
    Ok(())
}

async fn before_start(lab: &Lab) -> Result<()> {
    let guest = lab.created(&SLEEP).await?;
    let told = numbers(&guest).await?;
    ensure!(told.processes >= 1, "there is the init process, but Stats tells {told:?}");
    Ok(())
}

async fn before_create(lab: &Lab) -> Result<()> {
    let guest = lab.bare(&SLEEP).await?;
    expect::code(guest.stats().await, Code::NOT_FOUND)
}

async fn after_exit(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    if let Err(error) = guest.stats().await {
        ensure!(error.code().is_some(), "{error}");
    }
    guest.delete("").await?;
    Ok(())
}

async fn paused(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.pause().await)?;
    let told = numbers(&guest).await?;
    ensure!(told.processes == 1, "one process is paused, but Stats tells {told:?}");
    guest.resume().await?;
    Ok(())
}
