//! Properties of requests from callers and from the gateway.

use std::sync::Arc;

use http::Method;
use lambda_http::Context;
use lambda_runtime::LambdaEvent;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

use super::*;
use crate::error::Error;
use crate::http::request::{self, RequestContext, SessionId};
use crate::http::response::ApiResponse;
use crate::http::service::Service;
use crate::number::snapshot::State;
use crate::secrets::NeededSecrets;
use crate::wpp::is_session;
use crate::{App, Function};

fn event() -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/functions/v1/wpp-qr", "rawQueryString": "session=1&x=%20",
        "headers": {"authorization": "Bearer a.b.c", "content-type": "application/json", "origin": "https://app.example",
            "host": "a.lambda-url.eu-central-1.on.aws", "x-forwarded-proto": "https", "idempotency-key": "k"},
        "queryStringParameters": {"session": "1", "x": " "}, "cookies": ["a=b"],
        "requestContext": {"accountId": "1", "apiId": "a", "domainName": "a", "stage": "$default", "timeEpoch": 1,
            "http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.7", "userAgent": "x"}},
        "body": "{\"session\": \"1\"}", "isBase64Encoded": false,
    })
}

#[derive(Debug, Deserialize)]
struct Wanted {
    session: Option<SessionId>,
    #[serde(default)]
    #[allow(dead_code, reason = "only its type matters")]
    force: bool,
}

#[derive(Serialize)]
struct Empty {}

impl ApiResponse for Empty {
    fn state(&self) -> State {
        State::Connected
    }
}

async fn handler(_: &App, _: &RequestContext, _: Wanted) -> Result<Empty, Error> {
    Ok(Empty {})
}

/// Returns the answer to any event.
async fn answer(function: &Arc<Function>, event: &Value) -> Value {
    let event = LambdaEvent::new(to_raw_value(event).unwrap(), Context::default());
    let service = Service::new(function.clone(), &[Method::GET, Method::POST], handler);
    serde_json::from_str(service.answer(event).await.get()).unwrap()
}

fn function() -> Arc<Function> {
    let source = |name: &str| {
        let value = match name {
            "SUPABASE_SERVICE_ROLE_KEY" => "sb_secret_x",
            "SUPABASE_JWT_SECRET" => "a secret of thirty-two bytes or more",
            "WPP_BASE_URL" | "SUPABASE_URL" => "http://127.0.0.1:1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    Arc::new(Function::read(source, NeededSecrets::Supabase).unwrap())
}

/// The parts of an event that a client chooses: header values, query, body and method.
#[test]
fn fuzz_events() {
    let (function, runtime) = (function(), runtime());
    let client = (
        "[ -~é]{0,60}",
        text(),
        prop::sample::select(&["GET", "POST", "PUT", "OPTIONS", "x"][..]),
        "[ -~é]{0,40}",
    );
    check(client, |(query, body, method, header)| {
        let mut event = event();
        event["rawQueryString"] = query.into();
        event["body"] = body.into();
        event["requestContext"]["http"]["method"] = method.into();
        event["headers"]["content-type"] = header.clone().into();
        event["headers"]["authorization"] = format!("bearer {header}").into();
        event["headers"]["accept-language"] = header.clone().into();
        event["headers"]["origin"] = header.into();
        let answer = runtime.block_on(answer(&function, &event));
        prop_assert!(matches!(answer["statusCode"].as_u64(), Some(200 | 400 | 401 | 405)), "{answer}");
        prop_assert_eq!(&answer["headers"]["vary"], "origin, accept, accept-language");
        Ok(())
    });
}

/// Every event is answered: as a request if it has a method, otherwise plainly.
#[test]
fn fuzz_the_shape_of_events() {
    let (function, runtime) = (function(), runtime());
    let rude = prop_oneof![
        Just("a.b:99999"),
        Just("["),
        Just("http, https"),
        Just("%%%"),
        Just("//"),
        Just("\u{0}"),
    ];
    check(prop_oneof![8 => mutated_with(event(), rude), 1 => value()], |event| {
        let answer = runtime.block_on(answer(&function, &event));
        let (http, status) = (&event["requestContext"]["http"], answer["statusCode"].as_u64());
        let method = http["method"].as_str();
        // An array may be read as an object's values, so it may be either.
        let is_http = if http.is_array() {
            status.is_some()
        } else {
            method.is_some_and(|method| Method::from_bytes(method.as_bytes()).is_ok())
        };
        prop_assert_eq!(status.is_some(), is_http, "{} {}", event, answer);
        prop_assert!(is_http || answer == json!({"ok": false}), "{answer}");
        prop_assert!(matches!(status, None | Some(200 | 400 | 401 | 405)), "{answer}");
        Ok(())
    });
}

fn read(body: Vec<u8>) -> Result<Wanted, Error> {
    request::read(&http::Request::post("/").body(body.into()).unwrap())
}

#[test]
fn fuzz_bodies() {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        object(&["session", "force"]).prop_map(|object| json!(object).to_string().into_bytes()),
        value().prop_map(|value| value.to_string().into_bytes()),
        (16_380_usize..16_390).prop_map(|length| [vec![b'{'], vec![b' '; length - 2], vec![b'}']].concat()),
    ];
    check(body, |body| {
        let (length, sent) = (body.len(), String::from_utf8_lossy(&body).into_owned());
        let is_read = read(body).is_ok();
        prop_assert!(!is_read || length <= 16 * 1024, "{sent}");
        Ok(())
    });
}

/// A value of a wrong type may be a secret in the wrong field.
#[test]
fn fuzz_wrong_fields() {
    check(("[a-z]{12}", prop::sample::select(&["session", "force"][..])), |(canary, field)| {
        let body = json!({field: [{canary.clone(): canary}]}).to_string();
        let error = read(body.into()).unwrap_err();
        prop_assert!(matches!(&error, Error::BadRequest { field: named, .. } if named == field), "{error:?}");
        prop_assert!(!format!("{error:?}").contains(&canary), "{error:?}");
        Ok(())
    });
}

#[test]
fn fuzz_sessions() {
    check(text(), |session| {
        let plain = session.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@:".contains(&byte));
        let expected = plain && (1..=128).contains(&session.len()) && session != "." && session != "..";
        prop_assert_eq!(is_session(&session), expected);
        let sent = read(json!({"session": session}).to_string().into()).ok();
        let taken = sent.and_then(|sent| sent.session).map(SessionId::into_string);
        prop_assert_eq!(taken, expected.then_some(session));
        Ok(())
    });
}
