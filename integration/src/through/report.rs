//! What was measured, in the form of `shimctl bench --json`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Measured, Phase, Times};

/// Scenarios `containerd` and `alone`, of the same rows.
pub(super) fn to_json(rounds: usize, measured: &[Measured]) -> Value {
    let mut rows = lives(measured, |shim| &shim.through);
    rows.push(row("ctr run", measured, |shim| shim.runs.clone()));
    json!({
        "rounds": rounds,
        "scenarios": [
            { "name": "containerd", "rows": rows },
            { "name": "alone", "rows": lives(measured, |shim| &shim.alone) },
        ],
    })
}

fn lives(measured: &[Measured], of: impl Fn(&Measured) -> &[Times]) -> Vec<Value> {
    let times = |name, time: &dyn Fn(&Times) -> Duration| {
        row(name, measured, |shim| of(shim).iter().map(time).collect())
    };
    let phases = Phase::ALL.into_iter().map(|phase| times(phase.name(), &|life| life.of(phase)));
    let mut rows: Vec<Value> = phases.collect();
    rows.push(times("whole life", &Times::whole));
    rows
}

/// One row; a shim without values is not in it.
fn row(name: &str, measured: &[Measured], values: impl Fn(&Measured) -> Vec<Duration>) -> Value {
    let shims = measured.iter().filter_map(|shim| {
        let samples: Vec<f64> = values(shim).iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        Some(json!({
            "name": shim.name,
            "median": percentile(&sorted, 50)?,
            "p95": percentile(&sorted, 95)?,
            "samples": samples,
        }))
    });
    json!({ "name": name, "unit": "ms", "shims": shims.collect::<Vec<_>>() })
}

/// The value that so many percent of all do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_that_was_not_run_is_not_in_the_row() {
        let mut times = Times::default();
        times.set(Phase::Create, Duration::from_millis(3));
        times.set(Phase::Delete, Duration::from_millis(4));
        let (through, name) = (vec![times], "a".to_owned());
        let shim = Measured { name, through, alone: Vec::new(), runs: Vec::new() };
        let report = to_json(1, &[shim]);
        let rows = &report["scenarios"][0]["rows"];
        assert_eq!(rows[0]["name"], "create");
        assert_eq!(rows[0]["shims"][0]["median"], 3.0);
        assert_eq!(rows[4]["name"], "whole life");
        assert_eq!(rows[4]["shims"][0]["p95"], 7.0);
        assert_eq!(rows[5]["shims"], json!([]));
        assert_eq!(report["scenarios"][1]["rows"][0]["shims"], json!([]));
    }
}
