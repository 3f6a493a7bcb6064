//! A pod through the sandbox service, in the order of CRI's calls.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use shim_client::Generation;
use shim_protos::Any;
use shim_protos::sandbox::{
    PingRequest, PlatformRequest, SandboxMetricsRequest, SandboxStatusRequest,
    ShutdownSandboxRequest, StopSandboxRequest, WaitSandboxRequest,
};
use shim_protos::task::{ConnectRequest, PidsRequest, ShutdownRequest};
use shim_protos::types::Status;
use ttrpc::Code;

use crate::case::group;
use crate::expect::{code, one_of, optional, skip};
use crate::lab::{Lab, Pod, SLEEP, SOON, eventually, procs};

group! { "sandbox":
    Must life: "A sandbox MUST be SANDBOX_READY from Start to Stop, SANDBOX_NOTREADY before and after, and its shim end after Shutdown.", since(Generation::V1_7);
    Should version_3: "The answer to the start of a sandbox by containerd 2.x SHOULD be of version 3, or each container costs one more.", since(Generation::V2_0);
    Must every_config: "A sandbox MUST be created without a config, with an empty one, and with a pod's.", since(Generation::V1_7);
    Must pid_is_the_hosts: "The pid of a running sandbox MUST be a process of the host.", since(Generation::V1_7);
    Must one_sandbox: "A second Create or Start of a sandbox MUST be refused.", since(Generation::V1_7);
    Must stop_again: "A second Stop MUST succeed.", since(Generation::V1_7);
    Must stop_unstarted: "The Stop of a sandbox that was never started MUST succeed.", since(Generation::V1_7);
    Must shutdown_unstarted: "The Shutdown of a sandbox that was never started MUST end the shim.", since(Generation::V1_7);
    Must shutdown_uncreated: "A Shutdown without a sandbox MUST end the shim: containerd sends it after a failed Create.", since(Generation::V1_7);
    Must shutdown_unstopped: "The Shutdown of a running sandbox MUST leave nothing of it and its containers.", since(Generation::V1_7);
    Must waiters: "Every Wait MUST be answered at the end of the sandbox, and one after it at once.", since(Generation::V1_7);
    Must death: "The death of a sandbox MUST be told by Wait and Status, and leave Stop and Shutdown working.", since(Generation::V1_7);
    Must restart: "On a new connection, Connect, Pids and Status MUST know the sandbox, and Wait tell its end.", since(Generation::V1_7);
    Must other_ids: "A sandbox of another id MUST be NOT_FOUND.", since(Generation::V1_7);
    Must containers: "Containers of a sandbox MUST run in its shim, and end without it.", since(Generation::V1_7);
    Must task_shutdown: "The task service's Shutdown MUST NOT end a shim that has a sandbox.", since(Generation::V1_7);
    Must container_death: "A container MUST end with its sandbox, and be told of and deleted.", since(Generation::V1_7);
    Must cleanup: "The `delete` for the sandbox of a killed shim MUST leave nothing of its pod.", since(Generation::V1_7);
    Must platform: "Platform MUST tell the names that images use.", since(Generation::V1_7);
    Should ping: "Ping SHOULD succeed for a running sandbox alone.", since(Generation::V1_7);
    Should metrics: "Metrics SHOULD be those of a cgroup, as a task's are.", since(Generation::V1_7);
}

const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

async fn life(lab: &Lab) -> Result<()> {
    let pod = lab.created_pod().await?;
    pod.expect_state(NOT_READY).await?;
    let started = pod.start().await?;
    let status = pod.status().await?;
    ensure!(status.state == READY, "SandboxStatus says {:?} after Start", status.state);
    ensure!(status.sandbox_id == pod.id, "SandboxStatus tells id {:?}", status.sandbox_id);
    ensure!(status.pid == started.pid, "pid {} became {}", started.pid, status.pid);
    ensure!(started.created_at.seconds > 0, "StartSandbox tells no time");
    ensure!(status.created_at.seconds > 0, "SandboxStatus tells no time");
    pod.stop().await?;
    pod.expect_state(NOT_READY).await?;
    pod.end_well().await
}

async fn version_3(lab: &Lab) -> Result<()> {
    let version = lab.bare_pod().await?.shim.answer.version;
    ensure!(version == 3, "version {version}");
    Ok(())
}

