//! CORS on every answer: an allowed page can read even a failure, and any other page can read nothing.

use local::events::Event;
use local::fault_injector::Fault;
use local::lambda::{Answer, Options};
use local::test_app::TestApp;
use serde_json::{Value, json};

const APP: &str = "https://app.example";
const OTHER: &str = "https://app.example.evil.example";
const ALLOWED: (&str, &str) = ("CORS_ALLOWED_ORIGINS", "https://app.example/, http://localhost:5173");

const VARY: &str = "origin, accept, accept-language";

async fn start(origins: (&str, &str)) -> TestApp {
    TestApp::start_with(&[origins, ("UPSTREAM_TIMEOUT_MS", "1500")], Options::default()).await
}

fn allowed_origin(answer: &Answer) -> Option<&str> {
    answer.headers.get("access-control-allow-origin").map(String::as_str)
}

/// Sends requests that cause eleven different statuses.
async fn answers(app: &TestApp, origin: &str) -> Vec<Answer> {
    let number = app.number().await;
    let post = |name: &str| Event::post(name).header("origin", origin);
    let signed_in = |name: &str| post(name).bearer(&app.school.token);
    let poll = || signed_in("wpp-qr").json(&json!({"session": number.session})).http_api();
    let force =
        || signed_in("wpp-status").json(&json!({"session": number.session, "force": true})).http_api();
    let mut answers = Vec::new();
    let mut take = async |name: &str, event: Value| answers.push(app.invoke(name, event).await);

    take("wpp-status", signed_in("wpp-status").json(&json!({})).http_api()).await;
    take("wpp-status", signed_in("wpp-status").body("{").http_api()).await;
    take("wpp-qr", post("wpp-qr").http_api()).await;
    take("wpp-qr", signed_in("wpp-qr").json(&json!({"session": "nobody"})).http_api()).await;
    take("wpp-create", Event::get("wpp-create").header("Origin", origin).http_api()).await;
    take("wpp-status", signed_in("wpp-status").body(&"x".repeat(20_000)).http_api()).await;
    app.inject("qr", Fault::Drop);
    take("wpp-qr", poll()).await;
    let busy = |status| Fault::Status { status, body: String::new(), retry_after_s: Some(1) };
    app.inject("qr", busy(429));
    take("wpp-qr", poll()).await;
    app.inject("qr", Fault::status_with(403, r#"{"error":"no"}"#));
    take("wpp-qr", poll()).await;
    app.inject("qr", Fault::StalledBody);
    take("wpp-qr", poll()).await;
    app.clear_faults();
    app.inject("rpc/wpp_find_number", Fault::status_with(401, r#"{"code":"PGRST301"}"#));
    take("wpp-status", force()).await;
    app.clear_faults();
    answers
}

#[tokio::test]
async fn only_an_allowed_page_can_read_answers() {
    let app = start(ALLOWED).await;
    for (origin, expected) in [
        (APP, Some(APP)),
        ("http://localhost:5173", Some("http://localhost:5173")),
        (OTHER, None),
        ("null", None),
        ("https://app.example/", None),
        ("", None),
    ] {
        let answers = answers(&app, origin).await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 400, 401, 404, 405, 413, 502, 503, 409, 504, 500], "{origin}");
        for answer in &answers {
            assert_eq!(allowed_origin(answer), expected, "{origin}: {answer:?}");
            assert_eq!(answer.headers["vary"], VARY);
            assert_eq!(answer.headers["access-control-expose-headers"], "retry-after,x-request-id");
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(answer.headers["content-language"], "en");
            assert_eq!(answer.headers["cache-control"], "no-store");
        }
    }
}

#[tokio::test]
async fn preflight_is_answered_without_token_or_upstream() {
    let app = start(ALLOWED).await;
    for (name, methods) in [("wpp-create", "POST"), ("wpp-qr", "GET,POST"), ("wpp-status", "GET,POST")] {
        for (origin, expected) in [(APP, Some(APP)), (OTHER, None)] {
            let preflight = Event::options(name).header("Origin", origin);
            let preflight = preflight.header("Access-Control-Request-Method", "POST");
            let preflight = preflight.header("Access-Control-Request-Headers", "authorization, content-type");
            for event in [preflight.clone().http_api(), preflight.function_url()] {
                let answer = app.invoke(name, event).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
                assert_eq!(allowed_origin(&answer), expected);
                assert_eq!(answer.headers["access-control-allow-methods"], methods);
                assert_eq!(answer.headers["access-control-allow-headers"], "authorization, content-type");
                assert_eq!(answer.headers["access-control-max-age"], "7200");
                assert_eq!(answer.headers["vary"], VARY);
            }
        }
    }
    assert_eq!(app.calls(), json!({}));
}

async fn assert_any_page_gets(origins: &'static str, expected: Option<&str>) {
    let app = start(("CORS_ALLOWED_ORIGINS", origins)).await;
    for event in
        [Event::options("wpp-qr"), Event::post("wpp-qr"), Event::post("wpp-qr").header("Origin", OTHER)]
    {
        let answer = app.invoke("wpp-qr", event.http_api()).await;
        assert_eq!(allowed_origin(&answer), expected, "{answer:?}");
        assert!(!answer.headers.contains_key("access-control-allow-credentials"));
    }
}

#[tokio::test]
async fn star_origin_allows_any_page() {
    assert_any_page_gets("*", Some("*")).await;
}

#[tokio::test]
async fn empty_origins_allow_no_page() {
    assert_any_page_gets("", None).await;
}
