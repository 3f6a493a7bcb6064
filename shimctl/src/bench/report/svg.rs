//! The report as plots: bars with 95th percentiles as whiskers, and lines for rows that have steps.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use plot::{Bar, Group, Labels, Line};

use super::super::measured::{Outcome, Report, Row, whole};

/// Rows that are sums of others and would dwarf them in one plot.
const SUMS: [&str; 3] = ["contract", "create + start", "whole life"];

/// Writes `SCENARIO-WHAT.svg` files into a directory, which is made if need be.
///
/// # Errors
/// When one cannot be written.
pub(crate) fn write_plots(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for scenario in &report.scenarios {
        for (what, svg) in plots(scenario, &report.shims) {
            let path = folder.join(format!("{}-{what}.svg", scenario.name));
            fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// What each plot shows, as a part of a file's name, and the plot.
pub(super) fn plots(scenario: &Outcome, shims: &[String]) -> Vec<(String, String)> {
    let mut plots: Vec<(String, String)> = Vec::new();
    let mut bars: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in &scenario.rows {
        if let Some(at) = &row.at {
            plots.push((slug(row.name), in_lines(scenario.name, row, at, shims)));
            continue;
        }
        let kind = kind(row);
        match bars.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, rows)) => rows.push(row),
            None => bars.push((kind, vec![row])),
        }
    }
    plots.extend(bars.into_iter().map(|(kind, rows)| {
        (kind.to_owned(), in_bars(&format!("{}: {kind}", scenario.name), &rows, shims))
    }));
    plots
}

/// What can stand in one plot: rows of one unit and of about one size.
fn kind(row: &Row) -> &'static str {
    match row.unit {
        "KiB" => "memory",
        "MB/s" => "throughput",
        "us" => "latency",
        _ if SUMS.contains(&row.name) => "sums",
        _ => "times",
    }
}

fn in_bars(title: &str, rows: &[&Row], shims: &[String]) -> String {
    let groups: Vec<Group> = rows
        .iter()
        .map(|row| {
            let bars = row.shims.iter();
            let bars = bars.map(|shim| Bar { value: shim.median, whisker: Some(shim.p95) });
            Group { name: row.name.to_owned(), bars: bars.collect() }
        })
        .collect();
    let unit = rows.first().map_or("", |row| row.unit);
    let below = "medians, with 95th percentiles";
    plot::bars(Labels { title, below, unit }, shims, &groups)
}

fn in_lines(scenario: &str, row: &Row, at: &[usize], shims: &[String]) -> String {
    let lines: Vec<Line> = shims
        .iter()
        .zip(&row.shims)
        .map(|(name, shim)| {
            let points = at.iter().map(|at| whole(*at as u64)).zip(shim.samples.iter().copied());
            Line { name: name.clone(), points: points.collect() }
        })
        .collect();
    let title = format!("{scenario}: {}", row.name);
    plot::lines(Labels { title: &title, below: "containers", unit: row.unit }, &lines)
}

/// A name without what does not belong into a file's.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}