async fn every_config(lab: &Lab) -> Result<()> {
    let any = |type_url: &str, value: &[u8]| {
        Some(Any { type_url: type_url.into(), value: value.into(), ..Default::default() })
    };
    // metadata { name: "n" uid: "u" namespace: "s" }, hostname "h"
    let config = b"\x0a\x09\x0a\x01n\x12\x01u\x1a\x01s\x12\x01h";
    let empty = any("google.protobuf.Empty", b"");
    for options in [None, empty, any("runtime.v1.PodSandboxConfig", config)] {
        let pod = lab.bare_pod().await?;
        pod.create(options).await?;
        pod.start().await?;
        pod.expect_state(READY).await?;
        pod.end_well().await?;
    }
    Ok(())
}

async fn pid_is_the_hosts(lab: &Lab) -> Result<()> {
    let pod = lab.created_pod().await?;
    let pid = pod.start().await?.pid;
    ensure!(procs::runs(pid), "there is no process {pid}");
    pod.stop().await?;
    if pid != pod.shim_pid {
        let gone = || !procs::runs(pid);
        ensure!(eventually(SOON, gone).await, "process {pid} survives Stop");
    }
    Ok(())
}

async fn one_sandbox(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    code(pod.create(None).await, Code::ALREADY_EXISTS)?;
    one_of(pod.start().await, &[Code::FAILED_PRECONDITION, Code::ALREADY_EXISTS])?;
    pod.expect_state(READY).await
}

async fn stop_again(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    for _ in 0..3 {
        pod.stop().await?;
    }
    pod.expect_state(NOT_READY).await
}

async fn stop_unstarted(lab: &Lab) -> Result<()> {
    let pod = lab.created_pod().await?;
    pod.stop().await?;
    pod.stop().await?;
    pod.end_well().await
}

async fn shutdown_unstarted(lab: &Lab) -> Result<()> {
    lab.created_pod().await?.end_well().await
}

async fn shutdown_uncreated(lab: &Lab) -> Result<()> {
    lab.bare_pod().await?.end_well().await
}

async fn shutdown_unstopped(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let guest = lab.run_in(&pod, &SLEEP).await?;
    let (container, sandbox) = (guest.pid().await?, pod.status().await?.pid);
    pod.end_well().await?;
    for pid in [container, sandbox] {
        let gone = || {
            procs::reap();
            !procs::runs(pid)
        };
        ensure!(eventually(SOON, gone).await, "process {pid} survives Shutdown");
    }
    Ok(())
}

async fn waiters(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let second = lab.rejoin_pod(&pod).await?;
    let request = WaitSandboxRequest { sandbox_id: pod.id.clone(), ..Default::default() };
    let sandbox = second.sandbox();
    let (one, other, elsewhere, stopped) =
        tokio::join!(pod.wait(), pod.wait(), sandbox.wait(&request), async {
            tokio::task::yield_now().await;
            pod.stop().await
        });
    stopped?;
    for ended in [one?, other?, elsewhere?, pod.wait().await?] {
        ensure!(ended.exited_at.seconds > 0, "WaitSandbox tells no time");
    }
    Ok(())
}

async fn death(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let pid = kill(&pod).await?;
    let ended = pod.wait().await?;
    ensure!(ended.exit_status != 0, "WaitSandbox tells exit status 0 of the killed {pid}");
    pod.expect_state(NOT_READY).await?;
    pod.stop().await?;
    pod.end_well().await
}

/// Kills a sandbox's process.
async fn kill(pod: &Pod) -> Result<u32> {
    let pid = pod.status().await?.pid;
    if pid == pod.shim_pid {
        return skip("the sandbox has no process but the shim");
    }
    procs::signal(pid, Signal::SIGKILL)?;
    Ok(pid)
}

async fn restart(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let before = pod.status().await?;
    let back = lab.rejoin_pod(&pod).await?;
    let id = || pod.id.clone();
    let connected = back.task.connect(&ConnectRequest { id: id(), ..Default::default() }).await?;
    ensure!(connected.shim_pid == pod.shim_pid, "Connect tells shim {}", connected.shim_pid);
    back.task.pids(&PidsRequest { id: id(), ..Default::default() }).await?;
    let sandbox = back.sandbox();
    let request = SandboxStatusRequest { sandbox_id: id(), ..Default::default() };
    let now = sandbox.status(&request).await?;
    ensure!(now == before, "SandboxStatus says {now:?}, and said {before:?}");
    let request = WaitSandboxRequest { sandbox_id: id(), ..Default::default() };
    let (ended, stopped) = tokio::join!(sandbox.wait(&request), pod.stop());
    stopped?;
    ended?;
    // With the other connection closed the shim stays.
    back.leave().await;
    pod.expect_state(NOT_READY).await
}

