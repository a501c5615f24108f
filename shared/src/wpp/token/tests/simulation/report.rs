//! The report about a simulated hour for the docs: a table, and a chart.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::chart::chart;
use super::{Scenario, Tally};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// The table is between these two lines in `docs/measured.md`.
const BEGIN: &str = "<!-- make simulate -->\n";
const END: &str = "<!-- end -->\n";

pub type Run = (&'static str, Tally);

pub fn write(scenario: &Scenario, runs: &[Run; 4]) {
    let table = table(scenario, runs);
    println!("{table}");
    let page = std::fs::read_to_string(format!("{DOCS}/measured.md")).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    std::fs::write(format!("{DOCS}/measured.md"), [before, BEGIN, &table, END, after].concat()).unwrap();
    std::fs::write(format!("{DOCS}/fleet.svg"), chart(scenario, [&runs[0], &runs[1], &runs[3]])).unwrap();
}

fn table(scenario: &Scenario, runs: &[Run]) -> String {
    let mut table = String::new();
    let mut row = |name: &str, cell: &dyn Fn(&Tally) -> String| {
        let cells: Vec<_> = runs.iter().map(|(_, tally)| cell(tally)).collect();
        writeln!(table, "| {name} | {} |", cells.join(" | ")).unwrap();
    };
    let whole = scenario.length.as_secs_f64();
    row("requests", &|it| count(it.requests));
    row("`/auth/token`", &|it| count(it.sent()));
    row("per second: mean", &|it| format!("{:.1}", it.sent() as f64 / whole));
    row("per second: peak", &|it| it.asked.iter().max().unwrap().to_string());
    row("tokens issued", &|it| count(it.given));
    row("of these not needed", &|it| count(it.needless));
    row("answers outside the outages: p50 / p99 / longest, in ms", &|it| spread(&it.took));
    row("of these needed a new token", &|it| count(it.waited.len() as u64));
    row("and took for it: p50 / p99 / longest, in ms", &|it| spread(&it.waited));
    row("the longest delay while a token was usable, in ms", &|it| count(it.delayed));
    let kinds: BTreeSet<_> = runs.iter().flat_map(|(_, tally)| tally.failed.keys()).collect();
    for kind in kinds {
        row(&format!("failed: {kind}"), &|it| count(it.failed.get(kind).copied().unwrap_or_default()));
    }
    row("failed outside the outages", &|it| count(it.failed_outside));
    row("failed for lack of a token while one was usable", &|it| count(it.wronged));
    row("sandboxes that froze or died during a request", &|it| count(it.frozen + it.died));
    row("the most sandboxes at once", &|it| count(it.sandboxes as u64));
    let names: Vec<_> = runs.iter().map(|(name, _)| *name).collect();
    format!("| | {} |\n|---|{}\n{table}", names.join(" | "), "--:|".repeat(runs.len()))
}

/// Formats the median, the 99th percentile and the maximum.
fn spread(times: &[u64]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |percent: usize| count(times[(times.len() - 1) * percent / 100]);
    format!("{} / {} / {}", at(50), at(99), at(100))
}

/// Writes a number with a comma before every three digits.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
