//! Requests: everything is checked before anything is done, and a refused request changes nothing.

use local::FUNCTIONS;
use local::events::Event;
use local::lambda::{Answer, Ended};
use local::test_app::TestApp;
use serde_json::{Value, json};
use uuid::Uuid;

const VARY: &str = "origin, accept, accept-language";

/// Asserts that a function refuses an event, and calls no upstream for it.
async fn refused(app: &TestApp, name: &str, event: Value, status: u16, code: &str) -> Answer {
    let answer = app.invoke(name, event.clone()).await;
    assert_eq!(answer.told(), (status, code), "{name} {event}: {answer:?}");
    assert_eq!(
        (&answer.json["success"], &answer.json["retryable"]),
        (&json!(false), &json!(false)),
        "{event}"
    );
    assert_eq!(answer.text("request_id"), answer.headers["x-request-id"], "{event}");
    assert_eq!(app.calls(), json!({}), "{event}");
    answer
}

#[tokio::test]
async fn wrong_method_is_refused_with_the_allowed_ones() {
    let app = TestApp::start().await;
    let taken = [("wpp-create", "POST"), ("wpp-qr", "GET, POST"), ("wpp-status", "GET, POST")];
    for (name, methods) in taken {
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "post"] {
            if methods.split(", ").any(|taken| taken == method) {
                continue;
            }
            let event = Event::new(method, name).bearer(&app.school.token).json(&json!({}));
            let answer = refused(&app, name, event.http_api(), 405, "method_not_allowed").await;
            assert_eq!(answer.headers["allow"], format!("{methods}, OPTIONS"));
        }
    }
}

#[tokio::test]
async fn impossible_request_is_refused() {
    let app = TestApp::start().await;
    let mut wrong = Vec::new();
    for session in [
        &"x".repeat(129),
        ".",
        "..",
        "a b",
        "a/b",
        "a?b",
        "a%2Fb",
        "é",
        "\0",
        "a\nb",
        "'; drop table",
        "\u{202e}",
    ] {
        let get = Event::get("wpp-qr").bearer(&app.school.token).query("session", session).http_api();
        refused(&app, "wpp-qr", get, 400, "invalid_request").await;
        wrong.push(("wpp-qr", json!({"session": session})));
        wrong.push(("wpp-status", json!({"session": session})));
        wrong.push(("wpp-status", json!({"session_name": session})));
    }
    for missing in [json!({}), json!({"session": ""}), json!({"session": null})] {
        wrong.push(("wpp-qr", missing));
    }
    for id in ["7", "x' or 1=1", &"a".repeat(5000), "00000000-0000-0000-0000-00000000000g"] {
        wrong.push(("wpp-status", json!({"integration_id": id})));
    }
    for contradiction in [
        json!({"force_recreate": true, "add_new": true}),
        json!({"add_new": true, "session": "0000000000004"}),
        json!({"add_new": true, "integration_id": Uuid::new_v4()}),
    ] {
        wrong.push(("wpp-create", contradiction));
    }
    for (name, body) in wrong {
        refused(&app, name, app.school.post(name, &body).http_api(), 400, "invalid_request").await;
    }
    for session in [&"x".repeat(128), "0000000000004", "4915112345678@c.us", "a-b_c.d:e+1"] {
        app.post("wpp-qr", json!({"session": session})).await.expect(404, "number_not_found");
    }
    let unknown = json!({"integration_id": Uuid::new_v4()});
    app.post("wpp-status", unknown).await.expect(404, "number_not_found");
}

#[tokio::test]
async fn missing_token_is_reported_before_anything_else() {
    let app = TestApp::start().await;
    for name in FUNCTIONS {
        refused(&app, name, Event::post(name).body("{").http_api(), 401, "unauthorized").await;
        for authorization in ["Basic dTpw", "Bearer", "Bearer a b", &app.school.token, "Bearer \u{e9}"] {
            let event = Event::post(name).header("Authorization", authorization).json(&json!({}));
            refused(&app, name, event.http_api(), 401, "unauthorized").await;
        }
        let ended = app.keys.user_token_for(app.school.user, -60);
        let event = Event::post(name).bearer(&ended).json(&json!({}));
        refused(&app, name, event.http_api(), 401, "sign_in_expired").await;
    }
}

#[tokio::test]
async fn every_shape_of_event_gets_the_same_answer() {
    let (app, number) = TestApp::start_with_number().await;
    let qr = app.shown_qr(&number.session);
    let body = json!({"session": number.session});
    let (get, post) = (Event::get("wpp-qr"), Event::post("wpp-qr"));
    let events = [
        get.clone().query("session", &number.session),
        get.query("session", &number.session).query("session", "another").query("x", "é &=?"),
        post.clone().json(&body),
        post.clone().header("Content-Type", "application/json").base64_body(body.to_string().as_bytes()),
        post.query("session", &number.session),
    ];
    for event in events {
        let event = event.header("aUTHORIZATION", &format!("bEARER    {}  ", app.school.token));
        for shape in [event.clone().http_api(), event.function_url()] {
            let answer = app.invoke("wpp-qr", shape.clone()).await;
            assert_eq!((answer.status, &answer.json["qr"]), (200, &qr), "{shape}: {answer:?}");
        }
    }
}

