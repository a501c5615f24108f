use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_runtime::Context;
use serde_json::json;

use super::*;
use crate::http::auth::testing::{SECRET, Signer};
use crate::platform::{PlatformError, SessionAuth};
use crate::secret::Secret;
use crate::secrets::Secrets;
use crate::store::NumberSelector;
use crate::upstream::CallError;
use crate::upstream::testing::Server;

const PROJECT: &str = "http://127.0.0.1:1";
const PAGE: &str = "https://app.example";

fn function() -> Arc<Function> {
    function_at(PROJECT)
}

/// With both upstreams at this address.
fn function_at(url: &str) -> Arc<Function> {
    let source = |name: &str| {
        let value = match name {
            "WPP_BASE_URL" | "SUPABASE_URL" => url,
            "SUPABASE_SERVICE_ROLE_KEY" => "sb_secret_x",
            "SUPABASE_JWT_SECRET" => SECRET,
            "CORS_ALLOWED_ORIGINS" => PAGE,
            _ => return None,
        };
        Some(value.to_owned())
    };
    Arc::new(Function::read(source, Secrets::Supabase).unwrap())
}

impl Answer for Value {}
impl Answer for () {}

/// A request of a signed-in user, with these headers too.
fn request_with(more: &[(&str, &str)]) -> LambdaEvent<Value> {
    let claims = json!({
        "iss": format!("{PROJECT}/auth/v1"), "aud": "authenticated", "role": "authenticated",
        "sub": "7d9f3b52-0c7e-4f0a-9a51-2f6f0f3c8b11", "exp": clock::now().0 / 1000 + 60,
    });
    let bearer = format!("Bearer {}", Signer::hs256(SECRET.as_bytes()).token(&claims));
    let mut event = json!({"httpMethod": "POST", "headers": {"authorization": bearer, "origin": PAGE}});
    for (name, value) in more {
        event["headers"][name] = json!(value);
    }
    LambdaEvent::new(event, Context::default())
}

fn request() -> LambdaEvent<Value> {
    request_with(&[])
}

/// The answer alone.
async fn answer<H, W, A>(
    function: Arc<Function>,
    methods: &'static str,
    handler: H,
    event: LambdaEvent<Value>,
) -> Response
where
    H: Fn(Arc<App>, ApiRequest) -> W,
    W: Future<Output = Result<A, Error>>,
    A: Answer,
{
    super::answer(function, methods, handler, event, false).await.0
}

/// The status and the code of an answer, which has all that every answer has.
fn told(response: &Response) -> (u16, String) {
    assert_eq!(response.headers["access-control-allow-origin"], PAGE);
    assert_eq!(response.headers["access-control-expose-headers"], "retry-after, x-request-id");
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    assert!(response.headers.contains_key("x-request-id"));
    let body = body(response);
    assert_eq!(body["success"], response.status_code == 200);
    (response.status_code, body["code"].as_str().unwrap_or_default().to_owned())
}

fn body(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap()
}

#[tokio::test]
async fn a_panic_is_a_500_of_ours_and_the_next_request_is_served() {
    let (function, calls) = (function(), AtomicUsize::new(0));
    let handler = |_: Arc<App>, _: ApiRequest| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            tokio::task::yield_now().await;
            assert!(!first, "canary");
            Ok(json!({}))
        }
    };
    let panicked = answer(function.clone(), "POST", handler, request()).await;
    assert_eq!(told(&panicked), (500, "internal_error".to_owned()));
    assert!(!format!("{panicked:?}").contains("canary"));
    assert_eq!(told(&answer(function, "POST", handler, request()).await), (200, String::new()));
}

