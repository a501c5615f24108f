//! The three functions behind plain HTTP, as API Gateway serves them, for programs that do not send events.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::FUNCTIONS;
use crate::Result;
use crate::events::Event;
use crate::lambda::Answer;
use crate::server::Server;
use crate::test_app::TestApp;

/// Serves the functions at `/functions/v1/<name>`, on a free port.
pub async fn serve(app: Arc<TestApp>) -> Result<Server> {
    let mut router = Router::new();
    for name in FUNCTIONS {
        let answer = move |State(app), request| answer(app, name, request);
        router = router.route(&format!("/functions/v1/{name}"), any(answer));
    }
    Server::start(0, router.with_state(app)).await
}

async fn answer(app: Arc<TestApp>, name: &'static str, request: Request) -> Response<Body> {
    let Ok(event) = event(name, request).await else { return StatusCode::BAD_REQUEST.into_response() };
    match app.sandbox(name).invoke(event).await.answered().and_then(response) {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn event(name: &str, request: Request) -> Result<Value> {
    let (parts, body) = request.into_parts();
    let mut event = Event::new(parts.method.as_str(), name);
    for (name, value) in &parts.headers {
        event = event.header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    let body = to_bytes(body, usize::MAX).await?;
    event = match str::from_utf8(&body) {
        Ok("") => event,
        Ok(text) => event.body(text),
        Err(_) => event.base64_body(&body),
    };
    let mut event = event.http_api();
    // Passed on unchanged, even if it is malformed.
    event["rawQueryString"] = parts.uri.query().unwrap_or_default().into();
    Ok(event)
}

fn response(answer: Answer) -> Result<Response<Body>> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let body = match answer.raw["body"].as_str() {
        Some(image) if answer.raw["isBase64Encoded"] == true => STANDARD.decode(image)?,
        _ => answer.body.into(),
    };
    Ok(response.body(body.into())?)
}
