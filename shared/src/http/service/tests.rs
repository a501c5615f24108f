use lambda_http::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;
use crate::http::auth::testing::{SECRET, Signer};
use crate::number::snapshot::State;
use crate::secrets::NeededSecrets;
use crate::upstream::CallError;
use crate::wpp::PlatformError;

const PROJECT: &str = "http://127.0.0.1:1";
const PAGE: &str = "https://app.example";

/// What the test handler does, chosen by its request.
#[derive(Deserialize)]
struct Wish {
    #[serde(default)]
    wish: String,
}

#[derive(Serialize)]
struct Told {
    language: &'static str,
    #[serde(skip)]
    image: Option<(&'static str, &'static [u8])>,
}

impl ApiResponse for Told {
    fn state(&self) -> State {
        State::Connected
    }

    fn image(&self, _: ImageFormat) -> Option<Result<Image, Error>> {
        self.image.map(|(media_type, body)| Ok(Image { media_type, body: body.to_owned() }))
    }
}

async fn handler(_: &App, context: &RequestContext, request: Wish) -> Result<Told, Error> {
    let platform = |why| Err(CallError { call: "qr", why }.into());
    let told = Told { language: context.language.tag(), image: None };
    tokio::task::yield_now().await;
    match request.wish.as_str() {
        "panic" => panic!("canary"),
        "hang" => std::future::pending().await,
        "busy" => platform(PlatformError::Busy(Some(Duration::from_millis(300)))),
        "busy for 7 s" => platform(PlatformError::Busy(Some(Duration::from_secs(7)))),
        "lost" => platform(PlatformError::UnknownSession),
        "svg" => Ok(Told { image: Some(("image/svg+xml", b"<svg/>")), ..told }),
        "text" => Ok(Told { image: Some(("text/plain; charset=utf-8", "█".as_bytes())), ..told }),
        "png" => Ok(Told { image: Some(("image/png", b"\x89PNG")), ..told }),
        _ => Ok(told),
    }
}

/// Panics before its first await.
fn panicking(_: &App, _: &RequestContext, _: Wish) -> std::future::Ready<Result<Told, Error>> {
    panic!("canary")
}

fn function(origins: &str) -> Arc<Function> {
    let source = |name: &str| {
        let value = match name {
            "WPP_BASE_URL" | "SUPABASE_URL" => PROJECT,
            "SUPABASE_SERVICE_ROLE_KEY" => "sb_secret_x",
            "SUPABASE_JWT_SECRET" => SECRET,
            "CORS_ALLOWED_ORIGINS" => origins,
            _ => return None,
        };
        Some(value.to_owned())
    };
    Arc::new(Function::read(source, NeededSecrets::Supabase).unwrap())
}

/// Returns a signed-in user's request.
fn request(wish: &str) -> Value {
    let claims = json!({
        "iss": format!("{PROJECT}/auth/v1"), "aud": "authenticated", "role": "authenticated",
        "sub": "7d9f3b52-0c7e-4f0a-9a51-2f6f0f3c8b11", "exp": clock::now().0 / 1000 + 60,
    });
    let bearer = format!("Bearer {}", Signer::hs256(SECRET.as_bytes()).token(&claims));
    let body = json!({"wish": wish}).to_string();
    let headers = json!({"authorization": bearer, "origin": PAGE});
    json!({"version": "2.0", "rawPath": "/", "headers": headers, "body": body,
        "requestContext": {"http": {"method": "POST"}}})
}

fn with(mut event: Value, header: &str, value: &str) -> Value {
    event["headers"][header] = json!(value);
    event
}

fn of_method(method: &str) -> Value {
    let mut event = with(json!({"version": "2.0", "rawPath": "/", "headers": {}}), "origin", PAGE);
    event["requestContext"] = json!({"http": {"method": method}});
    event
}

