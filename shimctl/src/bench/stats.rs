//! Percentiles of what was measured.

/// Values in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sorted(Vec<f64>);

impl Sorted {
    /// Puts values in order.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The middle one, or the mean of the two in the middle; of none it is 0.
    pub(super) fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.get(middle) {
            Some(upper) if self.0.len().is_multiple_of(2) => {
                f64::midpoint(self.0[middle - 1], *upper)
            }
            Some(middle) => *middle,
            None => 0.0,
        }
    }

    /// The value that 95 of 100 do not exceed; of none it is 0.
    pub(super) fn p95(&self) -> f64 {
        let at = (self.0.len() * 95).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], median: f64, p95: f64) {
        let sorted = Sorted::of(values);
        assert_eq!(
            (sorted.median().to_bits(), sorted.p95().to_bits()),
            (median.to_bits(), p95.to_bits())
        );
    }

    #[test]
    fn the_median_is_in_the_middle_and_a_percentile_was_measured() {
        check(&[], 0.0, 0.0);
        check(&[7.0], 7.0, 7.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5, 4.0);
        check(&[3.0, 1.0, 2.0], 2.0, 3.0);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        check(&hundred, 50.5, 95.0);
    }
}
