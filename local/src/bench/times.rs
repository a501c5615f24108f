//! Times of `wpp-qr`, each compared with a yardstick in the same round: one direct call of the platform, or a function that does nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use super::figure::{Figure, Sample, Unit};
use super::machine::processor_ms;
use super::warm::{AWAY_MS, Scene, Warm};
use crate::child::workspace;
use crate::lambda::{Options, Sandbox, binary, lambda_variables};
use crate::{Result, clock, http};

const WARM_UP: usize = 10;
const HOPS: usize = 100;

/// Blocks of requests take turns, so that a busy moment slows both down.
const BLOCKS: usize = 10;
const BLOCK: usize = 200;

const STARTS: usize = 60;

/// Memory placement of a file changes the time by up to a tenth, so each program is started from this many copies.
const COPIES: usize = 12;

/// Compares a warm poll with one direct call of the platform.
pub async fn one_hop(scene: &Scene) -> Result<Vec<Figure>> {
    let settings = scene.app.settings(&scene.waiting).await;
    let token = settings["wppJwtToken"].as_str().ok_or("the number has no token")?;
    let url = format!("{}/api/accounts/{}/qr", scene.app.platform.url(), scene.waiting.session);
    let client = http::client()?;
    scene.move_upstreams_away();
    let (mut direct, mut poll) = (Sample::default(), Sample::default());
    for round in 0..WARM_UP + HOPS {
        let one_call = timed(async {
            let answer = client.get(&url).bearer_auth(token).send().await?;
            Ok(answer.error_for_status()?.bytes().await?)
        });
        let one_call = one_call.await?;
        let one_poll = timed(Warm::Qr.ask(scene.app.sandbox("wpp-qr"), scene)).await?;
        if round >= WARM_UP {
            direct.push(one_call);
            poll.push(one_poll);
        }
    }
    scene.app.clear_faults();
    let name = "wpp-qr, p50 against one call of the platform";
    let note = format!("{poll:.1} ms against {direct:.1} ms, {AWAY_MS} ms away; {HOPS} rounds");
    let ratio = poll.against(&direct).median();
    Ok(vec![Figure::new(name, Unit::Ratio, ratio).at_most(1.15).note(note)])
}

/// Measures how long something takes, in milliseconds.
async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<f64> {
    let began = clock::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

/// Compares the processor time of a warm request, user and system.
pub async fn processor(scene: &Scene) -> Result<Vec<Figure>> {
    let (empty, qr) = (Sandbox::start(&binary("empty")?, &[]).await?, scene.app.sandbox("wpp-qr"));
    let (mut nothing, mut poll) = (Sample::default(), Sample::default());
    for block in 0..=BLOCKS {
        for (sandbox, sample) in [(&empty, &mut nothing), (qr, &mut poll)] {
            let before = processor_ms(sandbox.pid())?;
            for _ in 0..BLOCK {
                let answer = sandbox.invoke(Warm::Qr.event(scene)).await.answered()?;
                if answer.status != 200 {
                    return Err(format!("not 200: {}", answer.body).into());
                }
            }
            // The first block warms up.
            if block > 0 {
                sample.push((processor_ms(sandbox.pid())? - before) / BLOCK as f64);
            }
        }
    }
    let note = format!("{poll:.3}, {nothing:.3} of an empty function; {} requests", BLOCKS * BLOCK);
    let figure = Figure::new("wpp-qr, processor time", Unit::Ms, poll.median());
    Ok(vec![figure.at_most(0.28).note(note)])
}

/// Compares the time from the start of a process to its first question for an invocation.
pub async fn start(scene: &Scene) -> Result<Vec<Figure>> {
    let env = scene.env.clone();
    let (nothing, ours) = spawn_blocking(move || {
        let directory = tempfile::tempdir_in(workspace().join("target"))?;
        let (empty, qr) = (copies("empty", directory.path())?, copies("wpp-qr", directory.path())?);
        let (mut nothing, mut ours) = (Sample::default(), Sample::default());
        for (empty, qr) in empty.iter().zip(&qr).cycle().take(STARTS) {
            nothing.push(started(empty, &[])?);
            ours.push(started(qr, &env)?);
        }
        Result::Ok((nothing, ours))
    })
    .await??;
    let note = format!("{ours:.2} ms against {nothing:.2} ms; {STARTS} starts of {COPIES} copies");
    let ratio = ours.against(&nothing).median();
    let name = "wpp-qr, start against an empty function";
    Ok(vec![Figure::new(name, Unit::Ratio, ratio).at_most(1.15).note(note)])
}

/// Makes copies of a program.
fn copies(program: &str, directory: &Path) -> Result<Vec<PathBuf>> {
    let original = binary(program)?;
    let copy = |number: usize| {
        let copy = directory.join(format!("{program}-{number}"));
        fs::copy(&original, &copy)?;
        Ok(copy)
    };
    (0..COPIES).map(copy).collect()
}

/// Measures how long it takes until the program asks, in milliseconds. Only the kernel is between the two clocks.
fn started(program: &Path, env: &[(String, String)]) -> Result<f64> {
    let runtime_api = TcpListener::bind("127.0.0.1:0")?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(lambda_variables("wpp-qr", runtime_api.local_addr()?, Options::default()))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let began = clock::now();
    let mut process = command.spawn()?;
    let mut question = String::new();
    BufReader::new(runtime_api.accept()?.0).read_line(&mut question)?;
    let took = began.elapsed();
    process.kill()?;
    process.wait()?;
    if question.contains("/runtime/invocation/next") {
        return Ok(took.as_secs_f64() * 1000.0);
    }
    Err(format!("{}: asked for {question}", program.display()).into())
}
