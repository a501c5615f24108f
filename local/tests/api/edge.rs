//! What comes in: everything is checked at the door, and a refusal has touched nothing.

use local::FUNCTIONS;
use local::events::Event;
use local::lambda::Answer;
use local::test_app::TestApp;
use serde_json::{Value, json};
use uuid::Uuid;

/// Asserts that a function refuses an event, and asks nobody anything for it.
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
async fn a_method_that_is_not_taken_is_refused_with_those_that_are() {
    let app = TestApp::start().await;
    let taken = [("wpp-create", "POST"), ("wpp-qr", "GET, POST"), ("wpp-status", "GET, POST")];
    for (name, methods) in taken {
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE", "post"] {
            if methods.split(", ").any(|taken| taken == method) {
                continue;
            }
            let event = Event::new(method, name).bearer(&app.school.token).json(&json!({}));
            let answer = refused(&app, name, event.v2(), 405, "method_not_allowed").await;
            assert_eq!(answer.headers["allow"], format!("{methods}, OPTIONS"));
        }
    }
}

#[tokio::test]
async fn a_body_is_a_json_object_of_16_kib_at_most_called_json_or_nothing_at_all() {
    let app = TestApp::start().await;
    let (most, more) = (16 * 1024, 16 * 1024 + 1);
    for name in FUNCTIONS {
        let post = || Event::post(name).bearer(&app.school.token);
        for (event, status, code) in [
            (post().body("{"), 400, "invalid_json"),
            (post().body("{'session': 'x'}"), 400, "invalid_json"),
            (post().body("{} {}"), 400, "invalid_json"),
            (post().body("\u{feff}{}"), 400, "invalid_json"),
            (post().body(&"[".repeat(8000)), 400, "invalid_json"),
            (post().base64_body(&[b'{', 0xff, b'}']), 400, "invalid_json"),
            (post().body("[]"), 400, "invalid_request"),
            (post().body("7"), 400, "invalid_request"),
            (post().body(r#""{}""#), 400, "invalid_request"),
            (post().body("true"), 400, "invalid_request"),
            (post().body(&" ".repeat(more)), 413, "body_too_large"),
            (post().base64_body(&vec![b'{'; more]), 413, "body_too_large"),
        ] {
            refused(&app, name, event.v2(), status, code).await;
        }
        for called in
            ["text/html", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", ""]
        {
            let event = post().body("{}").header("Content-Type", called).v1();
            let said = refused(&app, name, event, 415, "unsupported_media_type").await;
            let sentence = "The request cannot be read: its body must be sent as JSON.";
            assert!(said.text("error").starts_with(sentence), "{said:?}");
        }
    }
    let post = || Event::post("wpp-status").bearer(&app.school.token);
    let called = |kind: &str| post().body("{}").header("Content-Type", kind);
    for taken in [
        called("Application/JSON; charset=utf-8"),
        // supabase-js calls a body that is a string already so.
        called("text/plain;charset=UTF-8"),
        called("application/vnd.api+json"),
        post().body("{}"),
        post().body(&format!("{{}}{}", " ".repeat(most - 2))),
        post().json(&Value::Null),
        post(),
    ] {
        assert_eq!(app.invoke("wpp-status", taken.clone().v1()).await.status, 200, "{taken:?}");
        assert_eq!(app.invoke("wpp-status", taken.clone().v2()).await.status, 200, "{taken:?}");
    }
}

#[tokio::test]
async fn a_field_of_a_wrong_type_is_named_and_its_value_is_not_quoted() {
    let app = TestApp::start().await;
    for (name, field, value, expected) in [
        ("wpp-create", "add_new", json!("hunter2"), "true or false"),
        ("wpp-create", "force_recreate", json!(["hunter2"]), "true or false"),
        ("wpp-create", "force_recreate", json!(1), "true or false"),
        ("wpp-qr", "session", json!(4), "a string"),
        ("wpp-qr", "session", json!({"hunter2": 1}), "a string"),
        ("wpp-status", "session_name", json!(false), "a string"),
        ("wpp-status", "session", json!(["hunter2"]), "a string"),
        ("wpp-status", "integration_id", json!(7), "a string"),
        ("wpp-status", "force", json!("hunter2, expected nothing"), "true or false"),
    ] {
        let event = app.school.post(name, &json!({"other": {"is": "ignored"}, field: value})).v2();
        let answer = refused(&app, name, event, 400, "invalid_request").await;
        let said = format!("The field \"{field}\" must be {expected}. Please reload the page");
        assert!(answer.text("error").starts_with(&said), "{answer:?}");
    }
}

#[tokio::test]
async fn a_name_that_no_number_can_have_and_a_creation_that_contradicts_itself_are_refused() {
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
        let get = Event::get("wpp-qr").bearer(&app.school.token).query("session", session).v2();
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
        refused(&app, name, app.school.post(name, &body).v2(), 400, "invalid_request").await;
    }
    for session in [&"x".repeat(128), "0000000000004", "4915112345678@c.us", "a-b_c.d:e+1"] {
        app.post("wpp-qr", json!({"session": session})).await.expect(404, "number_not_found");
    }
    let unknown = json!({"integration_id": Uuid::new_v4()});
    app.post("wpp-status", unknown).await.expect(404, "number_not_found");
}

#[tokio::test]
async fn whoever_has_no_token_learns_nothing_but_that() {
    let app = TestApp::start().await;
    for name in FUNCTIONS {
        refused(&app, name, Event::post(name).body("{").v2(), 401, "unauthorized").await;
        for authorization in ["Basic dTpw", "Bearer", "Bearer a b", &app.school.token, "Bearer \u{e9}"] {
            let event = Event::post(name).header("Authorization", authorization).json(&json!({}));
            refused(&app, name, event.v2(), 401, "unauthorized").await;
        }
        let ended = app.keys.user_token_for(app.school.user, -60);
        let event = Event::post(name).bearer(&ended).json(&json!({}));
        refused(&app, name, event.v2(), 401, "session_expired").await;
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
        post.query("session", &number.session).body("null"),
    ];
    for event in events {
        let event = event.header("aUTHORIZATION", &format!("bEARER    {}  ", app.school.token));
        for shape in [event.clone().v1(), event.clone().v2(), event.function_url()] {
            let answer = app.invoke("wpp-qr", shape.clone()).await;
            assert_eq!((answer.status, &answer.json["qr"]), (200, &qr), "{shape}: {answer:?}");
        }
    }
}

/// What a body may say, a `GET` says in its query. The original knew neither of two numbers.
#[tokio::test]
async fn a_number_is_named_in_a_body_or_in_a_query_by_the_same_names() {
    let app = TestApp::start().await;
    let (primary, number) = (app.number().await, app.number().await);
    app.assert_served(&primary, &[app.poll_qr(&primary.session).await]);
    let (session, id) = (number.session.as_str(), number.id.to_string());
    for (function, field, value) in [
        ("wpp-qr", "session", session),
        ("wpp-qr", "session_name", session),
        ("wpp-status", "session", session),
        ("wpp-status", "session_name", session),
        ("wpp-status", "integration_id", &id),
    ] {
        let get = Event::get(function).bearer(&app.school.token).query(field, value);
        let post = Event::post(function).bearer(&app.school.token).json(&json!({field: value}));
        for event in [get.clone().v1(), get.v2(), post.v2()] {
            app.assert_served(&number, &[app.invoke(function, event).await]);
        }
    }
    let get = |force: &str| Event::get("wpp-status").bearer(&app.school.token).query("force", force).v2();
    for (force, calls) in [("true", 1), ("1", 1), ("false", 0), ("", 0)] {
        app.forget_calls();
        app.invoke("wpp-status", get(force)).await.expect(200, "qr_issued");
        assert_eq!(app.count("status"), calls, "force={force}");
    }
    app.forget_calls();
    refused(&app, "wpp-status", get("yes"), 400, "invalid_request").await;
}

#[tokio::test]
async fn a_person_is_spoken_to_in_their_language() {
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
            for event in [post.clone().v1(), post.v2()] {
                let answer = app.invoke(function, event).await;
                assert_eq!(answer.json["code"], "session_lost", "{function} {asked:?}: {answer:?}");
                assert_eq!(answer.json["hint"], way_on, "{function} {asked:?}");
                let sentence =
                    if answer.status == 200 { &answer.json["message"] } else { &answer.json["error"] };
                assert_eq!(sentence, &whole, "{function} {asked:?}");
                assert_eq!(answer.headers["content-language"], language, "{function} {asked:?}");
                assert_eq!(answer.headers["vary"], "Origin, Accept, Accept-Language");
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_event_of_a_rude_client_is_answered_too() {
    let (app, number) = TestApp::start_with_number().await;
    let get = || Event::get("wpp-qr").bearer(&app.school.token).query("session", &number.session).v2();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut event = get();
        change(&mut event);
        event
    };
    let session = &number.session;
    let rude = [
        with(&|event| event["rawQueryString"] = json!(format!("session={session}&x=<script>\"{{}}|^`\\"))),
        with(&|event| event["rawQueryString"] = json!(format!("session={session}&x=%zz%ff&&=&é"))),
        with(&|event| event["headers"]["x-rude"] = json!("é")),
        with(&|event| event["rawPath"] = json!("//%zz/ é<>")),
        with(&|event| event["cookies"] = json!(["a=\u{1}", "é"])),
        with(&|event| event["body"] = Value::Null),
    ];
    for event in rude {
        let ended = app.sandbox("wpp-qr").invoke(event.clone()).await.answered();
        assert_eq!(ended.map(|answer| answer.status).ok(), Some(200), "{event:#}");
    }
}

/// Lambda's own answer to these would be a bare 502, which a page cannot even read.
#[tokio::test]
async fn an_event_that_is_no_request_is_refused_in_our_own_words() {
    let app = TestApp::start().await;
    for name in FUNCTIONS {
        for event in
            [json!(null), json!({}), json!([1]), json!("x"), json!({"Records": [{"eventSource": "aws:sqs"}]})]
        {
            let answer = refused(&app, name, event, 400, "invalid_request").await;
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
        }
        let mut broken = app.school.post(name, &Value::Null).body("{").v2();
        broken["isBase64Encoded"] = json!(true);
        refused(&app, name, broken, 400, "invalid_json").await;
    }
}
