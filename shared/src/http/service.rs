//! A function as Lambda calls it. Every HTTP request gets an answer with CORS headers, as JSON in one envelope unless it is an
//! image, and every request except a browser's preflight leaves one line in the log. No event is an error for Lambda.

use std::convert::Infallible;
use std::env;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, ORIGIN, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Response};
use lambda_http::request::LambdaRequest;
use lambda_http::tower::{Layer, ServiceExt};
use lambda_http::{Adapter, Body, Context, Request, RequestExt};
use lambda_runtime::{LambdaEvent, service_fn};
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::clock::{self, UnixMs};
use crate::config::Origins;
use crate::deadline::Deadline;
use crate::error::{AuthError, Error};
use crate::http::accept::ImageFormat;
use crate::http::event::{self, Malformed};
use crate::http::logs::{
    self,
    line::{Line, RequestFacts},
};
use crate::http::request::{self, RequestContext};
use crate::http::response::{self, ApiResponse, Image};
use crate::messages::{self as say, Language};
use crate::request_log::RequestLog;
use crate::{App, Function};

#[cfg(test)]
mod tests;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a browser may cache a preflight: Chromium's own limit.
const PREFLIGHT_TTL: Duration = Duration::from_secs(7200);

/// The answer to an event that is not an HTTP request, such as a warm-up ping.
const NOT_HTTP: &str = r#"{"ok":false}"#;

/// What a person sees who starts the program without Lambda.
const HOW_TO_RUN: &str = "This program is an AWS Lambda function, which Lambda starts. To run it on this machine, use \
    `make dev` (all three functions and the systems around them) or `cargo lambda watch`.";

/// A handler: an `async fn(&App, &RequestContext, R) -> Result<T, Error>`.
pub trait Handler<'a, R, T>: Copy + Send + Sync + 'static {
    /// What the handler returns.
    type Future: Future<Output = Result<T, Error>> + Send + 'a;

    /// Calls it.
    fn call(self, app: &'a App, context: &'a RequestContext, request: R) -> Self::Future;
}

impl<'a, H, W, R, T> Handler<'a, R, T> for H
where
    H: Fn(&'a App, &'a RequestContext, R) -> W + Copy + Send + Sync + 'static,
    W: Future<Output = Result<T, Error>> + Send + 'a,
{
    type Future = W;

    fn call(self, app: &'a App, context: &'a RequestContext, request: R) -> W {
        self(app, context, request)
    }
}

/// Serves requests until Lambda ends the process. `methods` are those that the function answers; others get a 405.
pub async fn run<H, R, T>(
    function: Result<Function, lambda_runtime::Error>,
    methods: &'static [Method],
    handler: H,
) -> ExitCode
where
    H: for<'a> Handler<'a, R, T>,
    R: DeserializeOwned + Send + 'static,
    T: ApiResponse + Send + 'static,
{
    if env::var_os("AWS_LAMBDA_RUNTIME_API").is_none_or(|address| address.is_empty()) {
        eprintln!("{HOW_TO_RUN}");
        return ExitCode::FAILURE;
    }
    logs::init();
    let served = async {
        let function = Arc::new(function?);
        tokio::spawn(read_secrets(function.clone()));
        let service = Service::new(function, methods, handler);
        lambda_runtime::run_concurrent(service_fn(move |event| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.answer(event).await) }
        }))
        .await
    };
    // Boxed: moving this large future on the stack would cost a start more than the allocation.
    logs::exit_code(Box::pin(served).await)
}

/// Reads the secrets while the function gets ready for its first request.
async fn read_secrets(function: Arc<Function>) {
    if let Err(error) = function.secrets.read_early(clock::now()).await {
        tracing::warn!(%error, "the secrets could not be read before the first request");
    }
}

/// One function with its handler. A clone shares all but the CORS headers.
#[derive(Clone)]
pub(crate) struct Service<H> {
    function: Arc<Function>,
    methods: &'static [Method],
    handler: H,
    cors: CorsLayer,
    is_cold: Arc<AtomicBool>,
}

impl<H> Service<H> {
    pub(crate) fn new(function: Arc<Function>, methods: &'static [Method], handler: H) -> Self {
        let cors = cors(&function.config.origins, methods);
        Self { function, methods, handler, cors, is_cold: Arc::new(AtomicBool::new(true)) }
    }

    /// Answers one event of Lambda.
    pub(crate) async fn answer<R, T>(&self, event: LambdaEvent<Box<RawValue>>) -> Box<RawValue>
    where
        H: for<'a> Handler<'a, R, T>,
        R: DeserializeOwned + Send + 'static,
        T: ApiResponse + Send + 'static,
    {
        let LambdaEvent { payload, context } = event;
        let Some((request, malformed)) = event::read(&payload) else {
            tracing::info!("an event that is not an HTTP request");
            return RawValue::from_string(NOT_HTTP.to_owned()).unwrap_or_default();
        };
        let response = self.respond(request, malformed, context.clone());
        if let Ok(response) = AssertUnwindSafe(response).catch_unwind().await {
            return response;
        }
        // The conversion panicked on something that `event::read` let through.
        let Some(request) = event::stand_in(&payload) else { return Box::default() };
        self.respond(request, Some("event"), context).await
    }

