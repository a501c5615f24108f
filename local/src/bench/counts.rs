//! Counts, which are the same at each measurement: upstream requests, and instructions by callgrind.

use std::fs;
use std::path::Path;

use super::figure::{Figure, Unit};
use super::linking;
use super::warm::{Scene, Warm};
use crate::Result;
use crate::lambda::{Sandbox, binary};

/// What a sandbox has answered when it is ended: the difference of two runs is of warm requests alone.
const FEW: usize = 20;
const MANY: usize = 70;

/// Counts the upstream requests of each warm request, and of one linking.
pub async fn upstream_requests(scene: &Scene) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (request, target) in Warm::ALL.into_iter().zip([2.0, 3.0, 2.0]) {
        scene.renew_qr()?;
        let sandbox = scene.app.sandbox(request.function());
        for _ in 0..2 {
            request.ask(sandbox, scene).await?;
        }
        scene.app.forget_calls();
        request.ask(sandbox, scene).await?;
        let name = format!("{}, upstream requests", request.function());
        figures.push(Figure::new(name, Unit::Requests, scene.app.all_calls() as f64).at_most(target));
    }
    figures.push(linking::measure(&scene.app).await?);
    Ok(figures)
}

/// Counts the instructions of each warm request, and of a start up to the first question for an invocation.
pub async fn instructions(scene: &Scene) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for request in Warm::ALL {
        let program = binary(request.function())?;
        let run = |requests| count(&program, &scene.env, Some((scene, request, requests)));
        let (few, many) = (run(FEW).await?, run(MANY).await?);
        let name = format!("{}, instructions", request.function());
        let figure = Figure::new(name, Unit::Instructions, (many - few) / (MANY - FEW) as f64);
        figures.push(if request == Warm::Qr { figure.at_most(650_000.0) } else { figure });
    }
    let start = count(&binary("wpp-qr")?, &scene.env, None).await?;
    let empty = count(&binary("empty")?, &[], None).await?;
    let figure = Figure::new("wpp-qr, instructions of a start", Unit::Instructions, start);
    figures.push(figure.note(format!("{:.0} k of an empty function", empty / 1000.0)));
    Ok(figures)
}

/// Counts all that a process does from its start to its end, which comes after so many requests.
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
    if let Some((scene, request, times)) = asked {
        scene.renew_qr()?;
        for _ in 0..times {
            request.ask(&sandbox, scene).await?;
        }
    }
    let ended = sandbox.terminate().await;
    let counts = fs::read_to_string(&counts).unwrap_or_default();
    total(&counts).ok_or_else(|| format!("valgrind has counted nothing: {}", ended.logs).into())
}

/// Returns the sum at the end of callgrind's file.
fn total(counts: &str) -> Option<f64> {
    counts.lines().rev().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_is_that_of_the_whole_run() {
        let counts = "events: Ir\nfn=(1) main\n16 400\n\ntotals: 1234567\n";
        assert_eq!(total(counts), Some(1_234_567.0));
        assert_eq!(total("events: Ir\n"), None);
    }
}
