//! What was measured, as rows of a report.

use std::time::Duration;

use super::stats::Sorted;

/// One value of one row in one round.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The row.
    pub(super) name: &'static str,
    /// In what it is counted.
    pub(super) unit: &'static str,
    /// At how many containers, for a row that depends on it.
    pub(super) at: Option<usize>,
    /// The value.
    pub(super) value: f64,
}

impl Reading {
    /// A time, in milliseconds.
    pub(super) fn time(name: &'static str, time: Duration) -> Self {
        Self::new(name, "ms", time.as_secs_f64() * 1e3)
    }

    /// Memory, in KiB.
    pub(super) fn memory(name: &'static str, kib: u64) -> Self {
        Self::new(name, "KiB", whole(kib))
    }

    /// A number of things.
    pub(super) fn count(name: &'static str, count: u64) -> Self {
        Self::new(name, "", whole(count))
    }

    /// Any other value.
    pub(super) fn new(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self { name, unit, at: None, value }
    }

    /// The same, at so many containers.
    pub(super) fn at(self, containers: usize) -> Self {
        Self { at: Some(containers), ..self }
    }
}

/// A whole number as one of those that are averaged.
#[expect(clippy::cast_precision_loss, reason = "nothing here is counted to 2^53")]
pub(super) fn whole(number: u64) -> f64 {
    number as f64
}

/// All that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The shims, in the order in which they were named.
    pub(super) shims: Vec<String>,
    /// Rounds that counted, of the first scenario.
    pub(super) rounds: usize,
    /// What came out, scenario by scenario.
    pub(super) scenarios: Vec<Outcome>,
}

/// What came out of one scenario.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The scenario's name.
    pub(super) name: &'static str,
    /// Its rows, in the order in which they were first measured.
    pub(super) rows: Vec<Row>,
}

/// What was measured of each shim.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What it is.
    pub(super) name: &'static str,
    /// In what it is counted; empty for a number of things.
    pub(super) unit: &'static str,
    /// At how many containers each sample was taken, for a row that depends on it.
    pub(super) at: Option<Vec<usize>>,
    /// One entry for each shim.
    pub(super) shims: Vec<Samples>,
}

/// What was measured of one shim.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    /// One a round; or, for a row that has steps, the median at each step.
    pub(super) samples: Vec<f64>,
    /// The middle one; for a row that has steps, that of the last one.
    pub(super) median: f64,
    /// What 95 of 100 did not exceed, likewise.
    pub(super) p95: f64,
}

impl Outcome {
    /// Sorts readings into rows; there is a list of them for each shim.
    pub(super) fn of(name: &'static str, readings: &[Vec<Reading>]) -> Self {
        let mut names: Vec<(&str, &str)> = Vec::new();
        for reading in readings.iter().flatten() {
            if !names.contains(&(reading.name, reading.unit)) {
                names.push((reading.name, reading.unit));
            }
        }
        let rows = names.into_iter().map(|(name, unit)| Row::of(name, unit, readings));
        Self { name, rows: rows.collect() }
    }

    /// The row of that name.
    #[cfg(test)]
    pub(super) fn row(&self, name: &str) -> &Row {
        self.rows.iter().find(|row| row.name == name).expect("a row of that name")
    }
}

impl Row {
    fn of(name: &'static str, unit: &'static str, readings: &[Vec<Reading>]) -> Self {
        let own = |reading: &&Reading| reading.name == name && reading.unit == unit;
        let mut at: Vec<usize> =
            readings.iter().flatten().filter(own).filter_map(|reading| reading.at).collect();
        at.sort_unstable();
        at.dedup();
        let shims = readings.iter().map(|readings| {
            let readings: Vec<&Reading> = readings.iter().filter(own).collect();
            Samples::of(&readings, &at)
        });
        Self { name, unit, shims: shims.collect(), at: (!at.is_empty()).then_some(at) }
    }
}

impl Samples {
    fn of(readings: &[&Reading], steps: &[usize]) -> Self {
        let values = |step: Option<usize>| -> Vec<f64> {
            readings.iter().filter(|reading| reading.at == step).map(|r| r.value).collect()
        };
        let last = Sorted::of(&values(steps.last().copied()));
        let samples = match steps {
            [] => values(None),
            steps => steps.iter().map(|step| Sorted::of(&values(Some(*step))).median()).collect(),
        };
        Self { samples, median: last.median(), p95: last.p95() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_order_and_each_shim_its_samples() {
        let life = |create: f64, start: f64| {
            vec![Reading::new("create", "ms", create), Reading::new("start", "ms", start)]
        };
        let first = [life(1.0, 5.0), life(3.0, 7.0)].concat();
        let second = [life(2.0, 6.0), life(2.0, 8.0)].concat();
        let outcome = Outcome::of("life", &[first, second]);
        let names: Vec<_> = outcome.rows.iter().map(|row| row.name).collect();
        assert_eq!(names, ["create", "start"]);
        let start = outcome.row("start");
        assert_eq!(start.at, None);
        assert_eq!(start.shims[0].samples, [5.0, 7.0]);
        assert_eq!(start.shims.iter().map(|shim| shim.median).collect::<Vec<_>>(), [6.0, 7.0]);
    }

    #[test]
    fn a_row_with_steps_has_the_median_of_each_and_ends_with_the_last() {
        let pass = |by: f64| {
            [(1, 10.0), (10, 100.0)]
                .map(|(at, value)| Reading::new("pss", "KiB", value + by).at(at))
        };
        let outcome = Outcome::of("density", &[[pass(0.0), pass(2.0), pass(9.0)].concat()]);
        let row = outcome.row("pss");
        assert_eq!(row.at, Some(vec![1, 10]));
        assert_eq!(row.shims[0].samples, [12.0, 102.0]);
        assert_eq!((row.shims[0].median, row.shims[0].p95), (102.0, 109.0));
    }
}
