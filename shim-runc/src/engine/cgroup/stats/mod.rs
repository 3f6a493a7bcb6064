//! Counting what a container uses.
//!
//! A file that is not there, a key that is new and a number that does not parse are passed over:
//! kernels differ, and one counter less is better than none.

mod v1;
mod v2;

use std::{fs, sync::OnceLock};

use shim_core::{
    Error, Result,
    model::{PidsStats, RdmaEntry, RdmaStats, Stats},
};

use super::{Cgroup, Mode, dir::Dir};

/// Reads all counters, as the host's mode has them.
pub(super) fn read(cgroup: &Cgroup) -> Result<Stats> {
    if !cgroup.exists() {
        return Err(Error::not_found(format!("cgroup {} is gone", cgroup.path)));
    }
    Ok(match cgroup.hierarchies.mode {
        Mode::V2 => Stats::V2(Box::new(v2::read(cgroup))),
        Mode::V1 | Mode::Hybrid => Stats::V1(Box::new(v1::read(cgroup))),
    })
}

/// Reads a text as each kind of file that counters are in, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_counters(text: &str) {
    let _entries = (number(text.trim()), rdma_entries(text), page_size(text.trim()));
    assert!(pairs(text).count() <= text.len());
    v1::read_text(text);
    v2::read_text(text);
}

/// A directory's files as numbers and texts; a missing one reads as nothing.
struct Counters(Option<Dir>);

impl Counters {
    fn v1(cgroup: &Cgroup, controller: &str) -> Option<Self> {
        let hierarchy = cgroup.hierarchies.v1_of(controller)?;
        Dir::open(&hierarchy.root.join(cgroup.path.relative())).ok().map(|dir| Self(Some(dir)))
    }

    fn unified(cgroup: &Cgroup) -> Self {
        let unified = cgroup.hierarchies.unified.as_ref();
        Self(unified.and_then(|found| Dir::open(&found.root.join(cgroup.path.relative())).ok()))
    }

    fn text(&self, file: &str) -> Option<String> {
        self.0.as_ref()?.read(file).ok()
    }

    /// A file of one number.
    fn number(&self, file: &str) -> Option<u64> {
        number(self.text(file)?.trim())
    }

    /// A file of one number; 0 when it is missing.
    fn count(&self, file: &str) -> u64 {
        self.number(file).unwrap_or_default()
    }
}

/// A number, or `max` for the greatest. Some kernels print values below 0 for a moment: that is 0.
fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        negative if negative.starts_with('-') => Some(0),
        text => text.parse().ok(),
    }
}

/// The `key value` lines of a file.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, number(value.trim())?))
    })
}

/// The `key=value` words of a line.
fn words(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_whitespace().filter_map(|word| word.split_once('='))
}

/// `8:16` as two numbers.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn pids(counters: &Counters) -> Option<PidsStats> {
    let current = counters.number("pids.current")?;
    Some(PidsStats { current, limit: counters.count("pids.max") })
}

fn rdma(counters: &Counters) -> Option<RdmaStats> {
    let current = rdma_entries(&counters.text("rdma.current")?);
    let limit = rdma_entries(&counters.text("rdma.max")?);
    Some(RdmaStats { current, limit })
}

/// `mlx4_0 hca_handle=2 hca_object=max`
fn rdma_entries(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let device = line.split_whitespace().next()?.to_owned();
        let mut entry = RdmaEntry { device, ..RdmaEntry::default() };
        for (key, value) in words(line) {
            let value = number(value).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            match (key, value) {
                ("hca_handle", Some(value)) => entry.hca_handles = value,
                ("hca_object", Some(value)) => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// The sizes of huge pages as the files' names have them, `2MB`. They do not change.
fn page_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
        let mut sizes: Vec<_> =
            entries.filter_map(|entry| page_size(entry.file_name().to_str()?)).collect();
        sizes.sort();
        sizes
    })
}

/// `hugepages-2048kB` as `2MB`.
fn page_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0x10_0000.. => format!("{}GB", kib >> 20),
        0x400.. => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_max_or_negative() {
        assert_eq!(number("7"), Some(7));
        assert_eq!(number("max"), Some(u64::MAX));
        assert_eq!(number("-3"), Some(0));
        assert_eq!(number("x"), None);
    }

    #[test]
    fn lines_that_are_not_pairs_are_passed_over() {
        let text = "cache 5\nodd\nrss x\n\nnew_key 9\n";
        assert_eq!(pairs(text).collect::<Vec<_>>(), [("cache", 5), ("new_key", 9)]);
    }

    #[test]
    fn rdma_devices_have_words() {
        let entries = rdma_entries("mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=x\n");
        assert_eq!(entries[0].device, "mlx4_0");
        assert_eq!((entries[0].hca_handles, entries[0].hca_objects), (2, u32::MAX));
        assert_eq!((entries[1].hca_handles, entries[1].hca_objects), (0, 0));
    }

    #[test]
    fn page_sizes_are_named_as_files_name_them() {
        assert_eq!(page_size("hugepages-64kB").unwrap(), "64KB");
        assert_eq!(page_size("hugepages-2048kB").unwrap(), "2MB");
        assert_eq!(page_size("hugepages-1048576kB").unwrap(), "1GB");
        assert_eq!(page_size("other"), None);
    }
}