    async fn respond<R, T>(
        &self,
        request: LambdaRequest,
        malformed: Malformed,
        context: Context,
    ) -> Box<RawValue>
    where
        H: for<'a> Handler<'a, R, T>,
        R: DeserializeOwned + Send + 'static,
        T: ApiResponse + Send + 'static,
    {
        let service = self.clone();
        let handle = service_fn(move |request: Request| service.clone().handle(request, malformed));
        let adapter = Adapter::from(self.cors.layer(handle));
        let Ok(response) = adapter.oneshot(LambdaEvent { payload: request, context }).await;
        to_raw_value(&response).unwrap_or_default()
    }

    /// Answers one request, and writes its line to the log.
    async fn handle<R, T>(self, request: Request, malformed: Malformed) -> Result<Response<Body>, Infallible>
    where
        H: for<'a> Handler<'a, R, T>,
        R: DeserializeOwned + Send + 'static,
        T: ApiResponse + Send + 'static,
    {
        let (began_at, context) = (clock::now(), request.lambda_context());
        let deadline =
            Deadline::of_invocation(context.deadline, began_at, self.function.config.request_budget);
        let language = Language::wanted_by(request.headers());
        let log = RequestLog::default();
        // Boxed for the same reason as in `run`. A panic leaves nothing half-changed: what outlives the request is changed under
        // locks that a panic does not poison.
        let work = Box::pin(self.serve(&request, malformed, began_at, deadline));
        let work = deadline.bound(AssertUnwindSafe(work).catch_unwind());
        let served = match log.clone().scope(work).await {
            Ok(Ok(served)) => served,
            Ok(Err(_)) => Err(Error::Panic),
            Err(_) => Err(Error::DeadlineExceeded),
        };
        let facts = RequestFacts {
            function: context.env_config.function_name.clone(),
            request_id: context.request_id.clone(),
            trace_id: context.xray_trace_id.as_deref().and_then(trace_id),
            began_at,
            ended_at: clock::now(),
            is_first: self.is_cold.swap(false, Ordering::Relaxed),
        };
        let outcome = served.as_ref().map(|served| served.answer.state());
        logs::write(&Line::text(facts, log.notes(), outcome));
        let mut response = match served {
            Ok(Served { image: Some(image), .. }) => response::image(image),
            Ok(Served { answer, .. }) => response::success(&answer, language),
            Err(error) => response::failure(&error, &context.request_id, language),
        };
        if let Ok(request_id) = HeaderValue::from_str(&context.request_id) {
            response.headers_mut().insert(REQUEST_ID, request_id);
        }
        Ok(response)
    }

    async fn serve<R, T>(
        &self,
        request: &Request,
        malformed: Malformed,
        now: UnixMs,
        deadline: Deadline,
    ) -> Result<Served<T>, Error>
    where
        H: for<'a> Handler<'a, R, T>,
        R: DeserializeOwned + Send + 'static,
        T: ApiResponse + Send + 'static,
    {
        if let Some(part) = malformed {
            return Err(Error::bad_request(part, say::MALFORMED));
        }
        if !self.methods.contains(request.method()) {
            return Err(Error::MethodNotAllowed(self.methods));
        }
        let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::to_str).transpose();
        let authorization = authorization.map_err(|_| AuthError::Malformed)?;
        let answer = self.function.serve(now, deadline, async |app: Arc<App>| {
            let user_id = app.verifier.verify(authorization, now).await?.user_id;
            let context = RequestContext {
                user_id,
                deadline,
                language: Language::wanted_by(request.headers()),
                qr_image: ImageFormat::wanted_by(request.headers()),
            };
            let answer = self.handler.call(&app, &context, request::read(request)?).await?;
            let image = context.qr_image.and_then(|form| answer.image(form)).transpose()?;
            Ok(Served { answer, image })
        });
        answer.await
    }
}

/// A handler's answer, and the image that is sent instead of it if the request prefers one.
struct Served<T> {
    answer: T,
    image: Option<Image>,
}

/// Returns the id of an X-Ray trace, the `Root` of `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`.
fn trace_id(header: &str) -> Option<String> {
    header.split(';').find_map(|field| field.trim().strip_prefix("Root=")).map(str::to_owned)
}

/// Lets pages of the configured origins read the answers. Behind an HTTP API the CORS settings in `template.yaml` replace these.
fn cors(origins: &Origins, methods: &[Method]) -> CorsLayer {
    let origins = match origins {
        Origins::Any => AllowOrigin::any(),
        Origins::Only(origins) => {
            AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        }
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods(methods.to_vec())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([RETRY_AFTER, REQUEST_ID])
        .max_age(PREFLIGHT_TTL)
        .vary([ORIGIN, ACCEPT, ACCEPT_LANGUAGE])
}
