//! The report for programs.
//!
//! ```text
//! {"rounds": 50, "scenarios": [
//!   {"name": "life", "rows": [
//!     {"name": "create", "unit": "ms", "shims": [
//!       {"name": "native", "median": 5.2, "p95": 6.0, "samples": [5.1, …]}]}]}]}
//! ```
//!
//! A row that depends on how many containers there are has `"at": [1, 10, …]` besides; its samples
//! are the medians at these, and its median and its 95th percentile those at the last.

use serde_json::{Value, json};

use super::super::measured::{Report, Row};

/// The whole report.
pub(crate) fn to_json(report: &Report) -> Value {
    let scenarios = report.scenarios.iter().map(|scenario| {
        let rows = scenario.rows.iter().map(|row| row_to_json(row, &report.shims));
        json!({ "name": scenario.name, "rows": rows.collect::<Vec<_>>() })
    });
    json!({ "rounds": report.rounds, "scenarios": scenarios.collect::<Vec<_>>() })
}

fn row_to_json(row: &Row, names: &[String]) -> Value {
    let shims = names.iter().zip(&row.shims).map(|(name, shim)| {
        json!({
            "name": name,
            "median": rounded(shim.median),
            "p95": rounded(shim.p95),
            "samples": shim.samples.iter().copied().map(rounded).collect::<Vec<_>>(),
        })
    });
    let mut value =
        json!({ "name": row.name, "unit": row.unit, "shims": shims.collect::<Vec<_>>() });
    if let Some(at) = &row.at {
        value["at"] = json!(at);
    }
    value
}

/// To a thousandth: no clock here is better than a microsecond.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
