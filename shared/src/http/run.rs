//! From Lambda's event to a handler and back to an answer, the same for all three functions. Every way through it ends in
//! an answer of ours, with CORS and in one envelope: Lambda never sees an error.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::env;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use http::{HeaderValue, Method, header};
use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;

use crate::clock;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::auth::AuthError;
use crate::http::event::HttpEvent;
use crate::http::logs;
use crate::http::logs::line::{Line, Request};
use crate::http::request::ApiRequest;
use crate::record::Record;
use crate::record::trace::Trace;
use crate::sentence::{self as say, Language};
use crate::{App, Function};

/// What supabase-js sends today, what its tracing adds, and our own. `Accept-Language` needs no allowance.
const ALLOWED_HEADERS: &str = "authorization, x-client-info, apikey, content-type, x-retry-count, x-region, \
    traceparent, tracestate, baggage";

/// What a page may read of an answer, beside the body.
const EXPOSED_HEADERS: &str = "retry-after, x-request-id";

/// How long a browser may keep a preflight's answer, in seconds: Chromium's own limit.
const MAX_AGE_S: &str = "7200";

/// What an answer depends on, beside the request itself.
const VARY: &str = "Origin, Accept, Accept-Language";

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

/// What a handler answers: the fields of the JSON in a 200.
pub trait Answer: Serialize {
    /// What the 200 has in the place of JSON, where the request wants it so.
    fn drawn(&self) -> Option<&Drawn> {
        None
    }
}

/// A body that is not JSON.
pub struct Drawn {
    /// Its type.
    pub media_type: &'static str,
    /// Text goes out as text, and all else in base64.
    pub body: Vec<u8>,
}

/// The body of a 200.
#[derive(Serialize)]
struct Success<'a, A> {
    success: bool,
    #[serde(flatten)]
    answer: &'a A,
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

/// For a person who starts the program without Lambda.
const HOW_TO_RUN: &str = "This program is an AWS Lambda function, which Lambda starts. To run it on this machine, use \
    `make dev` (all three functions and the systems around them) or `cargo lambda watch`.";

/// All that a function's `main` does: it starts, and answers requests until Lambda ends the process. `methods` lists what the
/// function takes, as `Allow` does.
pub async fn main<H, W, A>(
    function: Result<Function, lambda_runtime::Error>,
    methods: &'static str,
    handler: H,
) -> ExitCode
where
    H: Fn(Arc<App>, ApiRequest) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = Result<A, Error>> + Send + 'static,
    A: Answer + Send,
{
    if env::var_os("AWS_LAMBDA_RUNTIME_API").is_none_or(|address| address.is_empty()) {
        eprintln!("{HOW_TO_RUN}");
        return ExitCode::FAILURE;
    }
    logs::init();
    let served = async {
        let function = Arc::new(function?);
        tokio::spawn(read_secrets(function.clone()));
        let is_cold = Arc::new(AtomicBool::new(true));
        lambda_runtime::run_concurrent(service_fn(move |event| {
            let (function, handler) = (function.clone(), handler.clone());
            let is_first = is_cold.swap(false, Ordering::Relaxed);
            async move {
                let (response, line) = answer(function, methods, handler, event, is_first).await;
                logs::write(&line);
                Ok::<_, Infallible>(response)
            }
        }))
        .await
    };
    logs::exit_code(served.await)
}

/// Reads the secrets while the function goes on to its first request.
async fn read_secrets(function: Arc<Function>) {
    if let Err(error) = function.secrets.read_early(clock::now()).await {
        tracing::warn!(%error, "the secrets could not be read before the first request");
    }
}

/// One request, from event to answer, and the line that it leaves in the log.
pub(crate) async fn answer<H, W, A>(
    function: Arc<Function>,
    methods: &'static str,
    handler: H,
    LambdaEvent { payload, context }: LambdaEvent<Value>,
    is_first: bool,
) -> (Response, String)
where
    H: Fn(Arc<App>, ApiRequest) -> W,
    W: Future<Output = Result<A, Error>>,
    A: Answer,
{
    let now = clock::now();
    let deadline = Deadline::of_invocation(context.deadline, now, function.config.request_budget);
    let event = HttpEvent::from(&payload);
    let language = Language::wanted_by(&event.headers);
    let origin = event.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
    let trace = Trace::of(context.xray_trace_id.as_deref(), &event.headers);

    // In a box, since whatever wraps it below would move its many states about.
    let work = Box::pin(async {
        let Some(method) = &event.method else {
            return Err(Error::BadRequest { field: "event", wrong: say::NOT_HTTP });
        };
        if method == Method::OPTIONS {
            return Ok(None);
        }
        if !methods.split(", ").any(|allowed| allowed == method.as_str()) {
            return Err(Error::MethodNotAllowed(methods));
        }
        let authorization = event.headers.get(header::AUTHORIZATION).map(HeaderValue::to_str).transpose();
        let authorization = authorization.map_err(|_| AuthError::Malformed)?;
        let (event, handler) = (&event, &handler);
        let serve = |app: Arc<App>| async move {
            let caller = app.verifier.verify(authorization, now).await?;
            handler(app, ApiRequest::read(event, caller.user_id, deadline)?).await
        };
        function.serve(now, deadline, serve).await.map(Some)
    });
    // What a panic leaves behind is this request's alone: the App holds nothing that could be half-changed.
    let work = deadline.bound(AssertUnwindSafe(work).catch_unwind());
    let (outcome, record) = Record::new(context.request_id.clone(), trace).keep(work).await;
    let outcome = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Error::Panic),
        Err(_) => Err(Error::DeadlineExceeded),
    };
    let mut response = match &outcome {
        Ok(None) => preflight(methods),
        Ok(Some(answer)) => success(answer, language),
        Err(error) => failure(error, &context.request_id, language),
    };
    let name = context.env_config.function_name.clone();
    let request = Request { function: name, began: now, ended: clock::now(), is_first };
    let line = Line::text(request, record, outcome.as_ref().map(|_| response.status_code));

    // tower-http's CorsLayer would want http types on both sides of it: more code than these lines.
    response.cookies = payload["requestContext"]["http"].is_object().then_some([]);
    response.headers.insert("vary", VARY.to_owned());
    response.headers.insert("access-control-expose-headers", EXPOSED_HEADERS.to_owned());
    response.headers.insert("x-request-id", context.request_id);
    if let Some(allowed) = function.config.origins.allow(origin.as_deref()) {
        response.headers.insert("access-control-allow-origin", allowed.to_owned());
    }
    (response, line)
}

fn success(answer: &impl Answer, language: Language) -> Response {
    let Some(Drawn { media_type, body }) = answer.drawn() else {
        return json(200, &Success { success: true, answer }, language);
    };
    let headers = [("content-type", *media_type), ("cache-control", "no-store")];
    let text = str::from_utf8(body);
    Response {
        status_code: 200,
        headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        is_base64_encoded: text.is_err(),
        body: text.map_or_else(|_| STANDARD.encode(body), str::to_owned),
        ..Response::default()
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
