//! From Lambda's event to a handler and back to an answer, the same for all three functions. Every way through it ends in
//! an answer of ours, with CORS and in one envelope: Lambda never sees an error.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;

use crate::App;
use crate::clock;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::auth::AuthError;
use crate::http::event::HttpEvent;
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

/// An answer as both formats of API Gateway take it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    pub(crate) status_code: u16,
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) body: String,
    is_base64_encoded: bool,
    /// Always empty; `cargo lambda watch` reads no answer without it.
    multi_value_headers: BTreeMap<&'static str, String>,
    /// The same, for events of format 2.0: the other format has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<[&'static str; 0]>,
}

/// The body of a 200.
#[derive(Serialize)]
struct Success<A> {
    success: bool,
    #[serde(flatten)]
    answer: A,
}

/// The body of every other answer.
#[derive(Serialize)]
struct Failure<'a> {
    success: bool,
    error: String,
    hint: &'static str,
    code: &'static str,
    retryable: bool,
    request_id: &'a str,
}

/// Answers requests until Lambda ends the process. `methods` lists what the function takes, as `Allow` does.
pub async fn run<H, W, A>(app: App, methods: &'static str, handler: H) -> Result<(), lambda_runtime::Error>
where
    H: Fn(Arc<App>, ApiRequest) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<A, Error>> + Send + 'static,
    A: Serialize + Send,
{
    let app = Arc::new(app);
    lambda_runtime::run_concurrent(service_fn(move |event| {
        let (app, handler) = (app.clone(), handler.clone());
        async move { Ok::<_, Infallible>(answer(app, methods, handler, event).await) }
    }))
    .await
}

/// One request, from event to answer.
pub(crate) async fn answer<H, W, A>(
    app: Arc<App>,
    methods: &'static str,
    handler: H,
    LambdaEvent { payload, context }: LambdaEvent<Value>,
) -> Response
where
    H: Fn(Arc<App>, ApiRequest) -> W,
    W: Future<Output = Result<A, Error>>,
    A: Serialize,
{
    let now = clock::now();
    let deadline = Deadline::of_invocation(context.deadline, now, app.config.request_budget);
    let event = HttpEvent::from(&payload);
    let (method, language) = (event.method.clone(), Language::wanted_by(&event.headers));
    let origin = event.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);

    let mut response = if method == Some(Method::OPTIONS) {
        preflight(methods)
    } else {
        let work = async {
            let Some(method) = &event.method else {
                return Err(Error::BadRequest { field: "event", wrong: say::NOT_HTTP });
            };
            if !methods.split(", ").any(|allowed| allowed == method.as_str()) {
                return Err(Error::MethodNotAllowed(methods));
            }
            let authorization = event.headers.get(header::AUTHORIZATION).map(HeaderValue::to_str).transpose();
            let authorization = authorization.map_err(|_| AuthError::Malformed)?;
            let caller = app.verifier.verify(authorization, now).await?;
            let request = ApiRequest::read(event, caller.user_id, deadline)?;
            handler(app.clone(), request).await
        };
        // What a panic leaves behind is this request's alone: the App holds nothing that could be half-changed.
        let outcome = match deadline.bound(AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Error::Panic),
            Err(_) => Err(Error::DeadlineExceeded),
        };
        log(method.as_ref(), outcome.as_ref().err(), clock::now().0 - now.0, &context.request_id);
        match outcome {
            Ok(answer) => json(200, &Success { success: true, answer }, language),
            Err(error) => failure(&error, &context.request_id, language),
        }
    };
    // tower-http's CorsLayer would want http types on both sides of it: more code than these lines.
    response.cookies = payload["requestContext"]["http"].is_object().then_some([]);
    response.headers.insert("vary", VARY.to_owned());
    response.headers.insert("access-control-expose-headers", EXPOSED_HEADERS.to_owned());
    response.headers.insert("x-request-id", context.request_id);
    if let Some(allowed) = app.config.origins.allow(origin.as_deref()) {
        response.headers.insert("access-control-allow-origin", allowed.to_owned());
    }
    response
}

/// One line for each request; the whole cause of a failure is here and nowhere else.
fn log(method: Option<&Method>, error: Option<&Error>, took_ms: i64, request_id: &str) {
    let method = method.map(Method::as_str);
    let Some(error) = error else {
        return tracing::info!(method, status = 200, took_ms, request_id, "answered");
    };
    let public = error.response();
    let (status, code) = (public.status, public.code);
    if status >= 500 {
        tracing::error!(method, status, code, took_ms, request_id, %error, "failed");
    } else {
        tracing::info!(method, status, code, took_ms, request_id, %error, "refused");
    }
}

fn failure(error: &Error, request_id: &str, language: Language) -> Response {
    let public = error.response();
    let body = Failure {
        success: false,
        error: public.error(language),
        hint: public.hint(language),
        code: public.code,
        retryable: public.retryable,
        request_id,
    };
    let mut response = json(public.status, &body, language);
    if let Some(after) = public.retry_after {
        response.headers.insert("retry-after", after.as_secs().max(1).to_string());
    }
    if let Error::MethodNotAllowed(methods) = error {
        response.headers.insert("allow", format!("{methods}, OPTIONS"));
    }
    response
}

fn json(status_code: u16, body: &impl Serialize, language: Language) -> Response {
    let headers = [
        ("content-type", "application/json"),
        ("content-language", language.tag()),
        ("cache-control", "no-store"),
    ];
    Response {
        status_code,
        headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        body: serde_json::to_string(body).unwrap_or_else(|_| r#"{"success":false}"#.to_owned()),
        ..Response::default()
    }
}

fn preflight(methods: &str) -> Response {
    let headers = [
        ("access-control-allow-methods", format!("{methods}, OPTIONS")),
        ("access-control-allow-headers", ALLOWED_HEADERS.to_owned()),
        ("access-control-max-age", MAX_AGE_S.to_owned()),
    ];
    Response { status_code: 204, headers: headers.into(), ..Response::default() }
}

#[cfg(test)]
mod tests;
