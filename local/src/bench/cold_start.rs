//! From the start of a process to its first question for an invocation, compared with a function that does nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use super::figure::{Figure, Unit};
use super::sample::Sample;
use super::warm::Scene;
use super::yardstick;
use crate::child::workspace;
use crate::lambda::{Options, binary, lambda_variables};
use crate::test_app::environment;
use crate::{FUNCTIONS, Result, clock};

const RUNS: usize = 60;

/// Memory placement of a file changes the time by up to a tenth, so each program is started from this many copies.
const COPIES: usize = 12;

/// Measures each function in turn, `RUNS` times.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let env = environment(&scene.app.stack, &[]);
    let programs = FUNCTIONS.iter().map(|name| binary(name)).collect::<Result<Vec<_>>>()?;
    let empty = yardstick()?;
    spawn_blocking(move || {
        let mut nothing = Sample::default();
        let mut samples = vec![Sample::default(); programs.len()];
        let directory = tempfile::tempdir_in(workspace().join("target"))?;
        let copied = |program: &PathBuf| copies(program, directory.path());
        let (empty, programs) = (copied(&empty)?, programs.iter().map(copied).collect::<Result<Vec<_>>>()?);
        for run in 0..RUNS {
            nothing.push(start(&empty[run % COPIES], &[])?);
            for (program, sample) in programs.iter().zip(&mut samples) {
                sample.push(start(&program[run % COPIES], &env)?);
            }
        }
        Ok(FUNCTIONS.iter().zip(&samples).map(|(name, sample)| figure(name, sample, &nothing)).collect())
    })
    .await?
}

/// Makes copies of a program, each in its own folder.
fn copies(program: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let copy = |number: usize| {
        let folder = directory.join(number.to_string());
        fs::create_dir_all(&folder)?;
        let copy = folder.join(program.file_name().unwrap_or_default());
        fs::copy(program, &copy)?;
        Ok(copy)
    };
    (0..COPIES).map(copy).collect()
}

fn figure(name: &str, sample: &Sample, nothing: &Sample) -> Figure {
    let what = format!("{name}, cold start against an empty function");
    let note = format!("{sample:.2} ms against {nothing:.2} ms, {RUNS} runs of {COPIES} copies");
    Figure::new(what, Unit::Ratio, sample.against(nothing).median()).at_most(1.10).note(note)
}

/// Measures how long it takes until the program asks, in milliseconds. Only the kernel is between the two clocks.
fn start(program: &Path, env: &[(String, String)]) -> Result<f64> {
    let runtime_api = TcpListener::bind("127.0.0.1:0")?;
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(lambda_variables(&name, runtime_api.local_addr()?, Options::default()))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = clock::now();
    let mut process = command.spawn()?;
    let asked = question(&runtime_api);
    let took = began.elapsed();
    process.kill()?;
    process.wait()?;
    let asked = asked?;
    if asked.contains("/runtime/invocation/next") {
        return Ok(took.as_secs_f64() * 1000.0);
    }
    Err(format!("{}: asked for {asked}", program.display()).into())
}

/// Reads the first line of the first request.
fn question(runtime_api: &TcpListener) -> Result<String> {
    let (stream, _) = runtime_api.accept()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}
