//! `events`: what a container uses, again and again, and when its memory ran out. The form is runc's.

use std::{io::Write, time::Duration};

use serde_json::{Map, Value, json};
use shim_core::{
    Context, Error, Result,
    model::{BlkioEntry, MemoryEntry, PidsStats, Stats, StatsV1, StatsV2},
};
use shim_runc::runtime::{Runtime, Status};

use crate::cli::Global;

/// Tell what a container uses, and when its memory runs out
///
/// A line of JSON each, until the container ends.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tell what it uses now, and end
    #[arg(long)]
    stats: bool,
    /// How often to tell it
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    id: String,
}

impl Arguments {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let runtime = global.runtime()?;
        let pause = duration(&self.interval)?;
        self.tell_stats(&runtime)?;
        if self.stats {
            return Ok(0);
        }
        let memory = runtime.watch_memory(&self.id)?;
        let mut ticks = tokio::time::interval(pause);
        // The first comes at once, and was told.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                killed = memory.next() => {
                    killed?;
                    tell(&json!({ "type": "oom", "id": self.id }))?;
                    continue;
                }
            }
            let told = self.tell_stats(&runtime);
            // It may have ended at any moment, which is no failure.
            if runtime.state(&self.id)?.status == Status::Stopped {
                return Ok(0);
            }
            told?;
        }
    }

    fn tell_stats(&self, runtime: &Runtime) -> Result<()> {
        let mut stats = match runtime.stats(&self.id)? {
            Stats::V1(stats) => v1(&stats),
            Stats::V2(stats) => v2(&stats),
            _ => return Err(Error::unsupported("this kind of statistics")),
        };
        if let Some(shares) = runtime.shares(&self.id)? {
            stats["intel_rdt"] = serde_json::to_value(shares)?;
        }
        tell(&json!({ "type": "stats", "id": self.id, "data": stats }))
    }
}

fn tell(event: &Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{event}").and_then(|()| stdout.flush()).context("print")
}

/// `5s`, `500ms`, `1m`, `1h`, or a number of seconds.
fn duration(text: &str) -> Result<Duration> {
    let wrong = || Error::invalid(format!("interval {text:?} is no time, as 5s or 500ms"));
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3600)),
        _ => return Err(wrong()),
    };
    if duration.is_zero() { Err(wrong()) } else { Ok(duration) }
}

fn v1(stats: &StatsV1) -> Value {
    let (usage, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    let mut told = json!({
        "cpu": {
            "usage": {
                "total": usage.total, "kernel": usage.kernel, "user": usage.user,
                "percpu": usage.per_cpu,
            },
            "throttling": {
                "periods": throttling.periods, "throttledPeriods": throttling.throttled_periods,
                "throttledTime": throttling.throttled_time,
            },
        },
    });
    if let Some(memory) = &stats.memory {
        told["memory"] = json!({
            "cache": memory.cache,
            "usage": entry(&memory.usage), "swap": entry(&memory.swap),
            "kernel": entry(&memory.kernel), "kernelTCP": entry(&memory.kernel_tcp),
            "raw": {
                "rss": memory.rss, "cache": memory.cache, "mapped_file": memory.mapped_file,
                "active_anon": memory.active_anon, "inactive_anon": memory.inactive_anon,
                "active_file": memory.active_file, "inactive_file": memory.inactive_file,
                "total_inactive_file": memory.total_inactive_file,
                "pgfault": memory.pg_fault, "pgmajfault": memory.pg_maj_fault,
            },
        });
    }
    if let Some(pids) = stats.pids {
        told["pids"] = count(pids);
    }
    if let Some(blkio) = &stats.blkio {
        told["blkio"] = json!({
            "ioServiceBytesRecursive": devices(&blkio.io_service_bytes_recursive),
            "ioServicedRecursive": devices(&blkio.io_serviced_recursive),
        });
    }
    let pages = stats.hugetlb.iter().map(|pages| {
        let told = json!({ "usage": pages.usage, "max": pages.max, "failcnt": pages.failcnt });
        (pages.pagesize.clone(), told)
    });
    told["hugetlb"] = pages.collect::<Map<_, _>>().into();
    told
}

fn v2(stats: &StatsV2) -> Value {
    // The form has nanoseconds.
    let nanos = |micros: u64| micros.saturating_mul(1000);
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let pages = stats.hugetlb.iter().map(|pages| {
        (pages.pagesize.clone(), json!({ "usage": pages.current, "failcnt": pages.failcnt }))
    });
    json!({
        "cpu": {
            "usage": {
                "total": nanos(cpu.usage_usec), "kernel": nanos(cpu.system_usec),
                "user": nanos(cpu.user_usec),
            },
            "throttling": {
                "periods": cpu.nr_periods, "throttledPeriods": cpu.nr_throttled,
                "throttledTime": nanos(cpu.throttled_usec),
            },
        },
        "memory": {
            "cache": memory.file,
            "usage": { "limit": memory.usage_limit, "usage": memory.usage, "failcnt": 0 },
            "swap": { "limit": memory.swap_limit, "usage": memory.swap_usage, "failcnt": 0 },
            "raw": {
                "anon": memory.anon, "file": memory.file, "kernel_stack": memory.kernel_stack,
                "slab": memory.slab, "file_mapped": memory.file_mapped,
                "active_anon": memory.active_anon, "inactive_anon": memory.inactive_anon,
                "active_file": memory.active_file, "inactive_file": memory.inactive_file,
                "pgfault": memory.pgfault, "pgmajfault": memory.pgmajfault,
            },
        },
        "pids": count(stats.pids),
        "hugetlb": pages.collect::<Map<_, _>>(),
    })
}

fn entry(memory: &MemoryEntry) -> Value {
    json!({
        "limit": memory.limit, "usage": memory.usage, "max": memory.max, "failcnt": memory.failcnt,
    })
}

fn count(pids: PidsStats) -> Value {
    // No limit is 0 here.
    let limit = if pids.limit == u64::MAX { 0 } else { pids.limit };
    json!({ "current": pids.current, "limit": limit })
}

fn devices(entries: &[BlkioEntry]) -> Value {
    let one = |one: &BlkioEntry| json!({ "major": one.major, "minor": one.minor, "op": one.op, "value": one.value });
    entries.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("20ms").unwrap(), Duration::from_millis(20));
        assert_eq!(duration("2").unwrap(), Duration::from_secs(2));
        assert_eq!(duration("1m").unwrap(), Duration::from_secs(60));
        for bad in ["", "0s", "s", "5x", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counters_have_runcs_names() {
        let stats = StatsV1 {
            memory: Some(shim_core::model::MemoryStatsV1::default()),
            ..StatsV1::default()
        };
        let told = v1(&stats);
        assert_eq!(told["memory"]["usage"]["limit"], 0);
        assert_eq!(told["cpu"]["throttling"]["throttledTime"], 0);
        let mut stats = StatsV2::default();
        stats.cpu.usage_usec = 7;
        stats.pids.limit = u64::MAX;
        let told = v2(&stats);
        assert_eq!(
            (&told["cpu"]["usage"]["total"], &told["pids"]["limit"]),
            (&json!(7000), &json!(0))
        );
    }
}
