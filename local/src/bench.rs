//! `local bench`: measures what the functions cost, against their targets. Times are compared with those of a function that does
//! nothing, or of one direct call of the platform; the programs take turns. A missed target fails no run. [`Mode::Check`] fails if a
//! count exceeds its limit.

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

/// Other work that uses more than this share of the processors makes the measured times unreliable.
const BUSY_SHARE: f64 = 0.1;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All figures: prints the table, and writes the same to `target/bench.json`.
    Table,
    /// Counts only: fails if one exceeds its limit or has none.
    Check,
    /// Counts only: makes them the limits.
    Renew,
}

/// Runs the bench in this mode.
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
    let is_busy = run.other_work.percentile(100) > BUSY_SHARE;
    let date = OffsetDateTime::from_unix_timestamp(unix_ms() / 1000)?.format(&Rfc3339)?;
    let version = env::var("WPP_VERSION").unwrap_or_else(|_| "unknown".to_owned());
    let cores = std::thread::available_parallelism()?;
    let state = if is_busy { "busy: trust the counts, not the times" } else { "idle between the parts" };
    println!("{date}, {version}, {cores} cores, {ARCH}; the machine was {state}\n\n{}", table(&run.figures));
    let report = json!({
        "date": date, "version": version, "arch": ARCH, "cores": cores, "busy": is_busy, "figures": run.figures,
    });
    let file = workspace().join("target/bench.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    println!("Times are medians, with the middle half in brackets. The same as JSON: {}", file.display());
    Ok(())
}

/// What has been measured so far.
#[derive(Default)]
struct Run {
    figures: Vec<Figure>,
    /// The shares of the processors that other work used, each sampled before a part of the run.
    other_work: Sample,
}

impl Run {
    async fn add(&mut self, name: &str, part: impl Future<Output = Result<Vec<Figure>>>) -> Result<()> {
        // The stack and the functions are idle between two parts.
        self.other_work.push(machine::busy().await?);
        eprintln!("bench: {name} ...");
        self.figures.extend(part.await?);
        Ok(())
    }
}
