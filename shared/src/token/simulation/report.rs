//! What the docs show of a simulated hour: a table and a picture.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::Range;
use std::time::Duration;

use super::{Scenario, Tally};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// The table stands between these two in `docs/fleet.md`.
const BEGIN: &str = "<!-- make simulate -->\n";
const END: &str = "<!-- end -->\n";

type Runs<'a> = &'a [(&'static str, Tally)];

pub fn write(scenario: &Scenario, runs: Runs<'_>) {
    let table = table(scenario, runs);
    println!("{table}");
    let page = std::fs::read_to_string(format!("{DOCS}/fleet.md")).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    std::fs::write(format!("{DOCS}/fleet.md"), [before, BEGIN, &table, END, after].concat()).unwrap();
    std::fs::write(format!("{DOCS}/fleet.svg"), picture(scenario, runs)).unwrap();
}

fn table(scenario: &Scenario, runs: Runs<'_>) -> String {
    let mut table = String::new();
    let mut row = |name: &str, cell: &dyn Fn(&Tally) -> String| {
        let cells: Vec<_> = runs.iter().map(|(_, tally)| cell(tally)).collect();
        writeln!(table, "| {name} | {} |", cells.join(" | ")).unwrap();
    };
    let whole = scenario.length.as_secs_f64();
    row("requests", &|it| count(it.took.len() as u64));
    row("`/auth/token`", &|it| count(it.asked.iter().map(|asked| u64::from(*asked)).sum()));
    row("a second, mean and peak", &|it| {
        let sum: u32 = it.asked.iter().sum();
        format!("{:.1}, {}", f64::from(sum) / whole, it.asked.iter().max().unwrap())
    });
    row("tokens given, and those that nobody needed", &|it| format!("{}, {}", count(it.given), count(it.needless)));
    row("an answer took: p50, p99, longest", &|it| spread(&it.took));
    row("those who had to come by a token", &|it| count(it.waited.len() as u64));
    row("and how long that took: p50, p99, longest", &|it| spread(&it.waited));
    row("the same with a token that served: longest", &|it| format!("{} ms", count(it.delayed)));
    let kinds: BTreeSet<_> = runs.iter().flat_map(|(_, tally)| tally.failed.keys()).collect();
    for kind in kinds {
        row(&format!("failed: {kind}"), &|it| count(it.failed.get(kind).copied().unwrap_or_default()));
    }
    row("failed, and met no outage", &|it| count(it.failed_outside));
    row("failed for want of a token while one served", &|it| count(it.wronged));
    row("sandboxes that froze or died within a request", &|it| format!("{}, {}", count(it.frozen), count(it.died)));
    row("the most sandboxes at once", &|it| count(it.sandboxes as u64));
    let names: Vec<_> = runs.iter().map(|(name, _)| *name).collect();
    format!("| | {} |\n|---|{}\n{table}", names.join(" | "), "--:|".repeat(runs.len()))
}

/// The middle, the 99th of 100, and the last.
fn spread(times: &[u64]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |percent: usize| count(times[(times.len() - 1) * percent / 100]);
    format!("{}, {}, {} ms", at(50), at(99), at(100))
}

/// With a comma before every three digits.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// The picture's plot, in pixels; a decade of tokens a second, and the lowest one shown.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 836.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 336.0;
const LOWEST: f64 = 0.1;
const DECADES: f64 = 4.0;
/// The seconds of one step of a line.
const STEP: usize = 10;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#24292f;--grid:#d8dee4;--shade:#eaeef2;--a:#0969da;--b:#bc4c00;--c:#8250df}\
@media(prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#e6edf3;--grid:#30363d;--shade:#21262d;--a:#58a6ff;--b:#f0883e;--c:#bc8cff}}\
text{font:13px system-ui,sans-serif;fill:var(--ink)}.grid{stroke:var(--grid)}.shade{fill:var(--shade)}\
.line{fill:none;stroke-width:1.6}.end{text-anchor:end}.middle{text-anchor:middle}";

fn picture(scenario: &Scenario, runs: Runs<'_>) -> String {
    let x = |seconds: f64| LEFT + (RIGHT - LEFT) * seconds / scenario.length.as_secs_f64();
    let y = |rate: f64| BOTTOM - (BOTTOM - TOP) * (rate.max(LOWEST) / LOWEST).log10() / DECADES;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 860 384' role='img' aria-label='/auth/token a second over the hour'>\n\
         <style>{STYLE}</style>\n<rect width='860' height='384' fill='var(--paper)'/>\n"
    );
    let mut shade = |time: Range<Duration>, name: &str| {
        let (from, to) = (x(time.start.as_secs_f64()), x(time.end.as_secs_f64()));
        writeln!(svg, "<rect class='shade' x='{from:.1}' y='{TOP}' width='{:.1}' height='{:.1}'/>", to - from, BOTTOM - TOP)
            .unwrap();
        writeln!(svg, "<text class='middle' x='{:.1}' y='{:.1}'>{name}</text>", (from + to) / 2.0, TOP - 6.0).unwrap();
    };
    shade(scenario.wave..scenario.wave + Duration::from_secs(60), "a third ends");
    shade(scenario.platform_outage.clone(), "platform away, then forgetful");
    shade(scenario.database_outage.clone(), "database away");
    for rate in ["0.1", "1", "10", "100", "1000"] {
        let at = y(rate.parse().unwrap());
        writeln!(svg, "<path class='grid' d='M{LEFT} {at:.1}H{RIGHT}'/><text class='end' x='{:.1}' y='{:.1}'>{rate}</text>", LEFT - 8.0, at + 4.0)
            .unwrap();
    }
    for minute in (0..=scenario.length.as_secs() / 60).step_by(10) {
        let at = x(minute as f64 * 60.0);
        writeln!(svg, "<text class='middle' x='{at:.1}' y='{:.1}'>{minute} min</text>", BOTTOM + 18.0).unwrap();
    }
    for (nth, ((name, tally), colour)) in runs.iter().zip(["a", "b", "c"]).enumerate().rev() {
        let steps = tally.asked.chunks(STEP).enumerate().fold(String::new(), |path, (step, asked)| {
            let rate = f64::from(asked.iter().sum::<u32>()) / STEP as f64;
            let (command, from) = (if step == 0 { 'M' } else { 'L' }, x((step * STEP) as f64));
            format!("{path}{command}{from:.1} {:.1}", y(rate))
        });
        writeln!(svg, "<path class='line' stroke='var(--{colour})' d='{steps}'/>").unwrap();
        let at = LEFT + [0.0, 130.0, 230.0][nth];
        writeln!(svg, "<path class='line' stroke='var(--{colour})' d='M{at} 366h18'/><text x='{}' y='370'>{name}</text>", at + 24.0)
            .unwrap();
    }
    writeln!(svg, "<text x='8' y='20'>/auth/token a second, mean of {STEP} s</text>\n</svg>").unwrap();
    svg
}
