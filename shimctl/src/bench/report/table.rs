//! The report for people: a table a scenario, and one more for rows that have steps.

use std::fmt::Write;

use super::super::measured::{Outcome, Report, Row};

/// No more steps than these have room in a line.
const MOST_STEPS: usize = 9;

/// Medians, 95th percentiles, and the medians' ratios to the first shim's.
pub(crate) fn to_table(report: &Report) -> String {
    let mut text = String::new();
    for scenario in &report.scenarios {
        for table in [plain(scenario, &report.shims), stepped(scenario, &report.shims)] {
            if table.len() > 1 {
                text.push_str(if text.is_empty() { "" } else { "\n" });
                text.push_str(&lined_up(&table));
            }
        }
    }
    text
}

/// Rows of one value, a column a shim.
fn plain(scenario: &Outcome, names: &[String]) -> Vec<Vec<String>> {
    let mut head = vec![format!("{}: median, p95 (ratio)", scenario.name)];
    head.extend(names.iter().cloned());
    let rows = scenario.rows.iter().filter(|row| row.at.is_none()).map(|row| {
        let first = row.shims.first().map_or(0.0, |shim| shim.median);
        let cells = row.shims.iter().map(|shim| {
            let (median, p95) = (number(shim.median), number(shim.p95));
            format!("{median}, {p95} ({})", ratio(shim.median, first))
        });
        std::iter::once(title(row)).chain(cells).collect()
    });
    std::iter::once(head).chain(rows).collect()
}

/// Rows that have steps, a line a shim.
fn stepped(scenario: &Outcome, names: &[String]) -> Vec<Vec<String>> {
    let mut table: Vec<Vec<String>> = Vec::new();
    for row in &scenario.rows {
        let Some(at) = &row.at else { continue };
        let chosen = spread(at.len());
        if table.is_empty() {
            let steps = chosen.iter().map(|step| at[*step].to_string());
            let head = [format!("{}: at containers", scenario.name), "shim".to_owned()];
            table.push(head.into_iter().chain(steps).collect());
        }
        let first = &row.shims.first().map(|shim| shim.samples.clone()).unwrap_or_default();
        for (name, shim) in names.iter().zip(&row.shims) {
            let cells = chosen.iter().map(|step| {
                let value = shim.samples[*step];
                format!("{} ({})", number(value), ratio(value, first[*step]))
            });
            table.push([title(row), name.clone()].into_iter().chain(cells).collect());
        }
    }
    table
}

/// Which of so many steps are shown: all, or some of them from the first to the last.
fn spread(count: usize) -> Vec<usize> {
    if count <= MOST_STEPS {
        return (0..count).collect();
    }
    (0..MOST_STEPS).map(|shown| shown * (count - 1) / (MOST_STEPS - 1)).collect()
}

fn title(row: &Row) -> String {
    if row.unit.is_empty() { row.name.to_owned() } else { format!("{}, {}", row.name, row.unit) }
}

fn ratio(value: f64, first: f64) -> String {
    if first == 0.0 { "–".to_owned() } else { format!("{:.1}×", value / first) }
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// A Markdown table whose columns have one width each, for who reads it as it is.
fn lined_up(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = table.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (at, row) in table.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if at == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}
