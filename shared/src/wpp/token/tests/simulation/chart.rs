//! An SVG chart of the `/auth/token` calls per second in several runs. Each run is a line on a logarithmic scale; the outages are
//! in the background.

use std::fmt::Write;
use std::time::Duration;

use super::Scenario;
use super::report::Run;

/// The plot's edges.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 832.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 336.0;

/// From 0.1 to 1,000 a second.
const LOWEST: f64 = 0.1;
const DECADES: f64 = 4.0;

/// How many seconds one point of a line averages.
const STEP: usize = 10;

const HEAD: &str = "\
<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 860 388' role='img' aria-label='/auth/token a second over an hour'>
<style>
svg { --paper: #fff; --ink: #24292f; --grid: #d8dee4; --shade: #eaeef2; --a: #0969da; --b: #bc4c00; --c: #8250df }
@media (prefers-color-scheme: dark) {
  svg { --paper: #0d1117; --ink: #e6edf3; --grid: #30363d; --shade: #21262d; --a: #58a6ff; --b: #f0883e; --c: #bc8cff }
}
text { font: 13px system-ui, sans-serif; fill: var(--ink); text-anchor: middle }
.scale { text-anchor: end } .name { text-anchor: start }
path { fill: none; stroke: var(--grid) }
.a { stroke: var(--a) } .b { stroke: var(--b) } .c { stroke: var(--c) }
.a, .b, .c { stroke-width: 1.6 }
</style>
<rect width='860' height='388' fill='var(--paper)'/>
";

pub fn chart(scenario: &Scenario, runs: [&Run; 3]) -> String {
    let mut svg = HEAD.to_owned();
    draw(&mut svg, scenario, runs).unwrap();
    svg
}

fn draw(svg: &mut String, scenario: &Scenario, runs: [&Run; 3]) -> std::fmt::Result {
    let x = |time: Duration| LEFT + (RIGHT - LEFT) * time.div_duration_f64(scenario.length);
    let y = |rate: f64| BOTTOM - (BOTTOM - TOP) * (rate.max(LOWEST) / LOWEST).log10() / DECADES;

    let wave = scenario.wave..scenario.wave + Duration::from_secs(60);
    for (time, name) in [
        (&wave, "a third ends"),
        (&scenario.platform_outage, "platform away, then forgetful"),
        (&scenario.database_outage, "database away"),
    ] {
        let (from, to) = (x(time.start), x(time.end));
        let (width, height) = (to - from, BOTTOM - TOP);
        writeln!(
            svg,
            "<rect x='{from:.1}' y='{TOP}' width='{width:.1}' height='{height}' fill='var(--shade)'/>"
        )?;
        writeln!(svg, "<text x='{:.1}' y='{}'>{name}</text>", (from + to) / 2.0, TOP - 8.0)?;
    }

    writeln!(svg, "<text class='name' x='8' y='20'>/auth/token a second, mean of {STEP} s</text>")?;
    for (rate, name) in [(LOWEST, "≤ 0.1"), (1.0, "1"), (10.0, "10"), (100.0, "100"), (1000.0, "1,000")] {
        writeln!(svg, "<path d='M{LEFT} {:.1}H{RIGHT}'/>", y(rate))?;
        writeln!(svg, "<text class='scale' x='{}' y='{:.1}'>{name}</text>", LEFT - 8.0, y(rate) + 4.0)?;
    }
    for minute in (0..=scenario.length.as_secs() / 60).step_by(10) {
        let at = x(Duration::from_secs(60 * minute));
        writeln!(svg, "<text x='{at:.1}' y='{}'>{minute} min</text>", BOTTOM + 18.0)?;
    }

    // The first one is drawn last, so that it is on top.
    for (((name, tally), class), at) in runs.into_iter().zip(["a", "b", "c"]).zip([56, 190, 300]).rev() {
        let means = tally.asked.chunks(STEP).map(|asked| f64::from(asked.iter().sum::<u32>()) / STEP as f64);
        let points = (0..).step_by(STEP).map(Duration::from_secs).zip(means);
        let points: Vec<_> = points.map(|(time, rate)| format!("{:.1} {:.1}", x(time), y(rate))).collect();
        writeln!(svg, "<path class='{class}' d='M{}'/>", points.join("L"))?;
        writeln!(svg, "<path class='{class}' d='M{at} 374h18'/>")?;
        writeln!(svg, "<text class='name' x='{}' y='378'>{name}</text>", at + 24)?;
    }
    writeln!(svg, "</svg>")
}
