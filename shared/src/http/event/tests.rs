use serde_json::json;

use super::*;

fn v2() -> Value {
    json!({
        "version": "2.0", "rawPath": "/functions/v1/wpp-qr", "rawQueryString": "session=4",
        "headers": {"origin": "https://app.example", "authorization": "Bearer a.b.c", "host": "api.example"},
        "requestContext": {"domainName": "api.example", "stage": "$default", "http": {"method": "POST"}},
        "body": "{}", "isBase64Encoded": false,
    })
}

fn v1() -> Value {
    json!({
        "path": "/functions/v1/wpp-qr", "httpMethod": "POST",
        "headers": {"Origin": "https://app.example", "Authorization": "Bearer a.b.c", "Host": "api.example"},
        "multiValueHeaders": null, "queryStringParameters": {"session": "5"},
        "multiValueQueryStringParameters": {"session": ["4", "5"]},
        "requestContext": {"domainName": "api.example", "stage": "prod"}, "body": "e30=", "isBase64Encoded": true,
    })
}

/// The event with this in one place.
fn with(mut event: Value, pointer: &str, value: Value) -> Value {
    let (place, name) = pointer.rsplit_once('/').unwrap();
    event.pointer_mut(place).unwrap()[name] = value;
    event
}

fn request(event: Value) -> HttpEvent {
    HttpEvent::from(&event)
}

fn session_of(event: Value) -> Option<String> {
    request(event).query.remove("session")
}

#[test]
fn what_the_functions_read_arrives_in_both_formats() {
    for event in [v2(), v1()] {
        let request = request(event);
        assert_eq!(request.method, Some(Method::POST));
        assert_eq!(request.headers["authorization"], "Bearer a.b.c");
        assert_eq!(request.headers["origin"], "https://app.example");
        assert_eq!(request.query["session"], "4");
        assert_eq!(request.body, b"{}");
    }
}

#[test]
fn the_method_of_format_2_is_the_one_in_the_context() {
    let request = request(with(v2(), "/httpMethod", "GET".into()));
    assert_eq!(request.method, Some(Method::POST));
}

#[test]
fn the_first_session_of_a_query_counts_in_whichever_field_it_is() {
    let raw = |query: &str| session_of(with(v2(), "/rawQueryString", query.into()));
    assert_eq!(raw("x=1&session=a%20b&session=c").as_deref(), Some("a b"));
    assert_eq!(raw("session=a b{}<>\"^`|é").as_deref(), Some("a b{}<>\"^`|é"), "as it was typed");
    assert_eq!((raw(""), raw("session"), raw("sessions=1")), (None, Some(String::new()), None));
    let parsed =
        with(with(v2(), "/rawQueryString", Value::Null), "/queryStringParameters", json!({"session": "7"}));
    assert_eq!(session_of(parsed).as_deref(), Some("7"));
    let single = with(v1(), "/multiValueQueryStringParameters", Value::Null);
    assert_eq!(session_of(single).as_deref(), Some("5"));
    for none in [json!({"session": []}), json!({"session": [7]}), json!([])] {
        let event =
            with(with(v1(), "/multiValueQueryStringParameters", none), "/queryStringParameters", Value::Null);
        assert_eq!(session_of(event), None);
    }
}

#[test]
fn all_that_the_functions_read_is_taken_from_a_query_and_nothing_else() {
    let all = json!({"session": "1", "session_name": "2", "integration_id": "3", "force": "true", "add_new": "true"});
    let raw = "session=1&session_name=2&integration_id=3&force=true&add_new=true&force=0";
    let second = with(v2(), "/rawQueryString", raw.into());
    let first =
        with(with(v1(), "/multiValueQueryStringParameters", Value::Null), "/queryStringParameters", all);
    for event in [second, first] {
        let query = request(event).query;
        let value = |name| query.get(name).map(String::as_str);
        assert_eq!(
            ["session", "session_name", "integration_id"].map(value),
            [Some("1"), Some("2"), Some("3")]
        );
        assert_eq!((value("force"), value("add_new")), (Some("true"), None));
    }
}

/// Each of these makes the usual event types panic or fail, and Lambda answer for us.
#[test]
fn an_event_that_the_usual_types_stumble_over_is_a_request_all_the_same() {
    for event in [
        with(v2(), "/headers/host", "a.b:99999".into()),
        with(v2(), "/headers/x-forwarded-proto", "http, https".into()),
        with(v1(), "/headers/Host", "[".into()),
        with(v2(), "/requestContext/domainName", "[".into()),
        with(v2(), "/rawPath", "[//\u{0}".into()),
        with(v2(), "/rawQueryString", format!("session={}", "x".repeat(70_000)).into()),
        with(v1(), "/multiValueQueryStringParameters", json!({"x": []})),
        with(v1(), "/body", "not base64".into()),
        with(v2(), "/headers/x-odd", "line\nbreak".into()),
        with(v2(), "/headers/x-odd", Value::Null),
        with(v2(), "/headers/odd name", "x".into()),
        with(v2(), "/pathParameters", json!({"unreadable": "x"})),
        with(v2(), "/cookies", json!(["a\nb"])),
    ] {
        let request = request(event.clone());
        assert_eq!(request.method, Some(Method::POST), "{event}");
        assert_eq!(request.headers["authorization"], "Bearer a.b.c", "{event}");
        assert_eq!(request.headers["origin"], "https://app.example", "{event}");
    }
}

#[test]
fn what_is_no_http_request_is_told_as_such_with_the_origin_where_there_is_one() {
    for event in [json!(null), json!(7), json!("x"), json!([]), json!({}), json!({"Records": []})] {
        assert_eq!(request(event).method, None);
    }
    for method in ["", "two words"] {
        let odd = request(with(v2(), "/requestContext/http", json!({"method": method})));
        assert_eq!(odd.method, None, "{method}");
        assert_eq!(odd.headers["origin"], "https://app.example");
    }
}

#[test]
fn of_a_header_that_is_there_twice_the_last_counts() {
    let several = json!({"Origin": ["https://a.example", "https://b.example"], "X-Odd": [], "X-Odder": 7});
    let event = with(with(v1(), "/multiValueHeaders", several), "/headers", Value::Null);
    let headers = request(event).headers;
    assert_eq!((headers.len(), &headers["origin"]), (1, &HeaderValue::from_static("https://b.example")));
}

#[test]
fn a_body_is_decoded_where_it_says_so_and_can_be() {
    for (body, says, expected) in [
        (json!("e30="), json!(true), "{}"),
        (json!("e30="), json!(false), "e30="),
        (json!("e30="), json!("true"), "e30="),
        (json!("not base64"), json!(true), "not base64"),
        (Value::Null, json!(true), ""),
        (json!({"a": 1}), json!(false), ""),
    ] {
        let event = with(with(v1(), "/body", body.clone()), "/isBase64Encoded", says);
        assert_eq!(request(event).body, expected.as_bytes(), "{body}");
    }
}
