//! What containerd's metrics say is what the kernel's files say.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use integration::cgroups;
use integration::client::{Streams, Target};
use integration::lane::Lane;
use serde_json::json;
use shim_protos::cgroups_v1::{MemoryEntry, MemoryStat};
use shim_protos::protobuf::Message;
use shim_protos::{cgroups_v1, cgroups_v2};

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
        let told = client.metrics(name).await?.value;
        let after = Files::read(pid)?;
        client.resume(name).await?;
        client.kill(init, KILL).await?;
        client.wait(init).await?;
        client.delete(init).await?;
        client.delete_container(name).await?;
        let told = if cgroups::is_unified()? {
            of_v2(&cgroups_v2::Metrics::parse_from_bytes(&told)?)
        } else {
            of_v1(&cgroups_v1::Metrics::parse_from_bytes(&told)?)
        };
        compare(&told, &before, &after)
    })
}

/// The files, as numbers by name.
struct Files {
    numbers: HashMap<String, u64>,
}

/// Each with the controller of version 1.
const V1: [(&str, &str); 7] = [
    ("pids", "pids.current"),
    ("pids", "pids.max"),
    ("cpuacct", "cpuacct.usage"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.max_usage_in_bytes"),
    ("memory", "memory.failcnt"),
];

const V2: [(&str, &str); 5] = [
    ("pids", "pids.current"),
    ("pids", "pids.max"),
    ("memory", "memory.current"),
    ("memory", "memory.max"),
    ("memory", "memory.peak"),
];

impl Files {
    fn read(pid: i32) -> Result<Self> {
        let mut numbers = HashMap::new();
        let files = if cgroups::is_unified()? { V2.as_slice() } else { &V1 };
        for (controller, file) in files {
            let text = cgroups::read_file(pid, controller, file)?;
            numbers.insert((*file).to_owned(), text.trim().parse().context("a number")?);
        }
        for (controller, file) in [("memory", "memory.stat"), ("cpu", "cpu.stat")] {
            for line in cgroups::read_file(pid, controller, file)?.lines() {
                let (key, value) = line.split_once(' ').context("a key and a number")?;
                numbers.insert(format!("{file} {key}"), value.parse()?);
            }
        }
        Ok(Self { numbers })
    }
}

/// What was told, by the name in the files; first the limits of processes and of memory, then how many
/// processes there are, and what of memory and of time was used.
type Told = Vec<(&'static str, u64)>;

fn of_v1(told: &cgroups_v1::Metrics) -> Told {
    let mut pairs = vec![
        ("pids.max", told.pids.limit),
        ("memory.limit_in_bytes", told.memory.usage.limit),
        ("pids.current", told.pids.current),
        ("memory.usage_in_bytes", told.memory.usage.usage),
        ("cpuacct.usage", told.cpu.usage.total),
        ("cpu.stat nr_periods", told.cpu.throttling.periods),
        ("cpu.stat nr_throttled", told.cpu.throttling.throttled_periods),
        ("cpu.stat throttled_time", told.cpu.throttling.throttled_time),
    ];
    pairs.extend(entry(&told.memory.usage));
    pairs.extend(stat(&told.memory));
    pairs
}

fn of_v2(told: &cgroups_v2::Metrics) -> Told {
    let (memory, cpu) = (&told.memory, &told.cpu);
    vec![
        ("pids.max", told.pids.limit),
        ("memory.max", memory.usage_limit),
        ("pids.current", told.pids.current),
        ("memory.current", memory.usage),
        ("cpu.stat usage_usec", cpu.usage_usec),
        ("cpu.stat user_usec", cpu.user_usec),
        ("cpu.stat system_usec", cpu.system_usec),
        ("cpu.stat nr_periods", cpu.nr_periods),
        ("memory.peak", memory.max_usage),
        ("memory.stat anon", memory.anon),
        ("memory.stat file", memory.file),
        ("memory.stat kernel_stack", memory.kernel_stack),
        ("memory.stat slab", memory.slab),
        ("memory.stat shmem", memory.shmem),
        ("memory.stat file_mapped", memory.file_mapped),
        ("memory.stat inactive_anon", memory.inactive_anon),
        ("memory.stat active_anon", memory.active_anon),
        ("memory.stat inactive_file", memory.inactive_file),
        ("memory.stat active_file", memory.active_file),
        ("memory.stat unevictable", memory.unevictable),
        ("memory.stat slab_reclaimable", memory.slab_reclaimable),
        ("memory.stat slab_unreclaimable", memory.slab_unreclaimable),
        ("memory.stat pgfault", memory.pgfault),
        ("memory.stat pgmajfault", memory.pgmajfault),
    ]
}

fn compare(told: &Told, before: &Files, after: &Files) -> Result<()> {
    for (file, told) in told {
        let Some(first) = before.numbers.get(*file) else { continue };
        let last = after.numbers.get(*file).context("the file is gone")?;
        let (low, high) = (first.min(last), first.max(last));
        ensure!((low..=high).contains(&told), "{file}: {told}, the file says {low} to {high}");
    }
    let first: Vec<u64> = told.iter().map(|(_, number)| *number).take(5).collect();
    ensure!(first[..2] == [40, 64 << 20], "the limits are not told");
    ensure!(first[2..].iter().all(|number| *number > 0), "nothing is used");
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