/// A `GET` sends in its query what a body may contain. The TypeScript version did not handle two numbers.
#[tokio::test]
async fn body_and_query_have_the_same_fields() {
    let app = TestApp::start().await;
    let (primary, number) = (app.number().await, app.number().await);
    app.assert_served(&primary, &[app.poll_qr(&primary.session).await]);
    let (session, id) = (number.session.as_str(), number.id.to_string());
    for (function, field, value) in [
        ("wpp-qr", "session", session),
        ("wpp-qr", "session_name", session),
        ("wpp-qr", "account_number", session),
        ("wpp-status", "session", session),
        ("wpp-status", "session_name", session),
        ("wpp-status", "account_number", session),
        ("wpp-status", "integration_id", &id),
    ] {
        let get = Event::get(function).bearer(&app.school.token).query(field, value);
        let post = Event::post(function).bearer(&app.school.token).json(&json!({field: value}));
        for event in [get.http_api(), post.http_api()] {
            app.assert_served(&number, &[app.invoke(function, event).await]);
        }
    }
    let get =
        |force: &str| Event::get("wpp-status").bearer(&app.school.token).query("force", force).http_api();
    for (force, calls) in [("true", 1), ("false", 0), ("", 0)] {
        app.forget_calls();
        app.invoke("wpp-status", get(force)).await.expect(200, "qr_issued");
        assert_eq!(app.count("status"), calls, "force={force}");
    }
    app.forget_calls();
    for wrong in ["yes", "1"] {
        refused(&app, "wpp-status", get(wrong), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn answer_is_in_the_requested_language() {
    let (app, number) = TestApp::start_with_number().await;
    app.platform.forget_session(&number.session);
    let russian = (
        "ru",
        "Этот номер больше не подключён к WhatsApp.",
        "Удалите номер в списке и подключите его заново.",
    );
    let english = (
        "en",
        "This number is no longer connected to WhatsApp.",
        "Please delete the number in the list and connect it again.",
    );
    for (asked, (language, what, way_on)) in [
        (Some("ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7"), russian),
        (Some("en-US,en;q=0.9,ru;q=0.8"), english),
        (None, english),
    ] {
        let whole = json!(format!("{what} {way_on}"));
        for (function, body) in [
            ("wpp-qr", json!({"session": number.session})),
            ("wpp-create", json!({})),
            ("wpp-status", json!({"force": true})),
        ] {
            let post = Event::post(function).bearer(&app.school.token).json(&body);
            let post = asked.into_iter().fold(post, |post, asked| post.header("Accept-Language", asked));
            let answer = app.invoke(function, post.http_api()).await;
            assert_eq!(answer.json["code"], "session_lost", "{function} {asked:?}: {answer:?}");
            let sentence = if answer.status == 200 { &answer.json["message"] } else { &answer.json["error"] };
            assert_eq!(sentence, &whole, "{function} {asked:?}");
            assert_eq!(answer.headers["content-language"], language, "{function} {asked:?}");
            assert_eq!(answer.headers["vary"], VARY);
        }
    }
}

#[tokio::test]
async fn malformed_event_is_answered() {
    let (app, number) = TestApp::start_with_number().await;
    let get = || Event::get("wpp-qr").bearer(&app.school.token).query("session", &number.session).http_api();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut event = get();
        change(&mut event);
        event
    };
    let query = |rest: &str| {
        let query = json!(format!("session={}&x={rest}", number.session));
        with(&|event| event["rawQueryString"] = query.clone())
    };
    for event in [
        query("{}|^`\\"),
        query("%zz%ff&&="),
        with(&|event| event["headers"]["x-rude"] = json!("é")),
        with(&|event| event["headers"]["host"] = json!("a b")),
        with(&|event| event["cookies"] = json!(["a=b", "é"])),
        with(&|event| event["body"] = Value::Null),
        // `cargo lambda watch` sends it in addition to format 2.0.
        with(&|event| event["httpMethod"] = json!("GET")),
    ] {
        let answer = app.invoke("wpp-qr", event.clone()).await;
        assert_eq!(answer.status, 200, "{event:#} {answer:?}");
    }
    app.forget_calls();
    for (event, part) in [
        (query("<script>"), "query"),
        (query("\""), "query"),
        (query("é"), "query"),
        (query("a b"), "query"),
        (with(&|event| event["rawPath"] = json!("//%zz/ é<>")), "path"),
        (with(&|event| (event["body"], event["isBase64Encoded"]) = (json!("{"), json!(true))), "body"),
        (with(&|event| event["rawQueryString"] = json!(7)), "event"),
    ] {
        let answer = refused(&app, "wpp-qr", event, 400, "invalid_request").await;
        let message = format!("The request cannot be read: there is an error in its {part}.");
        assert!(answer.text("error").starts_with(&message), "{answer:?}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
    }
}

/// A warm-up ping or a queue's message: an error would raise a false alarm.
#[tokio::test]
async fn non_http_event_is_not_an_error() {
    let app = TestApp::start().await;
    for name in FUNCTIONS {
        for event in
            [json!(null), json!({}), json!([1]), json!("x"), json!({"Records": [{"eventSource": "aws:sqs"}]})]
        {
            let ended = app.sandbox(name).invoke(event.clone()).await;
            // The sandbox reports an answer that is not an HTTP answer.
            let Ended::Failed(report) = &ended else { panic!("{ended:?}") };
            assert_eq!(report["errorMessage"], r#"{"ok":false}"#);
        }
        let logs = app.sandbox(name).logs().await;
        assert!(!logs.contains(r#""outcome""#) && !logs.contains("ERROR"), "{logs}");
    }
    assert_eq!(app.calls(), json!({}));
}
