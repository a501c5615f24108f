use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lambda_http::Context;

use super::*;
use crate::http::auth::testing::{SECRET, Signer};

const PROJECT: &str = "http://127.0.0.1:1";
const PAGE: &str = "https://app.example";

fn app() -> Arc<App> {
    let source = |name: &str| {
        let value = match name {
            "WPP_BASE_URL" | "SUPABASE_URL" => PROJECT,
            "SUPABASE_SERVICE_ROLE_KEY" => "sb_secret_x",
            "SUPABASE_JWT_SECRET" => SECRET,
            "CORS_ALLOWED_ORIGINS" => PAGE,
            _ => return None,
        };
        Some(value.to_owned())
    };
    Arc::new(App::new(Config::read(source, &[]).unwrap()).unwrap())
}

/// A request of a signed-in user.
fn request() -> Request {
    let claims = json!({
        "iss": format!("{PROJECT}/auth/v1"), "aud": "authenticated", "role": "authenticated",
        "sub": "7d9f3b52-0c7e-4f0a-9a51-2f6f0f3c8b11", "exp": clock::now().0 / 1000 + 60,
    });
    let bearer = format!("Bearer {}", Signer::hs256(SECRET.as_bytes()).token(&claims));
    let mut request = Request::new(Body::Empty).with_lambda_context(Context::default());
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(header::AUTHORIZATION, bearer.parse().unwrap());
    request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(PAGE));
    request
}

/// The status and the code of an answer, which has all that every answer has.
fn told(response: &Response<Body>) -> (u16, String) {
    assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], PAGE);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Answer = serde_json::from_slice(response.body()).unwrap();
    (response.status().as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_panic_is_a_500_of_ours_and_the_next_request_is_served() {
    let (app, calls) = (app(), AtomicUsize::new(0));
    let handler = |_: Arc<App>, _: ApiRequest| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            tokio::task::yield_now().await;
            assert!(!first, "canary");
            Ok(json!({"success": true}))
        }
    };
    let panicked = answer(app.clone(), "POST", handler, request()).await;
    assert_eq!(told(&panicked), (500, "internal_error".to_owned()));
    assert!(!format!("{panicked:?}").contains("canary"));
    assert_eq!(told(&answer(app, "POST", handler, request()).await), (200, String::new()));
}

#[tokio::test]
async fn a_panic_before_the_first_await_is_caught_too() {
    let handler = |_: Arc<App>, ask: ApiRequest| {
        assert!(!ask.query.is_empty(), "canary");
        std::future::ready(Ok(json!({})))
    };
    let panicked = answer(app(), "POST", handler, request()).await;
    assert_eq!(told(&panicked), (500, "internal_error".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_is_answered_for() {
    let handler = |_: Arc<App>, _: ApiRequest| std::future::pending();
    let late = answer(app(), "POST", handler, request()).await;
    assert_eq!(told(&late), (504, "deadline_exceeded".to_owned()));
}

#[tokio::test]
async fn a_retry_after_is_whole_seconds_and_at_least_one() {
    for (after, header) in [(Duration::from_millis(300), "1"), (Duration::from_secs(7), "7")] {
        let error = || Error::Platform(crate::platform::PlatformError::Busy(Some(after)));
        let handler = |_: Arc<App>, _: ApiRequest| std::future::ready(Err(error()));
        let busy = answer(app(), "POST", handler, request()).await;
        assert_eq!(told(&busy), (503, "platform_busy".to_owned()));
        assert_eq!(busy.headers()[header::RETRY_AFTER], header);
    }
}

#[tokio::test]
async fn a_handler_and_an_error_speak_the_language_that_was_asked_for() {
    for (selector, tag) in
        [(Some("ru-RU, en;q=0.5"), "ru"), (Some("de, en;q=0.5, ru;q=0.4"), "en"), (None, "en")]
    {
        let asked = || {
            let mut request = request();
            let selector = selector.map(HeaderValue::from_static);
            request.headers_mut().extend(selector.map(|selector| (header::ACCEPT_LANGUAGE, selector)));
            request
        };
        let handler =
            |_: Arc<App>, ask: ApiRequest| std::future::ready(Ok(json!({"language": ask.language.tag()})));
        let good = answer(app(), "POST", handler, asked()).await;
        let failing = |_: Arc<App>, _: ApiRequest| std::future::ready(Err(Error::SessionLost));
        let failed = answer(app(), "POST", failing, asked()).await;
        for response in [&good, &failed] {
            assert_eq!(response.headers()[header::CONTENT_LANGUAGE], tag, "{selector:?}");
            assert_eq!(response.headers()[header::VARY], "Origin, Accept-Language");
        }
        let body = |response: &Response<Body>| serde_json::from_slice::<Answer>(response.body()).unwrap();
        assert_eq!(body(&good)["language"], tag);
        let (failed, russian) = (body(&failed), tag == "ru");
        assert_eq!(failed["hint"].as_str().unwrap().starts_with("Удалите номер"), russian, "{failed}");
        assert_eq!(failed["error"].as_str().unwrap().starts_with("Этот номер"), russian, "{failed}");
    }
}