async fn other_ids(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let sandbox_id = || "nobody".to_owned();
    let request = SandboxStatusRequest { sandbox_id: sandbox_id(), ..Default::default() };
    code(pod.sandbox.status(&request).await, Code::NOT_FOUND)?;
    let request = WaitSandboxRequest { sandbox_id: sandbox_id(), ..Default::default() };
    code(pod.sandbox.wait(&request).await, Code::NOT_FOUND)?;
    let request = StopSandboxRequest { sandbox_id: sandbox_id(), ..Default::default() };
    code(pod.sandbox.stop(&request).await, Code::NOT_FOUND)?;
    let request = ShutdownSandboxRequest { sandbox_id: sandbox_id(), ..Default::default() };
    code(pod.sandbox.shutdown(&request).await, Code::NOT_FOUND)?;
    pod.expect_state(READY).await
}

async fn containers(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let one = lab.run_in(&pod, &SLEEP).await?;
    let other = lab.run_in(&pod, &["sh", "-c", "exit 3"]).await?;
    for guest in [&one, &other] {
        let pid = guest.shim_pid().await?;
        ensure!(pid == pod.shim_pid, "shim {pid} has the container, not the sandbox's");
    }
    other.expect_exit("", 3).await?;
    other.delete("").await?;
    one.expect_status("", Status::RUNNING).await?;
    one.kill_and_wait().await?;
    one.delete("").await?;
    pod.expect_state(READY).await
}

async fn task_shutdown(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let guest = lab.run_in(&pod, &SLEEP).await?;
    guest.kill_and_wait().await?;
    guest.delete("").await?;
    for id in [&guest.id, &pod.id] {
        let request = ShutdownRequest { id: id.clone(), ..Default::default() };
        pod.shim.task.shutdown(&request).await?;
    }
    pod.expect_state(READY).await
}

async fn container_death(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let guest = lab.run_in(&pod, &SLEEP).await?;
    kill(&pod).await?;
    guest.wait("").await?;
    guest.expect_status("", Status::STOPPED).await?;
    guest.delete("").await?;
    lab.expect_topics(&guest.id, &["create", "start", "exit", "delete"]).await
}

async fn cleanup(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let guest = lab.run_in(&pod, &SLEEP).await?;
    let pids = [guest.pid().await?, pod.status().await?.pid];
    procs::signal(pod.shim_pid, Signal::SIGKILL)?;
    pod.expect_shim_ends().await?;
    lab.clean_up(pod.shim.bundle()).await?;
    for pid in pids {
        let gone = || {
            procs::reap();
            !procs::runs(pid)
        };
        ensure!(eventually(SOON, gone).await, "process {pid} survives `delete`");
    }
    Ok(())
}

async fn platform(lab: &Lab) -> Result<()> {
    let pod = lab.created_pod().await?;
    let request = PlatformRequest { sandbox_id: pod.id.clone(), ..Default::default() };
    let platform = pod.sandbox.platform(&request).await?.platform;
    let (os, architecture) = (&platform.os, &platform.architecture);
    ensure!(os == "linux", "os {os:?}");
    let is_an_images = !["", "x86_64", "aarch64", "x86"].contains(&architecture.as_str());
    ensure!(is_an_images, "architecture {architecture:?}");
    Ok(())
}

async fn ping(lab: &Lab) -> Result<()> {
    let pod = lab.created_pod().await?;
    let request = PingRequest { sandbox_id: pod.id.clone(), ..Default::default() };
    pod.start().await?;
    optional(pod.sandbox.ping(&request).await)?;
    pod.stop().await?;
    let answer = pod.sandbox.ping(&request).await;
    ensure!(answer.is_err(), "Ping succeeds after Stop");
    Ok(())
}

async fn metrics(lab: &Lab) -> Result<()> {
    let pod = lab.running_pod().await?;
    let request = SandboxMetricsRequest { sandbox_id: pod.id.clone(), ..Default::default() };
    let metrics = optional(pod.sandbox.metrics(&request).await)?.metrics;
    let name = &metrics.data.type_url;
    let known = ["io.containerd.cgroups.v1.Metrics", "io.containerd.cgroups.v2.Metrics"];
    ensure!(known.contains(&name.as_str()), "metrics of type {name:?}");
    ensure!(metrics.timestamp.seconds > 0, "the metrics tell no time");
    Ok(())
}
