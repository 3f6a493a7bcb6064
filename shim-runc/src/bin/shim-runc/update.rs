//! `update`: changes the limits of a container.

use std::{fs, io, path::PathBuf};

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde_json::{Map, Value, json};
use shim_core::{Context, Result};

use crate::cli::Global;

/// Change the limits of a container
///
/// What is not given stays as it is.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// A file with resources in OCI terms, `-` for standard input; all other limits are ignored then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Share of processor time
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Period of real-time scheduling, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Real-time scheduling in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// Processors
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, in bytes
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Memory that is not reclaimed, in bytes
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_reservation: Option<i64>,
    /// Memory and swap, in bytes; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    memory_swap: Option<i64>,
    /// Processes and threads
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Cache, as resctrl has it
    #[arg(long, value_name = "LINES")]
    l3_cache_schema: Option<String>,
    /// Memory bandwidth, as resctrl has it
    #[arg(long, value_name = "LINES")]
    mem_bw_schema: Option<String>,
    /// The container
    id: String,
}

impl Arguments {
    pub(crate) async fn run(&self, global: &Global) -> Result<u8> {
        let resources: LinuxResources = match &self.resources {
            Some(path) if path.as_os_str() == "-" => {
                serde_json::from_reader(io::stdin().lock()).context("parse standard input")?
            }
            Some(path) => {
                let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
                serde_json::from_slice(&text)
                    .with_context(|| format!("parse {}", path.display()))?
            }
            None => serde_json::from_value(self.asked())?,
        };
        let shares = self.shares()?;
        global.runtime()?.update(&self.id, &resources, shares.as_ref()).await.map(|()| 0)
    }

    /// Shares of cache and memory bandwidth, which no resources hold.
    fn shares(&self) -> Result<Option<LinuxIntelRdt>> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (cache, bandwidth) = (given(&self.l3_cache_schema), given(&self.mem_bw_schema));
        if cache.is_none() && bandwidth.is_none() {
            return Ok(None);
        }
        let asked = json!({ "l3CacheSchema": cache, "memBwSchema": bandwidth });
        Ok(Some(serde_json::from_value(asked)?))
    }

    fn asked(&self) -> Value {
        let mut resources = Map::new();
        let parts = [
            (
                "cpu",
                json!({
                    "shares": self.cpu_share, "quota": self.cpu_quota, "period": self.cpu_period,
                    "realtimeRuntime": self.cpu_rt_runtime, "realtimePeriod": self.cpu_rt_period,
                    "cpus": self.cpuset_cpus, "mems": self.cpuset_mems,
                }),
            ),
            (
                "memory",
                json!({
                    "limit": self.memory, "reservation": self.memory_reservation,
                    "swap": self.memory_swap,
                }),
            ),
            ("pids", json!({ "limit": self.pids_limit })),
            ("blockIO", json!({ "weight": self.blkio_weight })),
        ];
        for (name, mut part) in parts {
            if let Some(part) = part.as_object_mut() {
                part.retain(|_, value| !value.is_null());
            }
            if part.as_object().is_some_and(|part| !part.is_empty()) {
                resources.insert(name.to_owned(), part);
            }
        }
        resources.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_and_bandwidth_are_no_resources() {
        assert_eq!(Arguments::default().shares().unwrap(), None);
        let mem_bw_schema = Some("MB:0=70".to_owned());
        let some = Arguments {
            mem_bw_schema,
            l3_cache_schema: Some(String::new()),
            ..Arguments::default()
        };
        let asked = some.shares().unwrap().unwrap();
        assert_eq!(
            (asked.l3_cache_schema(), asked.mem_bw_schema().as_deref()),
            (&None, Some("MB:0=70"))
        );
        assert_eq!(some.asked(), json!({}));
    }

    #[test]
    fn only_what_is_given_is_asked_for() {
        assert_eq!(Arguments::default().asked(), json!({}));
        let some = Arguments { memory: Some(-1), pids_limit: Some(7), ..Arguments::default() };
        assert_eq!(some.asked(), json!({ "memory": { "limit": -1 }, "pids": { "limit": 7 } }));
        let parsed: LinuxResources = serde_json::from_value(some.asked()).unwrap();
        assert_eq!(parsed.pids().unwrap().limit(), 7);
    }
}
