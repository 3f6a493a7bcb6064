//! What the resctrl filesystem tells of a container: its lines, what there is to share, and what is
//! counted for it, a directory a domain of the cache.

use std::{fs, path::Path};

use serde::Serialize;

use super::Group;

/// What a container has and uses of cache and memory bandwidth, under the names that `runc events` has.
/// What the kernel does not offer is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// How the cache can be divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<CacheLimits>,
    /// The lines for the cache of all that are in no class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    /// The container's lines for the cache.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// How bandwidth can be divided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<BandwidthLimits>,
    /// The line for bandwidth of all that are in no class.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    /// The container's line for bandwidth.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// The traffic between memory and each cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mbm_stats: Vec<Traffic>,
    /// How much of each cache is in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmt_stats: Vec<Occupancy>,
}

/// How a cache can be divided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheLimits {
    /// All of it, as a bit mask in hexadecimal digits.
    pub cbm_mask: String,
    /// The fewest bits of a part.
    pub min_cbm_bits: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// How memory bandwidth can be divided, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BandwidthLimits {
    /// The steps.
    pub bandwidth_gran: u64,
    /// Whether delays grow with what is asked for, 0 or 1.
    pub delay_linear: u64,
    /// The least share.
    pub min_bandwidth: u64,
    /// How many classes there can be.
    pub num_closids: u64,
}

/// Traffic between memory and a cache, in bytes since the class was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// All of it.
    pub mbm_total_bytes: u64,
    /// That with the node's own memory.
    pub mbm_local_bytes: u64,
}

/// What is in use of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// In bytes.
    pub llc_occupancy: u64,
}

impl Group {
    /// Reads all there is. The counters are those of the container alone, or of its class where that is
    /// its own.
    pub(crate) fn shares(&self) -> Shares {
        let read =
            |directory: &Path| fs::read_to_string(directory.join("schemata")).unwrap_or_default();
        let (top, own) = (read(&self.root), read(&self.class));
        let mut shares = Shares {
            l3_cache_info: self.cache_limits(),
            l3_cache_schema_root: lines(&top, "L3"),
            l3_cache_schema: lines(&own, "L3"),
            mem_bw_info: self.bandwidth_limits(),
            mem_bw_schema_root: lines(&top, "MB"),
            mem_bw_schema: lines(&own, "MB"),
            ..Shares::default()
        };
        if let Some(counted) = self.monitor.as_ref().or(self.is_own.then_some(&self.class)) {
            count(&counted.join("mon_data"), &mut shares);
        }
        shares
    }

    fn cache_limits(&self) -> Option<CacheLimits> {
        // With code and data apart there is a directory for each.
        let names = ["info/L3", "info/L3CODE"].map(|name| self.root.join(name));
        let limits = names.into_iter().find(|path| path.is_dir())?;
        Some(CacheLimits {
            cbm_mask: fs::read_to_string(limits.join("cbm_mask")).ok()?.trim().to_owned(),
            min_cbm_bits: number(&limits, "min_cbm_bits")?,
            num_closids: number(&limits, "num_closids")?,
        })
    }

    fn bandwidth_limits(&self) -> Option<BandwidthLimits> {
        let limits = self.root.join("info/MB");
        Some(BandwidthLimits {
            bandwidth_gran: number(&limits, "bandwidth_gran")?,
            delay_linear: number(&limits, "delay_linear")?,
            min_bandwidth: number(&limits, "min_bandwidth")?,
            num_closids: number(&limits, "num_closids")?,
        })
    }
}

/// Adds the counters of each domain, in the order of their names.
fn count(directory: &Path, shares: &mut Shares) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_cache = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("mon_L3_");
    let mut domains: Vec<_> =
        entries.filter(|entry| is_cache(&entry.file_name())).map(|entry| entry.path()).collect();
    domains.sort();
    for domain in domains {
        let traffic = (number(&domain, "mbm_total_bytes"), number(&domain, "mbm_local_bytes"));
        // A processor may count one of the two alone.
        if let (Some(_), _) | (_, Some(_)) = traffic {
            let (total, local) = traffic;
            shares.mbm_stats.push(Traffic {
                mbm_total_bytes: total.unwrap_or(0),
                mbm_local_bytes: local.unwrap_or(0),
            });
        }
        if let Some(llc_occupancy) = number(&domain, "llc_occupancy") {
            shares.cmt_stats.push(Occupancy { llc_occupancy });
        }
    }
}

/// A file's number; a counter that has none for now says so in a word.
fn number(directory: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok()
}

/// The lines of a resource, without the blanks before them.
fn lines(schemata: &str, resource: &str) -> String {
    let lines = schemata.lines().map(str::trim).filter(|line| line.starts_with(resource));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::group, *};

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_the_kernel_tells_has_runcs_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        file(root, "schemata", "    MB:0=100;1=100\n    L3:0=fff;1=fff\n");
        file(root, "c1/schemata", "    MB:0= 70;1= 20\n    L3:0=00f;1=0f0\n");
        for (name, text) in
            [("cbm_mask", "fff\n"), ("min_cbm_bits", "1\n"), ("num_closids", "16\n")]
        {
            file(root, &format!("info/L3/{name}"), text);
        }
        for name in ["bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"] {
            file(root, &format!("info/MB/{name}"), "8\n");
        }
        for (domain, total, occupancy) in [("01", "4\n", "Unavailable\n"), ("00", "3\n", "2\n")] {
            let path = format!("c1/mon_data/mon_L3_{domain}");
            file(root, &format!("{path}/mbm_total_bytes"), total);
            file(root, &format!("{path}/mbm_local_bytes"), "1\n");
            file(root, &format!("{path}/llc_occupancy"), occupancy);
        }
        let shares = group(root, json!({})).unwrap().shares();
        assert_eq!(
            serde_json::to_value(shares).unwrap(),
            json!({
                "l3_cache_info": { "cbm_mask": "fff", "min_cbm_bits": 1, "num_closids": 16 },
                "l3_cache_schema_root": "L3:0=fff;1=fff",
                "l3_cache_schema": "L3:0=00f;1=0f0",
                "mem_bw_info": { "bandwidth_gran": 8, "delay_linear": 8, "min_bandwidth": 8,
                    "num_closids": 8 },
                "mem_bw_schema_root": "MB:0=100;1=100",
                "mem_bw_schema": "MB:0= 70;1= 20",
                "mbm_stats": [{ "mbm_total_bytes": 3, "mbm_local_bytes": 1 },
                    { "mbm_total_bytes": 4, "mbm_local_bytes": 1 }],
                "cmt_stats": [{ "llc_occupancy": 2 }],
            })
        );
    }

    #[test]
    fn what_others_use_is_not_counted_as_a_containers() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "gold/mon_data/mon_L3_00/llc_occupancy", "7\n");
        let shared = group(dir.path(), json!({ "closID": "gold" })).unwrap();
        assert_eq!(shared.shares(), Shares::default());
        file(dir.path(), "gold/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "3\n");
        let watched = json!({ "closID": "gold", "enableMonitoring": true });
        let shares = group(dir.path(), watched).unwrap().shares();
        assert_eq!(shares.cmt_stats, [Occupancy { llc_occupancy: 3 }]);
    }
}
