//! The platform's HTTP API, each endpoint behind the fault injector.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::accounts::Refusal;
use super::{Seen, Simulator};

const MALFORMED: Refusal = (400, "Bad request");
const UNAUTHORIZED: Refusal = (401, "Unauthorized");
const NO_SUCH_PATH: Refusal = (404, "Not found");

/// The longest body that is read, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// An answer: JSON, or nothing at all (204).
type Answer = Result<Option<Value>, Refusal>;

type Work = fn(&Simulator, &Call) -> Answer;

/// The parts of a request that an endpoint needs.
struct Call {
    /// As it was sent.
    path: String,
    /// The token or secret after `Bearer`; empty without one.
    bearer: String,
    /// The session in the path, decoded; empty without one.
    number: String,
    body: Bytes,
}

impl Call {
    /// Returns a text in the JSON body.
    fn field(&self, name: &str) -> Result<String, Refusal> {
        let body: Value = serde_json::from_slice(&self.body).map_err(|_| MALFORMED)?;
        body[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned).ok_or(MALFORMED)
    }
}

/// Serves the endpoints. The fault injector calls all other requests `unknown`.
pub(super) fn routes() -> Router<Arc<Simulator>> {
    let anything = MethodFilter::GET.or(MethodFilter::POST);
    Router::new()
        .route("/api/integrations/wpp/create", endpoint(MethodFilter::POST, "create", create))
        .route("/auth/token", endpoint(MethodFilter::POST, "token", token))
        .route("/api/accounts/{number}/status", endpoint(MethodFilter::GET, "status", status))
        .route("/api/accounts/{number}/qr", endpoint(MethodFilter::GET, "qr", qr))
        .route("/api/accounts/start", endpoint(MethodFilter::POST, "start", start))
        .route("/internal/session/{session}/webhook", endpoint(MethodFilter::POST, "webhook", webhook))
        .route("/internal/session/{session}/stop", endpoint(MethodFilter::POST, "stop", stop))
        .fallback(endpoint(anything, "unknown", |_, _| Err(NO_SUCH_PATH)))
}

fn endpoint(method: MethodFilter, name: &'static str, work: Work) -> MethodRouter<Arc<Simulator>> {
    on(method, move |State(simulator): State<Arc<Simulator>>, call: Call| async move {
        simulator.saw(Seen {
            endpoint: name,
            path: call.path.clone(),
            bearer: call.bearer.clone(),
            body: String::from_utf8_lossy(&call.body).into_owned(),
        });
        simulator.faults.pass(name, async { answer(work(&simulator, &call)) }).await
    })
}

impl FromRequest<Arc<Simulator>> for Call {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, state: &Arc<Simulator>) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        // Without a match there are no parameters, which this extractor treats as an error.
        let parameters = RawPathParams::from_request_parts(&mut parts, state).await;
        let number = parameters.iter().flatten().map(|(_, value)| value.to_owned()).next();
        let body = to_bytes(body, BODY_LIMIT).await.map_err(|_| refusal(MALFORMED))?;
        Ok(Self {
            path: parts.uri.path().to_owned(),
            bearer: bearer(&parts.headers).unwrap_or_default().to_owned(),
            number: number.unwrap_or_default(),
            body,
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn answer(answer: Answer) -> Response<Body> {
    match answer {
        Ok(Some(body)) => Json(body).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refusal(refused),
    }
}

pub(super) fn refusal((status, error): Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(json!({"error": error}))).into_response()
}

fn create(simulator: &Simulator, call: &Call) -> Answer {
    if call.bearer != simulator.secret() {
        return Err(UNAUTHORIZED);
    }
    simulator.accounts().create(&call.field("organizationId")?).map(Some)
}

fn token(simulator: &Simulator, call: &Call) -> Answer {
    simulator.accounts().issue_token(&call.field("apiKey")?).map(Some)
}

fn status(simulator: &Simulator, call: &Call) -> Answer {
    simulator.accounts().status(&call.bearer, &call.number).map(Some)
}

fn qr(simulator: &Simulator, call: &Call) -> Answer {
    simulator.accounts().qr(&call.bearer, &call.number).map(Some)
}

fn start(simulator: &Simulator, call: &Call) -> Answer {
    simulator.accounts().start(&call.bearer, &call.field("number")?).map(Some)
}

fn webhook(simulator: &Simulator, call: &Call) -> Answer {
    simulator.accounts().set_webhook(&call.bearer, &call.number, &call.field("url")?)?;
    Ok(None)
}

fn stop(simulator: &Simulator, call: &Call) -> Answer {
    simulator.accounts().stop(&call.bearer, &call.number)?;
    Ok(None)
}
