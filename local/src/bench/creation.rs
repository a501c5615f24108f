//! What the user of a new number waits for: from the request to `wpp-create` until the page has a QR code. The platform needs some time
//! for it.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::json;

use super::figure::{Figure, Sample, Unit};
use super::linking::advised_pause_ms;
use super::warm::{AWAY_MS, Scene};
use crate::events::Event;
use crate::lambda::Sandbox;
use crate::test_app::TestApp;
use crate::{Result, clock};

/// How long the platform needs from a start to its QR code.
const PLATFORM_MS: f64 = 3_000.0;

/// How often `wpp-create` asks for the QR code: no page should wait longer once the platform has the code.
const POLL_MS: f64 = 1_000.0;

/// Sandboxes of each function that work at once. The first number of each is a cold one's.
const SANDBOXES: usize = 10;
const NUMBERS: usize = 10;

/// Between the first requests of two sandboxes, so that they do not ask at the same moments.
const OFFSET: Duration = Duration::from_millis(310);

/// One new number; all times in milliseconds.
struct Creation {
    /// From the request until `wpp-create` answers.
    answer: f64,
    /// From the request until the page has the QR code.
    qr: f64,
    /// The upstream calls up to the session's start, one after the other, with the time that each took.
    calls: Vec<Call>,
}

impl Creation {
    fn before(&self) -> f64 {
        self.calls.iter().map(|call| call.ms).sum()
    }

    fn after(&self) -> f64 {
        self.qr - self.before() - PLATFORM_MS
    }
}

/// Measures new organizations' first numbers, and where the time goes.
pub async fn measure(scene: &Scene) -> Result<Vec<Figure>> {
    let app = &scene.app;
    app.platform.behave(|behavior| behavior.ms_until_qr = PLATFORM_MS as i64);
    scene.move_upstreams_away();
    app.forget_calls();
    let made = try_join_all((0..SANDBOXES).map(|nth| in_a_sandbox(app, nth))).await?;
    let made: Vec<Creation> = made.into_iter().flatten().collect();
    let requests = app.all_calls() as f64 / made.len() as f64;
    app.clear_faults();
    app.platform.behave(|behavior| behavior.ms_until_qr = 0);

    let sample = |time: fn(&Creation) -> f64| made.iter().map(time).collect::<Sample>();
    let (qr, answer) = (sample(|made| made.qr), sample(|made| made.answer));
    let (before, after) = (sample(Creation::before), sample(Creation::after));
    let calls = made.last().ok_or("no number")?.calls.iter().map(|call| format!("{} {}", call.name, call.ms));
    let calls: Vec<_> = calls.collect();
    let figure = |name: &str, unit, measured| Figure::new(format!("a new number, {name}"), unit, measured);
    Ok(vec![
        figure("request to QR, p50", Unit::Ms, qr.median())
            .note(format!("{qr:.0} ms; {PLATFORM_MS} ms of it are the platform's")),
        figure("request to QR, p99", Unit::Ms, qr.percentile(99)).note(format!("{} numbers", made.len())),
        figure("upstream requests", Unit::Requests, requests).note(format!("{AWAY_MS} ms away")),
        figure("until the session is started", Unit::Ms, before.median()).note(format!(
            "{before:.0} ms, in {} calls; of one number: {}",
            calls.len(),
            calls.join(", ")
        )),
        figure("after the platform has the QR", Unit::Ms, after.median())
            .at_most(POLL_MS)
            .note(format!("{after:.0} ms; wpp-create answers {answer:.0} ms after the request")),
    ])
}

/// Makes some numbers, one after the other, in a new sandbox of each function.
async fn in_a_sandbox(app: &TestApp, nth: usize) -> Result<Vec<Creation>> {
    let (create, qr) = (app.process("wpp-create").await, app.process("wpp-qr").await);
    create.ready().await?;
    qr.ready().await?;
    tokio::time::sleep(OFFSET * u32::try_from(nth)?).await;
    let mut made = Vec::new();
    for _ in 0..NUMBERS {
        made.push(create_one(app, &create, &qr).await?);
    }
    Ok(made)
}

async fn create_one(app: &TestApp, create: &Sandbox, qr: &Sandbox) -> Result<Creation> {
    let school = app.organization("a new school").await?;
    let began = clock::now();
    let elapsed_ms = || began.elapsed().as_secs_f64() * 1000.0;
    let mut answer = create.invoke(school.post("wpp-create", &json!({})).http_api()).await.answered()?;
    let answer_ms = elapsed_ms();
    let session = answer.json["session"].as_str().unwrap_or_default().to_owned();
    while answer.told() != (200, "qr_issued") {
        tokio::time::sleep(Duration::from_millis(advised_pause_ms(&answer)?)).await;
        let event = Event::get("wpp-qr").bearer(&school.token).query("session", &session);
        answer = qr.invoke(event.http_api()).await.answered()?;
    }
    let qr_ms = elapsed_ms();
    Ok(Creation { answer: answer_ms, qr: qr_ms, calls: calls(&create.logs().await) })
}

/// The log's line of a request.
#[derive(Deserialize)]
struct Line {
    calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    name: String,
    ms: f64,
}

/// Returns the calls of the last request in a log, up to the session's start.
fn calls(logs: &str) -> Vec<Call> {
    let last = logs.lines().rev().find_map(|line| serde_json::from_str::<Line>(line).ok());
    let mut calls = last.map(|line| line.calls).unwrap_or_default();
    let start = calls.iter().position(|call| call.name == "start").map_or(0, |start| start + 1);
    calls.truncate(start);
    calls
}
