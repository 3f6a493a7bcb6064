//! Medians and ratios of what was measured, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Life, Measured, Phase};

/// A row of the report: its name, its unit, and its value in one life.
struct Row {
    name: &'static str,
    unit: &'static str,
    value: fn(&Life) -> f64,
}

/// The rows behind those of the single phases.
const SUMS: [Row; 4] = [
    Row { name: "create + start", unit: "ms", value: |life| millis(life.times[1] + life.times[2]) },
    Row { name: "whole life", unit: "ms", value: |life| millis(life.times.iter().sum()) },
    Row { name: "private dirty", unit: "KiB", value: |life| whole(life.memory.private_dirty) },
    Row { name: "pss", unit: "KiB", value: |life| whole(life.memory.pss) },
];

/// A table of medians, each with its ratio to the first shim's.
pub(crate) fn to_table(measured: &[Measured]) -> String {
    let mut table = String::from("| median |");
    for shim in measured {
        table.push_str(&format!(" {} |", shim.name));
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(measured.len()));
    for (name, unit, medians) in rows(measured) {
        table.push_str(&format!("\n| {name}, {unit} |"));
        for median in &medians {
            let ratio = median / medians[0].max(f64::MIN_POSITIVE);
            table.push_str(&format!(" {median:.2} ({ratio:.1}×) |"));
        }
    }
    table.push('\n');
    table
}

/// Everything as JSON: medians and 95th percentiles of each row, by shim.
pub(crate) fn to_json(measured: &[Measured]) -> Value {
    let shims = measured.iter().map(|shim| {
        let rows = all_rows().into_iter().map(|(name, unit, value)| {
            let values = sorted(&shim.lives, &*value);
            json!({
                "name": name,
                "unit": unit,
                "median": percentile(&values, 50),
                "p95": percentile(&values, 95),
            })
        });
        json!({
            "shim": shim.name,
            "rounds": shim.lives.len(),
            "rows": rows.collect::<Vec<_>>(),
        })
    });
    Value::Array(shims.collect())
}

type Reading = Box<dyn Fn(&Life) -> f64>;

fn all_rows() -> Vec<(&'static str, &'static str, Reading)> {
    let phases = Phase::ALL.into_iter().enumerate().map(|(at, phase)| {
        let value: Reading = Box::new(move |life: &Life| millis(life.times[at]));
        (phase.name(), "ms", value)
    });
    let sums = SUMS.into_iter().map(|row| (row.name, row.unit, Box::new(row.value) as Reading));
    phases.chain(sums).collect()
}

fn rows(measured: &[Measured]) -> Vec<(&'static str, &'static str, Vec<f64>)> {
    let medians = |value: &Reading| {
        measured.iter().map(|shim| percentile(&sorted(&shim.lives, &**value), 50)).collect()
    };
    all_rows().into_iter().map(|(name, unit, value)| (name, unit, medians(&value))).collect()
}

fn sorted(lives: &[Life], value: &dyn Fn(&Life) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = lives.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The value that so many percent of all do not exceed; of none it is 0.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(0.0)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "no machine has 2^53 KiB")]
fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(percentile(&values, 50).to_bits(), 2.0_f64.to_bits());
        assert_eq!(percentile(&values, 95).to_bits(), 4.0_f64.to_bits());
        assert_eq!(percentile(&[], 50).to_bits(), 0.0_f64.to_bits());
    }
}
