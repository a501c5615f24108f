//! Many measurements of one thing, and what they say of it.

use std::fmt;

/// Measurements, in one unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Returns the median.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// Returns the smallest value that this percentage of all does not exceed, or 0 if nothing was measured.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// Returns each measurement as a multiple of the other sample's in the same round. So it does not show what slows a whole round down.
    pub fn against(&self, yardstick: &Self) -> Self {
        self.0.iter().zip(&yardstick.0).map(|(own, other)| own / other).collect()
    }

    /// Adds a measurement.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// `21.9 (21.6 to 22.3)`: the median, and between which two half of them are.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let (median, from, to) = (self.median(), self.percentile(25), self.percentile(75));
        write!(f, "{median:.digits$} ({from:.digits$} to {to:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_measurements_whatever_their_order() {
        let hundred: Sample = (1..=100).rev().map(f64::from).collect();
        for (percent, expected) in
            [(0, 1.0), (1, 1.0), (25, 25.0), (50, 50.0), (75, 75.0), (99, 99.0), (100, 100.0)]
        {
            assert_eq!(hundred.percentile(percent), expected);
        }
        let few: Sample = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!((few.percentile(25), few.median(), few.percentile(75)), (1.0, 2.0, 3.0));
        assert_eq!(Sample(vec![7.0]).percentile(75), 7.0);
        assert_eq!(Sample::default().median(), 0.0);
    }

    #[test]
    fn a_slow_round_changes_no_comparison() {
        let yardstick: Sample = [10.0, 40.0, 10.0].into_iter().collect();
        let doubled: Sample = [20.0, 80.0, 20.0].into_iter().collect();
        assert_eq!(doubled.against(&yardstick), [2.0, 2.0, 2.0].into_iter().collect());
    }

    #[test]
    fn one_slow_measurement_moves_no_median() {
        let mut sample: Sample = [20.0, 21.0, 22.0].into_iter().collect();
        sample.push(900.0);
        assert_eq!(sample.to_string(), "21.00 (20.00 to 22.00)");
        assert_eq!(format!("{sample:.0}"), "21 (20 to 22)");
    }
}
