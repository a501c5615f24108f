//! `local bench`: measures what the functions cost, against their targets. The yardstick is a function that does nothing. Programs that
//! are compared take turns. Only counts can fail a run, and only against [`limits`].

mod counts;
mod creation;
mod figure;
mod limits;
mod linking;
mod look_up;
mod machine;
mod size;
mod times;
mod warm;

use std::env::{self, consts::ARCH};
use std::fs;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::figure::{Figure, Sample, table};
use self::warm::Scene;
use crate::Result;
use crate::child::workspace;
use crate::clock::unix_ms;

/// If other work takes more of the machine than this, it disturbs the times that are measured.
const BUSY: f64 = 0.1;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All figures: prints the table, and writes the same to `target/bench.json`.
    Table,
    /// Counts only: fails if one exceeds its limit.
    Check,
    /// Counts only: makes them the limits.
    Renew,
}

/// Measures.
pub async fn run(mode: Mode) -> Result<()> {
    let scene = Scene::start().await;
    let mut run = Run::default();
    run.add("upstream requests", counts::upstream_requests(&scene)).await?;
    run.add("instructions", counts::instructions(&scene)).await?;
    if mode != Mode::Table {
        println!("{}", table(&run.figures));
        return if mode == Mode::Check { limits::check(&run.figures) } else { limits::renew(&run.figures) };
    }
    run.add("a warm poll", times::one_hop(&scene)).await?;
    run.add("processor time", times::processor(&scene)).await?;
    run.add("starts", times::start(&scene)).await?;
    run.add("size", size::measure(&scene)).await?;
    run.add("new numbers", creation::measure(&scene)).await?;
    run.add("a million numbers", look_up::measure()).await?;
    let is_busy = run.others.percentile(100) > BUSY;
    let date = OffsetDateTime::from_unix_timestamp(unix_ms() / 1000)?.format(&Rfc3339)?;
    let version = env::var("WPP_VERSION").unwrap_or_else(|_| "unknown".to_owned());
    let cores = std::thread::available_parallelism()?;
    let state = if is_busy { "BUSY: trust the counts, not the times" } else { "idle" };
    println!("{date}, {version}, {cores} cores, {ARCH}; the machine was {state}\n\n{}", table(&run.figures));
    let report = json!({
        "date": date, "version": version, "arch": ARCH, "cores": cores, "busy": is_busy, "figures": run.figures,
    });
    let file = workspace().join("target/bench.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    println!("Times: the median, and in brackets the middle half. The same as JSON: {}", file.display());
    Ok(())
}

/// What was measured so far.
#[derive(Default)]
struct Run {
    figures: Vec<Figure>,
    /// Shares of the processors that other work took, between two parts of the run.
    others: Sample,
}

impl Run {
    async fn add(&mut self, name: &str, part: impl Future<Output = Result<Vec<Figure>>>) -> Result<()> {
        // The stack and the functions are idle between two parts.
        self.others.push(machine::busy().await?);
        eprintln!("bench: {name} ...");
        self.figures.extend(part.await?);
        Ok(())
    }
}
