//! Resource limits hold.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::cgroups::{self, Value};
use integration::lane::Lane;
use integration::procs;
use integration::wait::{self, SOON};
use serde_json::json;

integration::tests![
    a_memory_limit_is_set_and_kills_who_exceeds_it,
    an_out_of_memory_process_does_not_take_the_container_along,
    a_cpu_limit_is_set_and_throttles,
    a_pids_limit_stops_a_fork_bomb,
];

const MEGABYTE: u64 = 1 << 20;

fn a_memory_limit_is_set_and_kills_who_exceeds_it(lane: &Lane) -> Result<()> {
    let limit = (32 * MEGABYTE).to_string();
    let container = lane.sleeper(&["--memory-limit", &limit])?;
    assert_eq!(cgroups::read(container.pid()?, Value::MemoryLimit)?, 32 * MEGABYTE);
    container.remove()?;
    // tail keeps the last line, and this one has no end.
    let output = lane.run(&["--memory-limit", &limit], &["tail", "/dev/zero"])?;
    assert_eq!(output.status, 137, "{}", output.stderr);
    Ok(())
}

fn an_out_of_memory_process_does_not_take_the_container_along(lane: &Lane) -> Result<()> {
    let limit = (32 * MEGABYTE).to_string();
    let container = lane.sleeper(&["--memory-limit", &limit])?;
    let output = container.exec(&["tail", "/dev/zero"])?;
    assert_eq!(output.status, 137, "{}", output.stderr);
    container.wait_status("RUNNING")?;
    container.remove()?;
    Ok(())
}

fn a_cpu_limit_is_set_and_throttles(lane: &Lane) -> Result<()> {
    let flags = ["--null-io", "--cpus", "0.2"];
    let container = lane.start(&flags, &["sh", "-c", "while :; do :; done"])?;
    let pid = container.pid()?;
    assert_eq!(cgroups::read(pid, Value::CpuQuota)?, 20_000);
    wait::until("throttling", SOON, || {
        ensure!(cgroups::read(pid, Value::Throttled)? > 2);
        Ok(())
    })?;
    let (start, before) = (Instant::now(), procs::cpu_time(pid)?);
    wait::throughout(Duration::from_secs(1), || Ok(()))?;
    // A period more or less at either end.
    let used = procs::cpu_time(pid)? - before;
    assert!(used < start.elapsed().mul_f32(0.3), "{used:?} of {:?}", start.elapsed());
    container.remove()?;
    Ok(())
}

fn a_pids_limit_stops_a_fork_bomb(lane: &Lane) -> Result<()> {
    let bomb = "while :; do sleep 1000 & done";
    let script = format!("sh -c '{bomb}'; sleep 1000");
    let limit = json!({ "limit": 20 });
    let (container, _folder) =
        lane.start_spec(&["sh", "-c", &script], |spec| spec.set("/linux/resources/pids", limit))?;
    let pid = container.pid()?;
    assert_eq!(cgroups::read(pid, Value::PidsLimit)?, 20);
    wait::until("many processes", SOON, || {
        ensure!(cgroups::read(pid, Value::Pids)? > 10);
        Ok(())
    })?;
    wait::throughout(Duration::from_millis(300), || {
        ensure!(cgroups::read(pid, Value::Pids)? <= 20);
        Ok(())
    })?;
    container.remove()?;
    Ok(())
}
