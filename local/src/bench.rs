//! `local bench`: measures what the functions cost, against the targets that they were given. A function that does nothing is the
//! yardstick. Figures that are compared take turns within one run. No figure here decides a test: [`crate::limits`] does that.

mod cold_start;
mod figure;
mod first;
mod fleet;
mod hop;
pub(crate) mod instructions;
mod linking;
mod machine;
mod processor;
mod sample;
mod size;
pub(crate) mod warm;

use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::figure::{Figure, Unit, table};
use self::warm::{Scene, Warm};
use crate::Result;
use crate::child::workspace;
use crate::clock::{now, unix_ms};
use crate::lambda::binary;

/// If other work takes more of the machine than this, it disturbs the times that are measured.
const BUSY: f64 = 0.1;

/// Returns the function that does nothing: `local/empty`.
pub(crate) fn yardstick() -> Result<PathBuf> {
    binary("empty")
}

/// Measures everything, prints the table and writes the same to `target/bench.json`.
pub async fn run() -> Result<()> {
    let began = now();
    let load_before = machine::load()?;
    let scene = Scene::start().await;
    let mut others = sample::Sample::default();
    let mut figures = Vec::new();
    // The stack and the functions are idle between two parts.
    for part in PARTS {
        others.push(machine::busy().await?);
        eprintln!("bench: {} ...", part.name());
        figures.extend(part.measure(&scene).await?);
    }
    others.push(machine::busy().await?);
    let others = others.percentile(100);
    let (load_after, version) = (machine::load()?, version());
    let report = json!({
        "date": OffsetDateTime::from_unix_timestamp(unix_ms() / 1000)?.format(&Rfc3339)?,
        "version": version,
        "arch": ARCH,
        "cores": machine::cores(),
        "load_before": load_before,
        "load_after": load_after,
        "others_share_of_processors": others,
        "busy": others > BUSY,
        "seconds": began.elapsed().as_secs(),
        "figures": figures,
    });
    let file = workspace().join("target/bench.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?)?;
    println!("{}", heading(&report, others));
    println!("{}", table(&figures));
    println!(
        "Milliseconds: the median, and between which two half of them are. The same as JSON: {}",
        file.display()
    );
    Ok(())
}

/// Returns when and on which machine it was measured, and whether to believe it.
fn heading(report: &Value, others: f64) -> String {
    let text = |field: &str| report[field].as_str().unwrap_or_default();
    let day = text("date").split('T').next().unwrap_or_default();
    let machine = format!("{} cores, {ARCH}", report["cores"]);
    let state = if others > BUSY {
        format!(
            "THE MACHINE WAS BUSY: up to {:.0} % of it was others' work. Believe the counts, not the times",
            others * 100.0
        )
    } else {
        "the machine was idle".to_owned()
    };
    format!("Measured {day} at {}, {machine}; {state}.\n", text("version"))
}

fn version() -> String {
    let describe = Command::new("git")
        .args(["describe", "--tags", "--always", "--dirty"])
        .current_dir(workspace())
        .output();
    let described = describe.ok().filter(|output| output.status.success());
    described.map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// What is measured, in this order.
#[derive(Clone, Copy, Debug)]
enum Part {
    Hop,
    Requests,
    Processor,
    Instructions,
    ColdStart,
    First,
    Size,
    Fleet,
    Linking,
}

const PARTS: [Part; 9] = [
    Part::Hop,
    Part::Requests,
    Part::Processor,
    Part::Instructions,
    Part::ColdStart,
    Part::First,
    Part::Size,
    Part::Fleet,
    Part::Linking,
];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Hop => "a warm poll against one direct call",
            Self::Requests => "upstream requests of a warm poll",
            Self::Processor => "the processor's time",
            Self::Instructions => "instructions, below valgrind",
            Self::ColdStart => "cold starts",
            Self::First => "first requests",
            Self::Size => "binaries and memory",
            Self::Fleet => "a fleet over an expiry",
            Self::Linking => "one linking",
        }
    }

    async fn measure(self, scene: &Scene) -> Result<Vec<Figure>> {
        match self {
            Self::Hop => hop::measure(scene).await,
            Self::Requests => requests(scene).await,
            Self::Processor => processor::measure(scene).await,
            Self::Instructions => instructions::measure(scene).await,
            Self::ColdStart => cold_start::measure(scene).await,
            Self::First => first::measure(scene).await,
            Self::Size => Ok([size::files()?, size::memory(scene).await?].concat()),
            Self::Fleet => fleet::measure().await,
            Self::Linking => linking::measure().await,
        }
    }
}

async fn requests(scene: &Scene) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (poll, target) in [(Warm::Qr, 2.0), (Warm::StatusWithQr, 3.0), (Warm::StatusConnected, 2.0)] {
        let what = format!("{}, upstream requests when warm", poll.name());
        let requests = poll.upstream_requests(scene).await? as f64;
        figures.push(Figure::new(what, Unit::Count, requests).at_most(target));
    }
    Ok(figures)
}