#[tokio::test]
async fn a_panic_before_the_first_await_is_caught_too() {
    let handler = |_: Arc<App>, ask: ApiRequest| {
        assert!(!ask.query.is_empty(), "canary");
        std::future::ready(Ok(json!({})))
    };
    let panicked = answer(function(), "POST", handler, request()).await;
    assert_eq!(told(&panicked), (500, "internal_error".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_is_answered_for() {
    let handler = |_: Arc<App>, _: ApiRequest| std::future::pending::<Result<Value, Error>>();
    let late = answer(function(), "POST", handler, request()).await;
    assert_eq!(told(&late), (504, "deadline_exceeded".to_owned()));
}

#[tokio::test]
async fn a_retry_after_is_whole_seconds_and_at_least_one() {
    for (after, header) in [(Duration::from_millis(300), "1"), (Duration::from_secs(7), "7")] {
        let why = PlatformError::Busy(Some(after));
        let error = || Error::from(CallError { call: "qr", why });
        let handler = |_: Arc<App>, _: ApiRequest| std::future::ready(Err::<Value, _>(error()));
        let busy = answer(function(), "POST", handler, request()).await;
        assert_eq!(told(&busy), (503, "platform_busy".to_owned()));
        assert_eq!(busy.headers["retry-after"], header);
    }
}

#[tokio::test]
async fn a_handler_and_an_error_speak_the_language_that_was_asked_for() {
    for (wanted, tag) in
        [(Some("ru-RU, en;q=0.5"), "ru"), (Some("de, en;q=0.5, ru;q=0.4"), "en"), (None, "en")]
    {
        let header: Vec<_> = wanted.map(|wanted| ("accept-language", wanted)).into_iter().collect();
        let asked = || request_with(&header);
        let handler =
            |_: Arc<App>, ask: ApiRequest| std::future::ready(Ok(json!({"language": ask.language.tag()})));
        let good = answer(function(), "POST", handler, asked()).await;
        let lost = CallError { call: "status", why: PlatformError::UnknownSession };
        let failing = |_: Arc<App>, _: ApiRequest| std::future::ready(Err::<Value, Error>(lost.into()));
        let failed = answer(function(), "POST", failing, asked()).await;
        for response in [&good, &failed] {
            assert_eq!(response.headers["content-language"], tag, "{wanted:?}");
            assert_eq!(response.headers["vary"], "Origin, Accept, Accept-Language");
        }
        assert_eq!(body(&good)["language"], tag);
        let (failed, russian) = (body(&failed), tag == "ru");
        assert_eq!(failed["hint"].as_str().unwrap().starts_with("Удалите номер"), russian, "{failed}");
        assert_eq!(failed["error"].as_str().unwrap().starts_with("Этот номер"), russian, "{failed}");
    }
}

/// An answer that is not JSON.
#[derive(Serialize)]
struct Picture {
    #[serde(skip)]
    drawn: Drawn,
}

impl Answer for Picture {
    fn drawn(&self) -> Option<&Drawn> {
        Some(&self.drawn)
    }
}

#[tokio::test]
async fn a_drawing_goes_out_as_text_where_it_is_text_and_else_in_base64_with_what_every_answer_has() {
    for (media_type, bytes, sent, is_base64) in [
        ("image/svg+xml", "<svg/>".as_bytes(), "<svg/>", false),
        ("text/plain; charset=utf-8", "█".as_bytes(), "█", false),
        ("image/png", b"\x89PNG", "iVBORw==", true),
    ] {
        let handler = |_: Arc<App>, _: ApiRequest| {
            std::future::ready(Ok(Picture { drawn: Drawn { media_type, body: bytes.to_owned() } }))
        };
        let drawn = answer(function(), "POST", handler, request()).await;
        assert_eq!((drawn.status_code, drawn.body.as_str(), drawn.is_base64_encoded), (200, sent, is_base64));
        assert_eq!(
            (drawn.headers["content-type"].as_str(), &*drawn.headers["cache-control"]),
            (media_type, "no-store")
        );
        assert_eq!(drawn.headers["access-control-allow-origin"], PAGE);
        assert_eq!(drawn.headers["vary"], "Origin, Accept, Accept-Language");
        assert!(
            drawn.headers.contains_key("x-request-id") && !drawn.headers.contains_key("content-language")
        );
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_token_and_another_method_refused() {
    let handler = |_: Arc<App>, _: ApiRequest| std::future::ready(Ok(json!({})));
    let event = |method: &str, origin: &str| {
        let event = json!({"httpMethod": method, "headers": {"origin": origin}});
        LambdaEvent::new(event, Context::default())
    };
    let preflight = answer(function(), "GET, POST", handler, event("OPTIONS", PAGE)).await;
    assert_eq!((preflight.status_code, preflight.body.as_str()), (204, ""));
    assert_eq!(preflight.headers["access-control-allow-methods"], "GET, POST, OPTIONS");
    assert_eq!(preflight.headers["access-control-allow-origin"], PAGE);
    let stranger = answer(function(), "POST", handler, event("OPTIONS", "https://other.example")).await;
    assert!(!stranger.headers.contains_key("access-control-allow-origin"));
    let other = answer(function(), "POST", handler, event("GET", PAGE)).await;
    assert_eq!(told(&other), (405, "method_not_allowed".to_owned()));
    assert_eq!(other.headers["allow"], "POST, OPTIONS");
    let none = answer(function(), "POST", handler, event("two words", PAGE)).await;
    assert_eq!(told(&none), (400, "invalid_request".to_owned()));
}

/// `cargo lambda watch` reads no answer without them.
#[tokio::test]
async fn an_answer_has_the_fields_of_its_events_format() {
    let handler = |_: Arc<App>, _: ApiRequest| std::future::ready(Ok(()));
    for (event, cookies) in [
        (json!({"httpMethod": "OPTIONS"}), None),
        (json!({"version": "2.0", "requestContext": {"http": {"method": "OPTIONS"}}}), Some(json!([]))),
    ] {
        let event = LambdaEvent::new(event, Context::default());
        let response = json!(answer(function(), "POST", handler, event).await);
        assert_eq!(response["statusCode"], 204);
        assert_eq!(response.get("cookies"), cookies.as_ref());
        assert_eq!(response["multiValueHeaders"], json!({}));
        assert_eq!(response["isBase64Encoded"], false);
    }
}

/// The line that a request leaves.
async fn line(outcome: fn() -> Result<(), Error>, event: LambdaEvent<Value>, is_first: bool) -> Value {
    let handler = |_: Arc<App>, _: ApiRequest| std::future::ready(outcome());
    let (_, line) = super::answer(function(), "POST", handler, event, is_first).await;
    serde_json::from_str(&line.to_string()).unwrap()
}

#[tokio::test]
async fn every_request_leaves_one_line_and_that_of_a_failure_says_why() {
    type Outcome = fn() -> Result<(), Error>;
    let cases: [(Outcome, Value); 4] = [
        (|| Ok(()), json!({"level": "INFO", "outcome": "answered", "status": 200})),
        (
            || Err(Error::NumberNotFound),
            json!({"level": "INFO", "outcome": "refused", "status": 404, "code": "number_not_found",
                "error": "no such number"}),
        ),
        (
            || panic!("canary"),
            json!({"level": "ERROR", "outcome": "failed", "status": 500, "code": "internal_error", "error": "panic"}),
        ),
        (
            || Err(CallError { call: "status", why: PlatformError::TimedOut }.into()),
            json!({"level": "ERROR", "outcome": "failed", "status": 504, "code": "platform_timeout",
                "error": "platform status: timed out"}),
        ),
    ];
    for (outcome, expected) in cases {
        let mut event = request();
        event.context.request_id = "r-1".to_owned();
        let line = line(outcome, event, false).await;
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{line}");
        }
        assert_eq!((line["request_id"].as_str(), line.get("cold_start")), (Some("r-1"), None), "{line}");
        assert!((0..10_000).contains(&line["Took"].as_i64().unwrap()), "{line}");
    }
    let preflight = LambdaEvent::new(json!({"httpMethod": "OPTIONS"}), Context::default());
    let line = line(|| Ok(()), preflight, true).await;
    assert_eq!((&line["status"], &line["cold_start"]), (&json!(204), &json!(1)), "{line}");
}

#[tokio::test]
async fn a_trace_goes_on_to_both_upstreams_and_nothing_else_of_the_callers_does() {
    let server = Server::start("").await;
    server.says_to("", 500, "");
    let handler = async |app: Arc<App>, ask: ApiRequest| {
        let _ = app
            .platform
            .status(SessionAuth { session: "4".to_owned(), jwt: Secret::new("t") }, ask.deadline)
            .await;
        let _ = app.store.find(ask.user_id, &NumberSelector::default(), ask.deadline).await;
        Ok(json!({}))
    };
    let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut event = request_with(&[
        ("traceparent", traceparent),
        ("tracestate", "canary"),
        ("baggage", "canary"),
        ("x-amzn-trace-id", "canary"),
        ("x-forwarded-for", "canary"),
    ]);
    event.context.xray_trace_id = Some(xray.to_owned());
    let (_, line) = super::answer(function_at(&server.url), "POST", handler, event, false).await;
    let heard = server.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    for request in heard {
        assert!(request.contains(&format!("x-amzn-trace-id: {xray}\r\n")), "{request}");
        assert!(request.contains(&format!("traceparent: {traceparent}\r\n")), "{request}");
        assert!(!request.contains("canary"), "{request}");
    }
    let line: Value = serde_json::from_str(&line.to_string()).unwrap();
    assert_eq!(line["trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
    let calls = line["calls"].as_array().unwrap().iter();
    let mut calls: Vec<_> = calls.map(|call| (call["name"].as_str().unwrap(), &call["status"])).collect();
    calls.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(calls, [("status", &json!(500)), ("wpp_find_number", &json!(500))]);
}
