//! What containerd's metrics say is what the kernel's files say.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use integration::cgroups;
use integration::client::{Streams, Target};
use integration::lane::Lane;
use integration::runner::Skip;
use serde_json::json;
use shim_protos::cgroups_v1::{MemoryEntry, MemoryStat, Metrics};
use shim_protos::protobuf::Message;

integration::tests![metrics_equal_the_files_of_the_cgroup];

const KILL: u32 = 9;

/// Works a little, in memory and in CPU time, then rests.
const WORK: &str = "i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done; sleep 1000";

fn metrics_equal_the_files_of_the_cgroup(lane: &Lane) -> Result<()> {
    let draft = lane.draft(&["sh", "-c", WORK])?;
    let spec = draft
        .spec
        .clone()
        .set("/linux/resources/pids", json!({ "limit": 40 }))
        .set("/linux/resources/memory", json!({ "limit": 64 << 20 }));
    lane.talk(async |client| {
        let (name, init) = (draft.name.as_str(), Target::init(&draft.name));
        client.create_container(name, &spec, None).await?;
        client.create(name, &[], &Streams::default()).await?;
        let pid = client.start(init).await?.cast_signed();
        // What is frozen uses nothing: the files stand still.
        client.pause(name).await?;
        let before = Files::read(pid)?;
        let told = Metrics::parse_from_bytes(&client.metrics(name).await?.value)?;
        let after = Files::read(pid)?;
        client.resume(name).await?;
        client.kill(init, KILL).await?;
        client.wait(init).await?;
        client.delete(init).await?;
        client.delete_container(name).await?;
        let (Some(before), Some(after)) = (before, after) else {
            return Err(Skip("this machine has no cgroups of version 1".to_owned()).into());
        };
        compare(&told, &before, &after)
    })
}

/// The files, as numbers by name.
struct Files {
    numbers: HashMap<String, u64>,
}

impl Files {
    fn read(pid: i32) -> Result<Option<Self>> {
        let mut numbers = HashMap::new();
        for (controller, file) in [
            ("pids", "pids.current"),
            ("pids", "pids.max"),
            ("cpuacct", "cpuacct.usage"),
            ("memory", "memory.usage_in_bytes"),
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.max_usage_in_bytes"),
            ("memory", "memory.failcnt"),
        ] {
            let Some(text) = cgroups::read_v1(pid, controller, file)? else { return Ok(None) };
            numbers.insert(file.to_owned(), text.trim().parse().context("a number")?);
        }
        for (controller, file) in [("memory", "memory.stat"), ("cpu", "cpu.stat")] {
            let Some(text) = cgroups::read_v1(pid, controller, file)? else { return Ok(None) };
            for line in text.lines() {
                let (key, value) = line.split_once(' ').context("a key and a number")?;
                numbers.insert(format!("{file} {key}"), value.parse()?);
            }
        }
        Ok(Some(Self { numbers }))
    }
}

fn compare(told: &Metrics, before: &Files, after: &Files) -> Result<()> {
    let usage = &told.memory.usage;
    let mut pairs: Vec<(&str, u64)> = vec![
        ("pids.current", told.pids.current),
        ("pids.max", told.pids.limit),
        ("cpuacct.usage", told.cpu.usage.total),
        ("cpu.stat nr_periods", told.cpu.throttling.periods),
        ("cpu.stat nr_throttled", told.cpu.throttling.throttled_periods),
        ("cpu.stat throttled_time", told.cpu.throttling.throttled_time),
    ];
    pairs.extend(entry(usage));
    pairs.extend(stat(&told.memory));
    for (file, told) in pairs {
        let Some(first) = before.numbers.get(file) else { continue };
        let last = after.numbers.get(file).context("the file is gone")?;
        let (low, high) = (first.min(last), first.max(last));
        ensure!((low..=high).contains(&&told), "{file}: {told}, the file says {low} to {high}");
    }
    ensure!(told.pids.limit == 40 && usage.limit == 64 << 20, "the limits are not told");
    ensure!(told.cpu.usage.total > 0 && usage.usage > 0, "nothing is used");
    Ok(())
}

fn entry(usage: &MemoryEntry) -> [(&'static str, u64); 4] {
    [
        ("memory.usage_in_bytes", usage.usage),
        ("memory.limit_in_bytes", usage.limit),
        ("memory.max_usage_in_bytes", usage.max),
        ("memory.failcnt", usage.failcnt),
    ]
}

fn stat(memory: &MemoryStat) -> [(&'static str, u64); 18] {
    [
        ("memory.stat cache", memory.cache),
        ("memory.stat rss", memory.rss),
        ("memory.stat rss_huge", memory.rss_huge),
        ("memory.stat mapped_file", memory.mapped_file),
        ("memory.stat dirty", memory.dirty),
        ("memory.stat writeback", memory.writeback),
        ("memory.stat pgpgin", memory.pg_pg_in),
        ("memory.stat pgpgout", memory.pg_pg_out),
        ("memory.stat pgfault", memory.pg_fault),
        ("memory.stat pgmajfault", memory.pg_maj_fault),
        ("memory.stat inactive_anon", memory.inactive_anon),
        ("memory.stat active_anon", memory.active_anon),
        ("memory.stat inactive_file", memory.inactive_file),
        ("memory.stat active_file", memory.active_file),
        ("memory.stat unevictable", memory.unevictable),
        ("memory.stat total_cache", memory.total_cache),
        ("memory.stat total_rss", memory.total_rss),
        ("memory.stat total_pgfault", memory.total_pg_fault),
    ]
}
