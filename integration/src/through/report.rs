//! What was measured, in the form of `shimctl bench --json`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Measured, Phase};

/// Scenarios `containerd` and `alone`, of the same rows.
pub(super) fn to_json(rounds: usize, through: &[Measured], alone: &[Measured]) -> Value {
    let mut rows = lives(through);
    rows.push(row("ctr run", through, |shim| shim.runs.clone()));
    json!({
        "rounds": rounds,
        "scenarios": [
            { "name": "containerd", "rows": rows },
            { "name": "alone", "rows": lives(alone) },
        ],
    })
}

fn lives(measured: &[Measured]) -> Vec<Value> {
    let phases = Phase::ALL.into_iter().map(|phase| {
        row(phase.name(), measured, |shim| shim.lives.iter().map(|life| life.of(phase)).collect())
    });
    let whole = row("whole life", measured, |shim| {
        shim.lives.iter().map(super::life::Times::whole).collect()
    });
    phases.chain([whole]).collect()
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
    use crate::through::life::Times;

    #[test]
    fn a_shim_that_was_not_run_is_not_in_the_row() {
        let mut times = Times::default();
        times.set(Phase::Create, Duration::from_millis(3));
        times.set(Phase::Delete, Duration::from_millis(4));
        let shim = Measured { name: "a".to_owned(), lives: vec![times], runs: Vec::new() };
        let report = to_json(1, &[shim], &[]);
        let rows = &report["scenarios"][0]["rows"];
        assert_eq!(rows[0]["name"], "create");
        assert_eq!(rows[0]["shims"][0]["median"], 3.0);
        assert_eq!(rows[4]["name"], "whole life");
        assert_eq!(rows[4]["shims"][0]["p95"], 7.0);
        assert_eq!(rows[5]["shims"], json!([]));
    }
}
