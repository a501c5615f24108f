//! The platform's HTTP API, each endpoint behind the fault injector.

use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::accounts::Refused;
use super::{Seen, Shared};

const MALFORMED: Refused = (400, "Bad request");
const UNAUTHORISED: Refused = (401, "Unauthorized");
const NO_SUCH_PATH: Refused = (404, "Not found");

/// The longest body that is read, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// An answer: JSON, or nothing at all (204).
type Answer = Result<Option<Value>, Refused>;

type Work = fn(&Shared, &Call) -> Answer;

/// What an endpoint needs of a request.
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
    fn input<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        serde_json::from_slice(&self.body).map_err(|_| MALFORMED)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateInput {
    organization_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenInput {
    api_key: String,
}

#[derive(Deserialize)]
struct StartInput {
    number: String,
}

#[derive(Deserialize)]
struct WebhookInput {
    url: String,
}

/// The endpoints. `unknown` is what the fault injector calls everything else that is asked for.
pub(super) fn routes() -> Router<Arc<Shared>> {
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

fn endpoint(method: MethodFilter, name: &'static str, work: Work) -> MethodRouter<Arc<Shared>> {
    on(method, move |State(shared): State<Arc<Shared>>, call: Call| async move {
        shared.saw(Seen {
            endpoint: name,
            path: call.path.clone(),
            bearer: call.bearer.clone(),
            body: String::from_utf8_lossy(&call.body).into_owned(),
        });
        shared.faults.pass(name, async { answer(work(&shared, &call)) }).await
    })
}

impl FromRequest<Arc<Shared>> for Call {
    type Rejection = Response<Body>;

    async fn from_request(request: Request, state: &Arc<Shared>) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        // Without a match there are no parameters, which this extractor takes for an error.
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

pub(super) fn refusal((status, error): Refused) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(json!({"error": error}))).into_response()
}

fn create(shared: &Shared, call: &Call) -> Answer {
    if call.bearer != shared.secret {
        return Err(UNAUTHORISED);
    }
    let CreateInput { organization_id } = call.input()?;
    if organization_id.is_empty() {
        return Err(MALFORMED);
    }
    shared.accounts().create(&organization_id).map(Some)
}

fn token(shared: &Shared, call: &Call) -> Answer {
    let TokenInput { api_key } = call.input()?;
    shared.accounts().issue_token(&api_key).map(Some)
}

fn status(shared: &Shared, call: &Call) -> Answer {
    shared.accounts().look_at_status(&call.bearer, &call.number).map(Some)
}

fn qr(shared: &Shared, call: &Call) -> Answer {
    shared.accounts().look_at_qr(&call.bearer, &call.number).map(Some)
}

fn start(shared: &Shared, call: &Call) -> Answer {
    let StartInput { number } = call.input()?;
    shared.accounts().start(&call.bearer, &number).map(Some)
}

fn webhook(shared: &Shared, call: &Call) -> Answer {
    let WebhookInput { url } = call.input()?;
    shared.accounts().set_webhook(&call.bearer, &call.number, &url)?;
    Ok(None)
}

fn stop(shared: &Shared, call: &Call) -> Answer {
    shared.accounts().stop(&call.bearer, &call.number)?;
    Ok(None)
}
