//! The HTTP edge, the same for all three functions: from Lambda's event to a handler and back to an answer. Every way
//! through it ends in an answer of ours, with CORS and in one envelope: Lambda never sees an error.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use futures_util::FutureExt;
use lambda_http::http::{HeaderValue, Method, StatusCode, header, response};
use lambda_http::tower::ServiceExt;
use lambda_http::{Adapter, Body, LambdaEvent, Request, RequestExt, Response, service_fn};
use serde::Serialize;
use serde_json::json;

use crate::App;
use crate::clock;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::auth::AuthError;
use crate::http::event::{self, Readable};
use crate::http::logs;
use crate::http::request::ApiRequest;
use crate::sentence::{self as say, Language};

/// What supabase-js sends today, what its tracing adds, and our own. `Accept-Language` needs no allowance.
const ALLOWED_HEADERS: &str = "authorization, x-client-info, apikey, content-type, x-retry-count, x-region, \
    traceparent, tracestate, baggage, idempotency-key";

/// What a page may read of an answer, beside the body.
const EXPOSED_HEADERS: &str = "retry-after, x-request-id";

/// How long a browser may keep a preflight's answer, in seconds: Chromium's own limit.
const MAX_AGE_S: &str = "7200";

/// What an answer depends on, beside the request itself.
const VARY: &str = "Origin, Accept-Language";

/// An answer of a handler: 200 with this body, and `Cache-Control: no-store`.
pub type Answer = serde_json::Value;

/// Runs a function until Lambda ends it. `methods` lists what it takes, as `Allow` does; `needed` the variables that this
/// function cannot do without, beside those that none can.
///
/// A configuration that makes no sense ends the process at once, with one line that names the variable.
pub async fn serve<H, W>(methods: &'static str, needed: &[&'static str], handler: H) -> ExitCode
where
    H: Fn(Arc<App>, ApiRequest) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<Answer, Error>> + Send + 'static,
{
    logs::init();
    let app = match Config::from_env(needed).map_err(Into::into).and_then(App::new) {
        Ok(app) => Arc::new(app),
        Err(error) => {
            tracing::error!("configuration: {error}");
            return ExitCode::FAILURE;
        }
    };
    let service = service_fn(move |request: Request| {
        let (app, handler) = (app.clone(), handler.clone());
        async move { Ok::<_, Infallible>(answer(app, methods, handler, request).await) }
    });
    match lambda_runtime::run_concurrent(
        Adapter::from(service)
            .map_request(|event: LambdaEvent<Readable>| LambdaEvent::new(event.payload.0, event.context)),
    )
    .await
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the Lambda runtime ended: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One request, from event to answer.
pub(crate) async fn answer<H, W>(
    app: Arc<App>,
    methods: &'static str,
    handler: H,
    request: Request,
) -> Response<Body>
where
    H: Fn(Arc<App>, ApiRequest) -> W,
    W: Future<Output = Result<Answer, Error>>,
{
    let now = clock::now();
    let context = request.lambda_context_ref();
    let request_id = context.map(|context| context.request_id.clone()).unwrap_or_default();
    let deadline = Deadline::of_invocation(
        context.map_or(0, |context| context.deadline),
        now,
        app.config.request_budget,
    );
    let origin =
        request.headers().get(header::ORIGIN).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let method = request.method().clone();
    let language = Language::wanted_by(request.headers());

    let response = if method == Method::OPTIONS {
        preflight(methods)
    } else {
        let work = handle(app.clone(), methods, handler, request, now, deadline);
        // What a panic leaves behind is this request's alone: the App holds nothing that could be half-changed.
        let outcome = match deadline.bound(AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::Panic),
            Err(_) => Err(Error::DeadlineExceeded),
        };
        log(&method, &outcome, clock::now().0 - now.0, &request_id);
        match outcome {
            Ok(body) => json_response(Response::builder().status(StatusCode::OK), &body, language),
            Err(error) => error_response(&error, &request_id, language),
        }
    };
    finish(response, &app.config, origin.as_deref(), &request_id)
}

async fn handle<H, W>(
    app: Arc<App>,
    methods: &'static str,
    handler: H,
    request: Request,
    now: clock::UnixMs,
    deadline: Deadline,
) -> Result<Answer, Error>
where
    H: Fn(Arc<App>, ApiRequest) -> W,
    W: Future<Output = Result<Answer, Error>>,
{
    if event::is_unreadable(&request) {
        return Err(Error::BadRequest { field: "event", wrong: say::NOT_HTTP });
    }
    if !methods.split(", ").any(|allowed| allowed == request.method().as_str()) {
        return Err(Error::MethodNotAllowed(methods));
    }
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization =
        authorization.map(|value| value.to_str().map_err(|_| AuthError::Malformed)).transpose()?;
    let caller = app.verifier.verify(authorization, now).await?;
    let request = ApiRequest::read(&request, caller.user_id, deadline)?;
    handler(app, request).await
}

/// One line for each request; the whole cause of a failure is here and nowhere else.
fn log(method: &Method, outcome: &Result<Answer, Error>, took_ms: i64, request_id: &str) {
    match outcome {
        Ok(_) => tracing::info!(%method, status = 200, took_ms, request_id, "answered"),
        Err(error) => {
            let public = error.response();
            let (status, code) = (public.status.as_u16(), public.code);
            if public.status.is_server_error() {
                tracing::error!(%method, status, code, took_ms, request_id, %error, "failed");
            } else {
                tracing::info!(%method, status, code, took_ms, request_id, %error, "refused");
            }
        }
    }
}

fn error_response(error: &Error, request_id: &str, language: Language) -> Response<Body> {
    let public = error.response();
    let body = json!({
        "success": false, "error": public.error(language), "hint": public.hint(language), "code": public.code,
        "retryable": public.retryable, "request_id": request_id,
    });
    let mut response = Response::builder().status(public.status);
    if let Some(after) = public.retry_after {
        response = response.header(header::RETRY_AFTER, after.as_secs().max(1));
    }
    if let Error::MethodNotAllowed(methods) = error {
        response = response.header(header::ALLOW, format!("{methods}, OPTIONS"));
    }
    json_response(response, &body, language)
}

fn json_response(response: response::Builder, body: &impl Serialize, language: Language) -> Response<Body> {
    let text = serde_json::to_string(body).unwrap_or_else(|_| r#"{"success":false}"#.to_owned());
    response
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LANGUAGE, language.tag())
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::Text(text))
        .unwrap_or_else(|_| Response::new(Body::Empty))
}

fn preflight(methods: &str) -> Response<Body> {
    let allow = format!("{methods}, OPTIONS");
    Response::builder()
        .status(StatusCode::NO_CONTENT)
        .header(header::ACCESS_CONTROL_ALLOW_METHODS, allow)
        .header(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS)
        .header(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S)
        .body(Body::Empty)
        .unwrap_or_else(|_| Response::new(Body::Empty))
}

/// What every answer carries.
fn finish(
    mut response: Response<Body>,
    config: &Config,
    origin: Option<&str>,
    request_id: &str,
) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static(VARY));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    if let Some(Ok(allowed)) = config.origins.allow(origin).map(HeaderValue::from_str) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
    response
}

#[cfg(test)]
mod tests;
