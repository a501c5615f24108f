//! What a caller and the gateway send.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use lambda_runtime::{Context, LambdaEvent};
use uuid::Uuid;

use super::*;
use crate::error::Error;
use crate::http::event::HttpEvent;
use crate::http::request::{ApiRequest, checked_session};
use crate::http::run::{self, Response};
use crate::secrets::Secrets;
use crate::sentence::Language;
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

fn event_v1() -> Value {
    json!({
        "resource": "/wpp-qr", "path": "/functions/v1/wpp-qr", "httpMethod": "POST",
        "headers": {"authorization": "Bearer a.b.c", "Host": "a.example", "X-Forwarded-Proto": "https"},
        "multiValueHeaders": {"authorization": ["Bearer a.b.c"], "Host": ["a.example"]},
        "queryStringParameters": {"session": "1"}, "multiValueQueryStringParameters": {"session": ["1", "2"]},
        "pathParameters": {"a": "b"}, "stageVariables": {"a": "b"},
        "requestContext": {"accountId": "1", "apiId": "a", "domainName": "a.example", "stage": "prod", "requestTimeEpoch": 1,
            "httpMethod": "POST", "identity": {"sourceIp": "192.0.2.7", "userAgent": "x"}},
        "body": "eyJzZXNzaW9uIjogIjEifQ==", "isBase64Encoded": true,
    })
}

/// Nobody listens where this one looks.
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
    Arc::new(Function::read(source, Secrets::Supabase).unwrap())
}

/// What of an event a client chooses: its headers' values, query, body and method.
#[test]
fn fuzz_events() {
    let (function, runtime) = (function(), runtime());
    let client = (
        "[ -~é]{0,60}",
        text(),
        prop::sample::select(&["GET", "POST", "PUT", "OPTIONS", "x"][..]),
        "[ -~é]{0,40}",
    );
    hold(client, |(query, body, method, header)| {
        let mut event = event();
        event["rawQueryString"] = query.into();
        event["body"] = body.into();
        event["requestContext"]["http"]["method"] = method.into();
        event["headers"]["content-type"] = header.clone().into();
        event["headers"]["authorization"] = format!("bearer {header}").into();
        event["headers"]["accept-language"] = header.clone().into();
        event["headers"]["origin"] = header.into();
        let answer = runtime.block_on(answer(&function, event));
        prop_assert!(matches!(answer.status_code, 204 | 401 | 405), "{answer:?}");
        Ok(())
    });
}

/// The answer to any event, which has what every answer has.
async fn answer(function: &Arc<Function>, event: Value) -> Response {
    let event = LambdaEvent::new(event, Context::default());
    let handler = |_: Arc<App>, _: ApiRequest| std::future::ready(Ok(json!({})));
    let (answer, _) = run::answer(function.clone(), "GET, POST", handler, event, false).await;
    assert_eq!(answer.headers["vary"], "Origin, Accept, Accept-Language");
    assert_eq!(answer.headers.contains_key("content-language"), !answer.body.is_empty());
    answer
}

/// Whatever an event is, it is understood or refused; a gateway's own part of it may be of any shape.
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
    let any_event = prop_oneof![
        4 => disturbed_with(event(), rude.clone()),
        4 => disturbed_with(event_v1(), rude),
        1 => value(),
    ];
    hold(any_event, |event| {
        let answer = runtime.block_on(answer(&function, event));
        prop_assert!(matches!(answer.status_code, 204 | 400 | 401 | 405), "{answer:?}");
        Ok(())
    });
}

#[test]
fn fuzz_bodies() {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        object(&["session", "force"]).prop_map(|object| json!(object).to_string().into_bytes()),
        value().prop_map(|value| value.to_string().into_bytes()),
        (16_380_usize..16_390).prop_map(|length| vec![b' '; length]),
    ];
    let header = |bytes: Vec<u8>| HeaderValue::from_bytes(&bytes).ok();
    let header = || prop::collection::vec(32_u8..255, 0..300).prop_map(header);
    hold((body, header()), |(body, content_type)| {
        let (length, sent) = (body.len(), String::from_utf8_lossy(&body).into_owned());
        let headers = content_type.map(|value| (header::CONTENT_TYPE, value));
        let headers = HeaderMap::from_iter(headers);
        let event = HttpEvent { method: Some(Method::POST), headers, body, ..HttpEvent::default() };
        let Ok(request) = ApiRequest::read(&event, Uuid::nil(), Deadline::within(Duration::ZERO)) else {
            return Ok(());
        };
        prop_assert!(request.body.is_object() && length <= 16 * 1024, "{sent}");
        Ok(())
    });
}

/// A value of a wrong type may be a secret in the wrong place.
#[test]
fn fuzz_wrong_fields() {
    hold(("[a-z]{12}", object(&["session", "force"])), |(canary, mut body)| {
        for field in ["session", "force"] {
            body.insert(field.to_owned(), json!([{canary.clone(): canary}]));
        }
        let request = ApiRequest {
            user_id: Uuid::nil(),
            deadline: Deadline::within(Duration::ZERO),
            language: Language::English,
            drawing: None,
            body: body.into(),
            query: Default::default(),
        };
        let refused = [request.session().err(), request.selector().err(), request.flag("force").err()];
        for (error, named) in refused.into_iter().zip(["session", "session", "force"]) {
            prop_assert!(
                matches!(error, Some(Error::BadRequest { field, .. }) if field == named),
                "{error:?}"
            );
            prop_assert!(!format!("{error:?}").contains(&canary), "{error:?}");
        }
        Ok(())
    });
}

#[test]
fn fuzz_sessions() {
    hold(text(), |session| {
        let plain = session.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@:".contains(&byte));
        let expected = plain && (1..=128).contains(&session.len()) && session != "." && session != "..";
        let checked = checked_session("session", &session).ok();
        prop_assert_eq!(checked, expected.then_some(session));
        Ok(())
    });
}