async fn answer_of<H, R, T>(origins: &str, methods: &'static [Method], handler: H, event: Value) -> Value
where
    H: for<'a> Handler<'a, R, T>,
    R: DeserializeOwned + Send + 'static,
    T: ApiResponse + Send + 'static,
{
    let mut context = Context::default();
    context.request_id = "r-1".to_owned();
    let event = LambdaEvent::new(to_raw_value(&event).unwrap(), context);
    let answer = Service::new(function(origins), methods, handler).answer(event).await;
    serde_json::from_str(answer.get()).unwrap()
}

async fn answer(event: Value) -> Value {
    answer_of(PAGE, &[Method::POST], handler, event).await
}

/// Returns the status and the code of an answer. Asserts that it has everything that every answer must have.
fn told(answer: &Value) -> (u64, String) {
    let headers = &answer["headers"];
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["access-control-expose-headers"], "retry-after,x-request-id");
    assert_eq!(headers["vary"], "origin, accept, accept-language");
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-request-id"], "r-1");
    let (body, status) = (body(answer), answer["statusCode"].as_u64().unwrap());
    assert_eq!(body["success"], status == 200);
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_panic_is_a_500_without_its_message() {
    for panicked in
        [answer(request("panic")).await, answer_of(PAGE, &[Method::POST], panicking, request("")).await]
    {
        assert_eq!(told(&panicked), (500, "internal_error".to_owned()));
        assert!(!panicked.to_string().contains("canary"), "{panicked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_a_504() {
    assert_eq!(told(&answer(request("hang")).await), (504, "deadline_exceeded".to_owned()));
}

#[tokio::test]
async fn retry_after_is_whole_seconds_from_one() {
    for (wish, header) in [("busy", "1"), ("busy for 7 s", "7")] {
        let busy = answer(request(wish)).await;
        assert_eq!(told(&busy), (503, "platform_busy".to_owned()));
        assert_eq!(busy["headers"]["retry-after"], header);
    }
}

#[tokio::test]
async fn answer_is_in_the_requested_language() {
    for (wanted, tag) in [("ru-RU, en;q=0.5", "ru"), ("de, en;q=0.5, ru;q=0.4", "en"), ("", "en")] {
        let good = answer(with(request(""), "accept-language", wanted)).await;
        let failed = answer(with(request("lost"), "accept-language", wanted)).await;
        for answer in [&good, &failed] {
            assert_eq!(answer["headers"]["content-language"], tag, "{wanted:?}");
        }
        assert_eq!(body(&good)["language"], tag);
        let error = body(&failed)["error"].as_str().unwrap().to_owned();
        assert_eq!(error.starts_with("Этот номер"), tag == "ru", "{error}");
    }
}

#[tokio::test]
async fn an_image_is_text_or_base64() {
    for (wish, media_type, sent, is_base64) in [
        ("svg", "image/svg+xml", "<svg/>", false),
        ("text", "text/plain; charset=utf-8", "█", false),
        ("png", "image/png", "iVBORw==", true),
    ] {
        let image = answer(with(request(wish), "accept", "image/png")).await;
        assert_eq!((&image["statusCode"], &image["body"]), (&json!(200), &json!(sent)), "{wish}");
        assert_eq!(image["isBase64Encoded"], is_base64, "{wish}");
        let headers = &image["headers"];
        assert_eq!(
            (&headers["content-type"], &headers["cache-control"]),
            (&json!(media_type), &json!("no-store"))
        );
        assert_eq!(
            (&headers["access-control-allow-origin"], &headers["x-request-id"]),
            (&json!(PAGE), &json!("r-1"))
        );
    }
}

#[tokio::test]
async fn a_preflight_needs_no_token() {
    let methods = &[Method::GET, Method::POST];
    let event = with(of_method("OPTIONS"), "access-control-request-headers", "authorization,x-new");
    let preflight = answer_of(PAGE, methods, handler, event).await;
    let headers = &preflight["headers"];
    assert_eq!(preflight["statusCode"], 200);
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["access-control-allow-methods"], "GET,POST");
    assert_eq!(headers["access-control-allow-headers"], "authorization,x-new");
    assert_eq!(headers["access-control-max-age"], "7200");
}

#[tokio::test]
async fn another_origin_gets_no_cors_header() {
    let stranger = with(of_method("OPTIONS"), "origin", "https://other.example");
    let stranger = answer(stranger).await;
    assert_eq!(stranger["headers"].get("access-control-allow-origin"), None);
    let any = answer_of("*", &[Method::POST], handler, of_method("OPTIONS")).await;
    assert_eq!(any["headers"]["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn another_method_is_a_405_that_names_the_right_one() {
    let other = answer(of_method("GET")).await;
    assert_eq!(told(&other), (405, "method_not_allowed".to_owned()));
    assert_eq!(other["headers"]["allow"], "POST, OPTIONS");
}

#[tokio::test]
async fn a_request_without_a_token_is_a_401() {
    assert_eq!(told(&answer(of_method("POST")).await).0, 401);
}

#[tokio::test]
async fn a_malformed_part_is_a_400_that_names_it() {
    let mut event = request("");
    event["rawQueryString"] = json!("session=a<b");
    let refused = answer(event).await;
    assert_eq!(told(&refused), (400, "invalid_request".to_owned()));
    assert!(body(&refused)["error"].as_str().unwrap().contains("query"), "{refused}");
}

#[tokio::test]
async fn an_event_that_is_not_http_gets_a_plain_answer() {
    for event in [json!({}), json!(null), json!({"Records": []}), json!("ping")] {
        assert_eq!(answer(event).await, json!({"ok": false}));
    }
}

#[test]
fn trace_id_is_the_root_of_the_header() {
    for (header, id) in [
        ("Root=1-5759e988-bd86;Parent=53995c3f;Sampled=1", Some("1-5759e988-bd86")),
        ("Parent=53995c3f; Root=1-5759e988-bd86", Some("1-5759e988-bd86")),
        ("Parent=53995c3f", None),
    ] {
        assert_eq!(trace_id(header).as_deref(), id, "{header}");
    }
}
