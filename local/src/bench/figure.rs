//! A figure with its target, the table of all figures, and samples.

use std::fmt;

use serde::Serialize;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name, also in `local/limits.json`.
    pub figure: String,
    pub unit: Unit,
    /// The most that it should be.
    pub target: Option<f64>,
    pub measured: f64,
    /// Its spread, and what it was compared with.
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Upstream requests.
    Requests,
    /// Instructions of the processor.
    Instructions,
    /// A multiple of something else.
    Ratio,
    /// Milliseconds.
    Ms,
    /// Millions of bytes.
    Mb,
    /// 1,048,576 bytes.
    Mib,
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Self::Requests => format!("{}", (value * 10.0).round() / 10.0),
            Self::Instructions => format!("{:.0} k", value / 1000.0),
            Self::Ratio => format!("{value:.2} x"),
            Self::Ms if value >= 100.0 => format!("{value:.0} ms"),
            Self::Ms => format!("{value:.2} ms"),
            Self::Mb => format!("{value:.2} MB"),
            Self::Mib => format!("{value:.2} MiB"),
        }
    }
}

impl Figure {
    /// Makes a figure without a target.
    pub fn new(figure: impl Into<String>, unit: Unit, measured: f64) -> Self {
        Self { figure: figure.into(), unit, target: None, measured, note: String::new() }
    }

    /// Sets the target.
    pub fn at_most(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Sets the note.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn cells(&self) -> [String; 5] {
        let verdict = match self.target {
            None => "",
            Some(target) if self.measured <= target => "met",
            Some(_) => "MISSED",
        };
        let target = self.target.map(|target| self.unit.text(target)).unwrap_or_default();
        [self.figure.clone(), target, self.unit.text(self.measured), verdict.to_owned(), self.note.clone()]
    }
}

/// Writes the figures in Markdown, in columns that are also straight in a terminal.
pub fn table(figures: &[Figure]) -> String {
    let head = ["figure", "target", "measured", "", ""].map(str::to_owned);
    let mut rows: Vec<_> = [head].into_iter().chain(figures.iter().map(Figure::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    // The notes are long, and end the line.
    let widths = [width(0), width(1), width(2), width(3), 0];
    rows.insert(1, widths.map(|width| "-".repeat(width.max(1))));
    let line = |row: &[String; 5]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |\n", cells.join(" | ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Many measurements of one thing, in one unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
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

    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// `21.9 (21.6 to 22.3)`: the median and the middle half.
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
    fn figure_equal_to_its_target_meets_it() {
        for (measured, verdict) in [(2.0, "met"), (2.5, "MISSED"), (f64::NAN, "MISSED")] {
            assert_eq!(Figure::new("calls", Unit::Requests, measured).at_most(2.0).cells()[3], verdict);
        }
    }

    #[test]
    fn the_table_is_markdown_in_straight_columns() {
        let figures = [
            Figure::new("calls", Unit::Requests, 3.0).at_most(2.0),
            Figure::new("wait", Unit::Ratio, 1.0532).note("of 20 ms"),
        ];
        let expected = "\
| figure | target | measured |        | |
| ------ | ------ | -------- | ------ | - |
| calls  | 2      | 3        | MISSED | |
| wait   |        | 1.05 x   |        | of 20 ms |
";
        assert_eq!(table(&figures), expected);
    }

    #[test]
    fn a_percentile_is_one_of_the_measurements() {
        let hundred: Sample = (1..=100).rev().map(f64::from).collect();
        for (percent, expected) in [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)] {
            assert_eq!(hundred.percentile(percent), expected);
        }
        assert_eq!(Sample::default().median(), 0.0);
    }

    #[test]
    fn a_slow_round_changes_no_comparison() {
        let yardstick: Sample = [10.0, 40.0, 10.0].into_iter().collect();
        let doubled: Sample = [20.0, 80.0, 20.0].into_iter().collect();
        assert_eq!(doubled.against(&yardstick), [2.0, 2.0, 2.0].into_iter().collect());
    }
}
