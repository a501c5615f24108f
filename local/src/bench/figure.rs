//! A figure, its target, and the table of them all.

use serde::{Serialize, Serializer};
use serde_json::json;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// In what.
    pub unit: Unit,
    /// The most that it should be, if a target was set.
    pub target: Option<f64>,
    /// What it is.
    pub measured: f64,
    /// What the figure is made of: its spread, and what it was held against.
    pub note: String,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Whole things.
    Count,
    /// Times something else.
    Ratio,
    /// Milliseconds.
    Ms,
    /// Millions of bytes.
    Mb,
    /// 1,048,576 bytes.
    Mib,
    /// Instructions of the processor.
    Instructions,
}

impl Unit {
    /// Writes a value as a person reads it.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.0}"),
            Self::Ratio => format!("{value:.2} x"),
            Self::Ms => format!("{value:.2} ms"),
            Self::Mb => format!("{value:.2} MB"),
            Self::Mib => format!("{value:.2} MiB"),
            Self::Instructions => format!("{:.0} k", value / 1000.0),
        }
    }
}

/// What a figure's target says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is no more than it should be.
    Met,
    /// It is more.
    Missed,
    /// It has no target.
    Stated,
}

impl Figure {
    /// Makes a figure without a target.
    pub fn new(what: impl Into<String>, unit: Unit, measured: f64) -> Self {
        Self { what: what.into(), unit, target: None, measured, note: String::new() }
    }

    /// Sets the target: it should be no more than this.
    #[must_use]
    pub fn at_most(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Notes what it is made of.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Returns whether it is as it should be.
    pub fn verdict(&self) -> Verdict {
        match self.target {
            None => Verdict::Stated,
            Some(target) if self.measured <= target => Verdict::Met,
            Some(_) => Verdict::Missed,
        }
    }

    fn cells(&self) -> [String; 4] {
        let target =
            self.target.map_or_else(|| "-".to_owned(), |target| format!("<= {}", self.unit.text(target)));
        let measured = self.unit.text(self.measured);
        let note = if self.note.is_empty() { measured } else { format!("{measured}; {}", self.note) };
        let verdict = match self.verdict() {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Stated => "stated",
        };
        [self.what.clone(), target, note, verdict.to_owned()]
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "figure": self.what,
            "unit": self.unit,
            "target": self.target,
            "measured": self.measured,
            "verdict": self.verdict(),
            "note": self.note,
        })
        .serialize(serializer)
    }
}

/// Writes the figures in Markdown, in columns that are also straight in a terminal.
pub fn table(figures: &[Figure]) -> String {
    let head = ["figure", "target", "measured", "verdict"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(figures.iter().map(Figure::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 4] = std::array::from_fn(width);
    let mut lines: Vec<_> = rows.iter().map(|row| line(row, widths)).collect();
    lines.insert(1, format!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|")));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn line(row: &[String; 4], widths: [usize; 4]) -> String {
    let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(measured: f64) -> Figure {
        Figure::new("calls", Unit::Count, measured)
    }

    #[test]
    fn a_figure_meets_its_target_up_to_the_target_itself() {
        for (figure, verdict) in [
            (calls(2.0).at_most(2.0), Verdict::Met),
            (calls(2.5).at_most(2.0), Verdict::Missed),
            (calls(2.0), Verdict::Stated),
            (calls(f64::NAN).at_most(2.0), Verdict::Missed),
        ] {
            assert_eq!(figure.verdict(), verdict, "{figure:?}");
        }
    }

    #[test]
    fn the_table_is_markdown_in_straight_columns() {
        let figures = [calls(3.0).at_most(2.0), Figure::new("wait", Unit::Ratio, 1.0532).note("of 20 ms")];
        let expected = "\
| figure | target | measured         | verdict |
|--------|--------|------------------|---------|
| calls  | <= 2   | 3                | MISSED  |
| wait   | -      | 1.05 x; of 20 ms | stated  |
";
        assert_eq!(table(&figures), expected);
    }

    #[test]
    fn a_program_reads_the_same_with_every_digit() {
        let expected = json!({
            "figure": "calls", "unit": "count", "target": 2.0, "measured": 3.0, "verdict": "missed", "note": "",
        });
        assert_eq!(json!(calls(3.0).at_most(2.0)), expected);
        assert_eq!(json!(calls(3.0))["target"], json!(null));
    }
}
