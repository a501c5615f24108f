//! Instructions of the processor, counted by valgrind: the same on every machine of a kind, busy or not.

use std::env::consts::ARCH;
use std::fs;
use std::path::Path;

use super::figure::{Figure, Unit};
use super::warm::{Scene, Warm};
use super::yardstick;
use crate::lambda::{Sandbox, binary};
use crate::test_app::environment;
use crate::{FUNCTIONS, Result};

/// The architecture of the stored counts; on another one the counts differ.
pub const KEPT_OF: &str = "x86_64";

/// What a sandbox has answered when it is ended: the difference of two runs is of warm requests alone.
const FEW: usize = 20;
const MANY: usize = 70;

/// What the functions took at ddd89dd, measured by this bench on 2026-11-25: the targets are half of it.
const BEFORE: [(Warm, f64); 3] =
    [(Warm::Qr, 579_000.0), (Warm::StatusWithQr, 729_000.0), (Warm::StatusConnected, 625_000.0)];

/// Counts the instructions of each warm request, and of each function's start.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for poll in Warm::ALL {
        let measured = of_request(scene, poll).await?;
        let before =
            BEFORE.iter().find(|(other, _)| *other == poll && ARCH == KEPT_OF).map(|(_, before)| *before);
        let figure = Figure::new(
            format!("{}, instructions of a warm request", poll.name()),
            Unit::Instructions,
            measured,
        );
        figures.push(match before {
            Some(before) => {
                figure.at_most(before / 2.0).note(format!("{} at ddd89dd", Unit::Instructions.text(before)))
            }
            None => figure,
        });
    }
    let empty = count(&yardstick()?, &[], None).await?;
    for name in FUNCTIONS {
        let measured = of_start(scene, name).await?;
        let note = format!("{} of an empty function", Unit::Instructions.text(empty));
        figures.push(
            Figure::new(format!("{name}, instructions of its start"), Unit::Instructions, measured)
                .note(note),
        );
    }
    Ok(figures)
}

/// Counts the instructions of one request to a warm sandbox.
pub async fn of_request(scene: &Scene, poll: Warm) -> Result<f64> {
    let (program, env) = (binary(poll.function())?, environment(&scene.app.stack, &[]));
    let run = |requests| count(&program, &env, Some((scene, poll, requests)));
    let (few, many) = (run(FEW).await?, run(MANY).await?);
    Ok((many - few) / (MANY - FEW) as f64)
}

/// Counts from the start of the process to its first question for an invocation.
pub async fn of_start(scene: &Scene, function: &str) -> Result<f64> {
    count(&binary(function)?, &environment(&scene.app.stack, &[]), None).await
}

/// Counts all that a process does from its start to its end, which comes after this many requests.
async fn count(
    program: &Path,
    env: &[(String, String)],
    asked: Option<(&Scene, Warm, usize)>,
) -> Result<f64> {
    let directory = tempfile::tempdir()?;
    let counts = directory.path().join("counts");
    let arguments = ["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", counts.display())];
    let sandbox = Sandbox::start_below("valgrind", &arguments, program, env).await?;
    sandbox.ready().await?;
    if let Some((scene, poll, requests)) = asked {
        scene.turn_qr()?;
        for _ in 0..requests {
            poll.ask(&sandbox, scene).await?;
        }
    }
    let ended = sandbox.terminate().await;
    let counts = fs::read_to_string(&counts).unwrap_or_default();
    total(&counts).ok_or_else(|| format!("valgrind has counted nothing: {}", ended.logs).into())
}

/// Returns the sum at the end of callgrind's file.
fn total(counts: &str) -> Option<f64> {
    let total = counts.lines().rev().find_map(|line| line.strip_prefix("totals:"))?;
    total.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_the_one_of_the_whole_run() {
        let counts = "events: Ir\nfn=(1) main\n16 400\n\ntotals: 1234567\n";
        assert_eq!(total(counts), Some(1_234_567.0));
        assert_eq!(total("events: Ir\n"), None);
    }
}
