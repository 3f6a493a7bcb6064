//! Shares, quotas and real-time budgets of processors.

use nix::errno::Errno;
use oci_spec::runtime::LinuxCpu;
use shim_core::{Error, Result};

use super::{Files, Version};

/// The quota's period where none is given: the kernel's own.
const DEFAULT_PERIOD: u64 = 100_000;

/// How v2 writes that there is none.
const NO_QUOTA: &str = "max";

/// What the kernel accepts as shares; it would quietly clamp others.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// Sets what is asked for, but for the set of processors.
pub(super) fn set(files: &Files<'_>, cpu: &LinuxCpu) -> Result<()> {
    match files.version() {
        Version::V1 => set_v1(files, cpu),
        Version::V2 => set_v2(files, cpu),
    }
}

fn set_v1(files: &Files<'_>, cpu: &LinuxCpu) -> Result<()> {
    if let Some(shares @ 1..) = cpu.shares() {
        if !SHARES.contains(&shares) {
            let (least, most) = (SHARES.start(), SHARES.end());
            return Err(Error::invalid(format!("cpu.shares {shares} is not {least} to {most}")));
        }
        files.set("cpu.shares", shares)?;
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    // A period or burst can clash with the old quota only: then it is tried again after the new.
    let clash: &[Errno] = if quota.is_some() { &[Errno::EINVAL] } else { &[] };
    let mut later = Vec::new();
    if let Some(period @ 1..) = cpu.period()
        && !files.set_unless(clash, "cpu.cfs_period_us", period)?
    {
        later.push(("cpu.cfs_period_us", period));
    }
    if let Some(burst) = cpu.burst() {
        let absent_or_clash = [&[Errno::ENOENT], clash].concat();
        if !files.set_unless(&absent_or_clash, "cpu.cfs_burst_us", burst)? {
            later.push(("cpu.cfs_burst_us", burst));
        }
    }
    if let Some(quota) = quota {
        files.set("cpu.cfs_quota_us", quota)?;
        for (file, value) in later {
            // Kernels before 5.14 can't burst.
            files.set_unless(&[Errno::ENOENT], file, value)?;
        }
    }
    if let Some(idle) = cpu.idle() {
        files.set("cpu.idle", idle)?;
    }
    set_real_time(files, cpu)
}

/// Budget and period of real-time threads, which check each other as quota and period do.
fn set_real_time(files: &Files<'_>, cpu: &LinuxCpu) -> Result<()> {
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    let clash: &[Errno] = if runtime.is_some() { &[Errno::EINVAL] } else { &[] };
    let mut later = None;
    if let Some(period @ 1..) = cpu.realtime_period()
        && !files.set_unless(clash, "cpu.rt_period_us", period)?
    {
        later = Some(period);
    }
    if let Some(runtime) = runtime {
        files.set("cpu.rt_runtime_us", runtime)?;
        if let Some(period) = later {
            files.set("cpu.rt_period_us", period)?;
        }
    }
    Ok(())
}

// v2 has no budgets of real-time threads; as runc, we pass them over there.
fn set_v2(files: &Files<'_>, cpu: &LinuxCpu) -> Result<()> {
    if let Some(idle) = cpu.idle() {
        files.set("cpu.idle", idle)?;
    }
    if let Some(shares @ 1..) = cpu.shares() {
        // An idle group has no weight, and the kernel refuses one.
        if cpu.idle() != Some(1) {
            files.set("cpu.weight", weight(shares))?;
        }
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let has_quota = quota.is_some() || period.is_some();
    let clash: &[Errno] = if has_quota { &[Errno::EINVAL] } else { &[] };
    let burst = match cpu.burst() {
        Some(burst) if !files.set_unless(clash, "cpu.max.burst", burst)? => Some(burst),
        _ => None,
    };
    if has_quota {
        let (old_quota, old_period) = quota_v2(files)?;
        let period = period.unwrap_or(old_period);
        let quota = match quota {
            None => old_quota,
            Some(quota @ 1..) => quota.to_string(),
            Some(_) => NO_QUOTA.to_owned(),
        };
        files.set("cpu.max", format!("{quota} {period}"))?;
    }
    match burst {
        Some(burst) => files.set("cpu.max.burst", burst),
        None => Ok(()),
    }
}

/// Adds the half of quota and period that is not given.
pub(super) fn complete(files: &Files<'_>, cpu: &mut LinuxCpu) -> Result<()> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() != period.is_some() {
        let (old_quota, old_period) = quota_v2(files)?;
        cpu.set_quota(quota.or_else(|| Some(old_quota.parse().unwrap_or(-1))));
        cpu.set_period(period.or(Some(old_period)));
    }
    Ok(())
}

/// The quota and the period that there are. One file holds both: to set one is to write the other
/// once more, where v1 leaves it alone.
fn quota_v2(files: &Files<'_>) -> Result<(String, u64)> {
    let text = files.read("cpu.max")?.unwrap_or_default();
    let mut words = text.split_whitespace();
    let quota = words.next().unwrap_or(NO_QUOTA).to_owned();
    Ok((quota, words.next().and_then(|period| period.parse().ok()).unwrap_or(DEFAULT_PERIOD)))
}

/// Shares of v1 as a weight of v2: a curve through both scales' least, default and greatest
/// values (2, 1024, 262144 and 1, 100, 10000), quadratic over logarithms.
///
/// A straight line would give the default of 1024 shares a weight of 39, so that containers with
/// the default compete badly with everything that has none set.
pub(in super::super) fn weight(shares: u64) -> u64 {
    let clamped = shares.clamp(*SHARES.start(), *SHARES.end());
    if clamped == *SHARES.start() {
        return 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "the greatest is 2 to the 18th")]
    let log = (clamped as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.min(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_on_a_curve() {
        // The pairs that runc's own tests check.
        for (shares, expected) in
            [(1, 1), (2, 1), (3, 2), (1024, 100), (262_143, 10_000), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert_eq!(weight(u64::MAX), 10_000);
        assert!((2..262_144).step_by(97).map(weight).is_sorted());
    }
}
