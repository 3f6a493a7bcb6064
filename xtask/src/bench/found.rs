//! What was measured, as `shimctl bench --json` and its neighbours write it.

use anyhow::{Context, Result};
use serde_json::Value;

/// At how many containers shims are judged.
const JUDGED: u64 = 50;

/// One scenario: rows of values, a column a shim.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// Which one, for the judge.
    pub(super) name: String,
    /// What it is called on the page.
    pub(super) title: &'static str,
    /// The command that measured it, with names for paths.
    pub(super) command: String,
    /// Files beside the page.
    pub(super) plots: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// What one quantity was with each shim.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) unit: String,
    /// For how many containers; empty when it is about one.
    pub(super) at: Vec<u64>,
    pub(super) shims: Vec<Shim>,
}

/// What a quantity was with one shim.
#[derive(Clone, Debug)]
pub(super) struct Shim {
    pub(super) name: String,
    pub(super) median: f64,
    pub(super) p95: f64,
    /// In the order of [`Row::at`] where there is one.
    pub(super) samples: Vec<f64>,
}

impl Row {
    /// The value that counts: with so many containers, where it depends on them, else the median.
    pub(super) fn value(&self, shim: &str) -> Option<f64> {
        let shim = self.shims.iter().find(|one| one.name == shim)?;
        if self.at.is_empty() {
            return Some(shim.median);
        }
        let at = self.at.iter().position(|at| *at == JUDGED);
        at.map_or(shim.samples.last(), |at| shim.samples.get(at)).copied()
    }
}

/// Takes the rows of the scenario of that name out of a report.
pub(super) fn rows(report: &Value, scenario: &str) -> Result<Vec<Row>> {
    let scenarios = report["scenarios"].as_array().context("a report without scenarios")?;
    let found = scenarios.iter().find(|one| one["name"] == scenario);
    let found = found.with_context(|| format!("a report without scenario {scenario}"))?;
    let rows = found["rows"].as_array().with_context(|| format!("{scenario} without rows"))?;
    rows.iter().map(row).collect()
}

fn row(row: &Value) -> Result<Row> {
    let name = row["name"].as_str().context("a row without a name")?.to_owned();
    let unit = row["unit"].as_str().unwrap_or_default().to_owned();
    let at = row["at"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let shims = row["shims"].as_array().with_context(|| format!("row {name} without shims"))?;
    let shims = shims.iter().map(shim).collect::<Result<_>>();
    Ok(Row { shims: shims.with_context(|| format!("row {name}"))?, name, unit, at })
}

fn shim(shim: &Value) -> Result<Shim> {
    let name = shim["name"].as_str().context("a shim without a name")?.to_owned();
    let number = |key: &str| shim[key].as_f64().with_context(|| format!("{name} without {key}"));
    let (median, p95) = (number("median")?, number("p95")?);
    let samples = shim["samples"].as_array().into_iter().flatten();
    Ok(Shim { median, p95, samples: samples.filter_map(Value::as_f64).collect(), name })
}

/// A row of one column, from samples.
pub(super) fn row_of(name: &str, unit: &str, shim: &str, samples: Vec<f64>) -> Row {
    let mut sorted = samples.clone();
    sorted.sort_by(f64::total_cmp);
    let percentile = |percent: usize| {
        let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or_default()
    };
    let (median, p95) = (percentile(50), percentile(95));
    let shims = vec![Shim { name: shim.to_owned(), median, p95, samples }];
    Row { name: name.to_owned(), unit: unit.to_owned(), at: Vec::new(), shims }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_worth_its_median_or_its_last_step() {
        let report = json!({ "rounds": 1, "scenarios": [
            { "name": "life", "rows": [] },
            { "name": "density", "rows": [
                { "name": "create", "unit": "ms", "shims": [
                    { "name": "a", "median": 2.0, "p95": 3.0, "samples": [1.0, 2.0, 3.0] },
                ]},
                { "name": "pss", "unit": "KiB", "at": [1, 10], "shims": [
                    { "name": "a", "median": 7.0, "p95": 9.0, "samples": [5.0, 9.0] },
                ]},
            ]},
        ]});
        let rows = rows(&report, "density").unwrap();
        assert_eq!(rows[0].value("a"), Some(2.0));
        assert_eq!(rows[1].value("a"), Some(9.0));
        assert_eq!(rows[1].at, [1, 10]);
        let at = vec![10, JUDGED, 100];
        let shims = vec![Shim { samples: vec![1.0, 4.0, 7.0], ..rows[1].shims[0].clone() }];
        assert_eq!(Row { at, shims, ..rows[1].clone() }.value("a"), Some(4.0));
        assert_eq!(rows[0].value("b"), None);
    }

    #[test]
    fn a_report_that_lacks_something_names_it() {
        let missing = |report: &Value| format!("{:#}", rows(report, "life").unwrap_err());
        assert!(missing(&json!({})).contains("without scenarios"));
        assert!(missing(&json!({ "scenarios": [] })).contains("without scenario life"));
        let shims = json!([{ "name": "a", "median": 1.0 }]);
        let rows = json!([{ "name": "create", "shims": shims }]);
        let report = json!({ "scenarios": [{ "name": "life", "rows": rows }] });
        assert_eq!(missing(&report), "row create: a without p95");
    }

    #[test]
    fn samples_make_a_row() {
        let row = row_of("create", "ms", "floor", vec![3.0, 1.0, 2.0]);
        assert_eq!(row.value("floor"), Some(2.0));
        assert_eq!(row.shims[0].p95.to_bits(), 3.0_f64.to_bits());
    }
}
