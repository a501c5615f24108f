use http::Method;
use lambda_http::Request;

use super::*;

fn event() -> Value {
    json!({
        "version": "2.0", "rawPath": "/functions/v1/wpp-qr", "rawQueryString": "session=4",
        "headers": {"origin": "https://app.example", "authorization": "Bearer a.b.c", "host": "api.example"},
        "requestContext": {"domainName": "api.example", "stage": "$default", "http": {"method": "POST"}},
        "body": "{}", "isBase64Encoded": false,
    })
}

/// Returns the event with this value at one pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut event = event();
    let (place, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(place).unwrap()[name] = value;
    event
}

fn raw(event: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(event).unwrap()
}

fn converted(event: &Value) -> (Request, Malformed) {
    let (request, malformed) = read(&raw(event)).unwrap_or_else(|| panic!("{event}"));
    (request.into(), malformed)
}

#[test]
fn an_event_of_format_2_is_a_request() {
    let (request, malformed) = converted(&event());
    assert_eq!((request.method(), malformed), (&Method::POST, None));
    assert_eq!(request.headers()["authorization"], "Bearer a.b.c");
    assert_eq!(request.headers()["origin"], "https://app.example");
    assert_eq!(request.uri().query(), Some("session=4"));
    assert_eq!(request.body().as_ref(), b"{}");
}

/// `cargo lambda watch` sends both.
#[test]
fn the_method_in_the_context_counts() {
    assert_eq!(converted(&with("/httpMethod", "GET".into())).0.method(), Method::POST);
}

/// Each of these makes the library's conversion panic or fail.
#[test]
fn malformed_part_is_removed_by_name() {
    for (event, part) in [
        (with("/rawQueryString", "session=a\"b".into()), Some("query")),
        (with("/rawQueryString", "session=a<b".into()), Some("query")),
        (with("/rawQueryString", "session=a b".into()), Some("query")),
        (with("/rawQueryString", "session=é".into()), Some("query")),
        (with("/rawQueryString", format!("session={}", "x".repeat(70_000)).into()), Some("query")),
        (with("/rawPath", "[".into()), Some("path")),
        (with("/rawPath", "/\u{0}".into()), Some("path")),
        (with("/headers/host", "a.b:99999".into()), None),
        (with("/headers/host", "[".into()), None),
        (with("/requestContext/domainName", "[".into()), None),
        (with("/headers/x-forwarded-proto", "http, https".into()), None),
        (with("/isBase64Encoded", true.into()), Some("body")),
        (with("/headers/x-odd", "line\nbreak".into()), Some("event")),
        (with("/headers/x-odd", Value::Null), Some("event")),
        (with("/cookies", json!(["a\nb"])), None),
        (with("/body", json!({"a": 1})), Some("event")),
    ] {
        let (request, malformed) = converted(&event);
        assert_eq!((request.method(), malformed), (&Method::POST, part), "{event}");
    }
}

#[test]
fn an_event_that_is_not_http_is_none() {
    for event in [json!(null), json!(7), json!("x"), json!([]), json!({}), json!({"Records": []})] {
        assert!(read(&raw(&event)).is_none(), "{event}");
    }
}

#[test]
fn a_base64_body_is_decoded() {
    let mut event = with("/body", "e30=".into());
    event["isBase64Encoded"] = true.into();
    assert_eq!(converted(&event).0.body().as_ref(), b"{}");
}
