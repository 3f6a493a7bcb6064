//! Update: new limits for a running container.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shim_protos::Any;
use shim_protos::task::UpdateTaskRequest;
use shim_protos::types::Status;

use crate::case::group;
use crate::expect;
use crate::lab::{Guest, Lab, SLEEP, cgroup};

group! { "update":
    Must memory: "Update of the memory limit MUST show in the container's cgroup.";
    Must cpu: "Update of the CPU quota MUST show in the container's cgroup.";
    Must pids: "Update of the number of processes MUST show in the container's cgroup.";
    Must leaves_the_rest: "Update of one limit MUST leave the others as they were.";
    Must nil_resources: "Update without resources MUST NOT end the shim.";
    Must bad_json: "Update with resources that are no JSON MUST be refused, and change nothing.";
    Should wrong_shape: "Update with resources that are JSON but no object SHOULD be refused.";
    Must unknown_fields: "Update MUST ignore fields that the shim does not know.";
    Must any_type: "Update MUST read the resources whatever their type is called.";
    Must impossible: "Update to what the kernel refuses MUST be refused, and not harm the container.";
    Must after_exit: "Update of a container that has ended MUST be refused.";
}

const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

const LIMIT: u64 = 64 << 20;

async fn memory_limit(guest: &Guest) -> Result<u64> {
    cgroup::number(guest.pid().await?, "memory", "memory.limit_in_bytes", "memory.max")
}

async fn memory(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.update(&json!({ "memory": { "limit": LIMIT } })).await)?;
    let limit = memory_limit(&guest).await?;
    ensure!(limit == LIMIT, "expected a limit of {LIMIT} bytes, the cgroup has {limit}");
    Ok(())
}

async fn cpu(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let limits = json!({ "cpu": { "quota": 25_000, "period": 50_000 } });
    expect::optional(guest.update(&limits).await)?;
    let pid = guest.pid().await?;
    if cgroup::is_v2() {
        let max = cgroup::read(pid, "cpu", "", "cpu.max")?;
        ensure!(max == "25000 50000", "expected 25000 of 50000 µs, the cgroup has {max}");
        return Ok(());
    }
    let quota = cgroup::number(pid, "cpu", "cpu.cfs_quota_us", "")?;
    let period = cgroup::number(pid, "cpu", "cpu.cfs_period_us", "")?;
    ensure!(
        (quota, period) == (25_000, 50_000),
        "expected 25000 of 50000 µs, the cgroup has {quota} of {period}"
    );
    Ok(())
}

async fn pids_limit(guest: &Guest) -> Result<u64> {
    cgroup::number(guest.pid().await?, "pids", "pids.max", "pids.max")
}

async fn pids(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.update(&json!({ "pids": { "limit": 77 } })).await)?;
    let limit = pids_limit(&guest).await?;
    ensure!(limit == 77, "expected a limit of 77 processes, the cgroup has {limit}");
    Ok(())
}

async fn leaves_the_rest(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::optional(guest.update(&json!({ "memory": { "limit": LIMIT } })).await)?;
    guest.update(&json!({ "pids": { "limit": 55 } })).await?;
    let (bytes, processes) = (memory_limit(&guest).await?, pids_limit(&guest).await?);
    ensure!(
        (bytes, processes) == (LIMIT, 55),
        "expected {LIMIT} bytes and 55 processes, the cgroup has {bytes} and {processes}"
    );
    Ok(())
}

async fn nil_resources(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let annotations = [("colour".to_owned(), "green".to_owned())].into();
    let request = UpdateTaskRequest { id: guest.id.clone(), annotations, ..Default::default() };
    // Accepted or refused: annotations alone change nothing that there is.
    if let Err(error) = guest.shim.task.update(&request).await {
        ensure!(error.code().is_some(), "{error}");
    }
    guest.expect_status("", Status::RUNNING).await
}

fn packed(type_url: &str, value: &[u8]) -> Option<Any> {
    Some(Any { type_url: type_url.to_owned(), value: value.to_vec(), ..Any::default() })
}

async fn bad_json(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let before = memory_limit(&guest).await?;
    for text in ["{\"memory\": {\"limit\":", "\u{1}\u{2}", "{\"memory\": 5}"] {
        let answer = guest.update_any(packed(RESOURCES, text.as_bytes())).await;
        expect::refused(answer).with_context(|| format!("resources {text:?}"))?;
    }
    ensure!(memory_limit(&guest).await? == before, "the memory limit has changed");
    guest.expect_status("", Status::RUNNING).await
}

async fn wrong_shape(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    for text in ["[]", "5", "\"memory\""] {
        let answer = guest.update_any(packed(RESOURCES, text.as_bytes())).await;
        expect::refused(answer).with_context(|| format!("resources {text}"))?;
    }
    guest.expect_status("", Status::RUNNING).await
}

async fn unknown_fields(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let limits: Value = json!({
        "memory": { "limit": LIMIT, "somethingNew": [1, 2] },
        "quantum": { "entangled": true },
    });
    expect::optional(guest.update(&limits).await)?;
    let limit = memory_limit(&guest).await?;
    ensure!(limit == LIMIT, "expected a limit of {LIMIT} bytes, the cgroup has {limit}");
    Ok(())
}

async fn any_type(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    let limits = json!({ "pids": { "limit": 66 } }).to_string();
    expect::optional(guest.update_any(packed("something.else", limits.as_bytes())).await)?;
    let limit = pids_limit(&guest).await?;
    ensure!(limit == 66, "expected a limit of 66 processes, the cgroup has {limit}");
    Ok(())
}

async fn impossible(lab: &Lab) -> Result<()> {
    let guest = lab.running(&SLEEP).await?;
    expect::refused(guest.update(&json!({ "cpu": { "cpus": "9990-9999" } })).await)?;
    guest.expect_status("", Status::RUNNING).await?;
    guest.started("e", &["true"]).await?;
    guest.expect_exit("e", 0).await
}

async fn after_exit(lab: &Lab) -> Result<()> {
    let guest = lab.running(&["true"]).await?;
    guest.wait("").await?;
    guest.await_status("", Status::STOPPED).await?;
    expect::refused(guest.update(&json!({ "pids": { "limit": 44 } })).await)
}
