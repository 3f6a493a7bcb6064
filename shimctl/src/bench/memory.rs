//! What an idle shim holds, by /proc/PID/smaps_rollup (proc(5)).

use std::fs;

use anyhow::{Context, Result};

/// Memory of a shim and of the processes it keeps beside the container's, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Pages that are its alone and written to: what one more shim costs.
    pub(crate) private_dirty: u64,
    /// Its share of all pages it has mapped.
    pub(crate) pss: u64,
}

impl Memory {
    /// Sums over the shim and its children, but not the container's first process.
    ///
    /// # Errors
    /// When the shim is gone, or its memory can't be read.
    pub(crate) fn of_shim(shim: u32, task: u32) -> Result<Self> {
        let mut sum = Self::of_process(shim)?;
        for child in children(shim)?.into_iter().filter(|child| *child != task) {
            let more = Self::of_process(child)?;
            sum.private_dirty += more.private_dirty;
            sum.pss += more.pss;
        }
        Ok(sum)
    }

    fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Ok(Self { private_dirty: field(&text, "Private_Dirty:"), pss: field(&text, "Pss:") })
    }
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_kib() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  8692 kB\nPss:   7297 kB\n\
                    Pss_Dirty: 1 kB\nPrivate_Dirty:       852 kB\n";
        assert_eq!(field(text, "Pss:"), 7297);
        assert_eq!(field(text, "Private_Dirty:"), 852);
        assert_eq!(field(text, "Swap:"), 0);
    }
}
