//! The control API, with which a person changes the platform from a terminal.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_http::cors::CorsLayer;

use super::Simulator;
use super::accounts::Refusal;
use super::routes::refusal;
use crate::fault_injector::Fault;

const HELP: &str = r#"A simulated WPP Platform. What you can do to it:

POST   /_sim/scan           {"session": "..."}                     a phone scans the session's QR
POST   /_sim/status         {"session": "...", "status": "..."}    the session says this from now on
GET    /_sim/qr?session=...                                        the code that it shows now
GET    /_sim/counts                                                requests so far, by endpoint
POST   /_sim/faults         {"endpoint": "status", "fault": {"delay": {"ms": 5000}}, "times": 1}
DELETE /_sim/faults                                                all is well again
POST   /_sim/advance        {"seconds": 3600}                      its clock goes ahead
POST   /_sim/forget-tokens                                         as after a restart: every token is refused
POST   /_sim/revoke-key     {"session": "..."}                     the session's key is dead, and its tokens with it

Endpoints: create, token, status, qr, start, webhook, stop, * for all.
Faults: {"status": {"status": 503, "body": "...", "retry_after_s": 2}}, {"body": "..."}, "html", "truncated",
{"huge": {"bytes": 1000000000}}, {"delay": {"ms": 500}}, "no_headers", "stalled_body", "drop", "lost_answer",
{"redirect": "http://..."}; without "times" they last until they are deleted.
"#;

#[derive(Deserialize)]
struct Named {
    session: String,
}

#[derive(Deserialize)]
struct Status {
    session: String,
    status: String,
}

#[derive(Deserialize)]
struct Misbehavior {
    endpoint: String,
    fault: Fault,
    times: Option<u32>,
}

#[derive(Deserialize)]
struct Advance {
    seconds: u64,
}

/// A body is read as JSON with any content type, so that no header has to be typed.
type Outcome = Result<Response<Body>, JsonRejection>;

pub(super) fn routes() -> Router<Arc<Simulator>> {
    Router::new()
        .route("/", get(HELP))
        .route("/_sim/scan", post(scan))
        .route("/_sim/status", post(status))
        .route("/_sim/qr", get(qr))
        .route("/_sim/counts", get(counts))
        .route("/_sim/faults", post(misbehave).delete(behave))
        .route("/_sim/advance", post(advance))
        .route("/_sim/forget-tokens", post(forget_tokens))
        .route("/_sim/revoke-key", post(revoke_key))
        // For the panel of the connect page.
        .layer(CorsLayer::permissive())
}

fn done(result: Result<(), Refusal>) -> Response<Body> {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refusal(refused),
    }
}

async fn scan(State(simulator): State<Arc<Simulator>>, body: Bytes) -> Outcome {
    let Json(Named { session }) = Json::from_bytes(&body)?;
    Ok(done(simulator.scan(&session)))
}

async fn status(State(simulator): State<Arc<Simulator>>, body: Bytes) -> Outcome {
    let Json(Status { session, status }) = Json::from_bytes(&body)?;
    Ok(done(simulator.set_status(&session, &status)))
}

async fn qr(State(simulator): State<Arc<Simulator>>, Query(Named { session }): Query<Named>) -> Json<Value> {
    Json(json!({"qr": simulator.qr_of(&session)}))
}

async fn counts(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    Json(simulator.faults.counts().into_iter().collect())
}

async fn misbehave(State(simulator): State<Arc<Simulator>>, body: Bytes) -> Outcome {
    let Json(Misbehavior { endpoint, fault, times }) = Json::from_bytes(&body)?;
    match times {
        Some(times) => simulator.faults.inject_times(&endpoint, times, fault),
        None => simulator.faults.inject(&endpoint, fault),
    }
    Ok(done(Ok(())))
}

async fn behave(State(simulator): State<Arc<Simulator>>) -> StatusCode {
    simulator.faults.clear();
    StatusCode::NO_CONTENT
}

async fn advance(State(simulator): State<Arc<Simulator>>, body: Bytes) -> Outcome {
    let Json(Advance { seconds }) = Json::from_bytes(&body)?;
    simulator.advance(Duration::from_secs(seconds));
    Ok(done(Ok(())))
}

async fn forget_tokens(State(simulator): State<Arc<Simulator>>) -> StatusCode {
    simulator.forget_tokens();
    StatusCode::NO_CONTENT
}

async fn revoke_key(State(simulator): State<Arc<Simulator>>, body: Bytes) -> Outcome {
    let Json(Named { session }) = Json::from_bytes(&body)?;
    Ok(done(simulator.accounts().revoke_session(&session)))
}
