//! What comes in: everything is checked at the door, and a refusal has touched nothing.

use local::events::Event;
use local::lambda::Answer;
use local::test_app::TestApp;
use serde_json::{Value, json};
use uuid::Uuid;

const FUNCTIONS: [&str; 3] = ["wpp-create", "wpp-qr", "wpp-status"];

/// A refusal with this status and code, for which nobody was asked anything.
fn assert_refused(app: &TestApp, answer: &Answer, status: u16, code: &str, case: &str) {
    assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{case}: {answer:?}");
    assert_eq!(answer.json["success"], false, "{case}");
    assert_eq!(answer.json["retryable"], false, "{case}");
    assert_eq!(answer.json["request_id"], json!(answer.headers["x-request-id"]), "{case}");
    assert_eq!(app.calls(), json!({}), "{case}");
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
            let answer = app.invoke(name, event.v2()).await;
            assert_refused(&app, &answer, 405, "method_not_allowed", &format!("{method} {name}"));
            assert_eq!(answer.headers["allow"], format!("{methods}, OPTIONS"));
        }
    }
}

#[tokio::test]
async fn a_body_must_be_called_json_or_nothing_at_all() {
    let app = TestApp::start().await;
    let post = |types: &[&str]| {
        let event = Event::post("wpp-status").bearer(&app.school.token).body("{}");
        types.iter().fold(event, |event, value| event.header("Content-Type", value)).v1()
    };
    for refused in
        ["text/html", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", ""]
    {
        let answer = app.invoke("wpp-status", post(&[refused])).await;
        assert_refused(&app, &answer, 415, "unsupported_media_type", refused);
        let said = answer.json["error"].as_str().unwrap();
        assert!(said.starts_with("The request cannot be read: its body must be sent as JSON."), "{said}");
    }
    // supabase-js calls a body that is a string already `text/plain`.
    for taken in [
        &["Application/JSON; charset=utf-8"][..],
        &["text/plain;charset=UTF-8"],
        &["application/vnd.api+json"],
        &[],
    ] {
        assert_eq!(app.invoke("wpp-status", post(taken)).await.status, 200, "{taken:?}");
    }
    let none = Event::post("wpp-status").bearer(&app.school.token);
    for event in [none.clone(), none.json(&Value::Null)] {
        assert_eq!(app.invoke("wpp-status", event.v2()).await.status, 200);
    }
}

#[tokio::test]
async fn a_body_over_16_kib_is_refused_whatever_is_in_it() {
    let app = TestApp::start().await;
    let (most, more) = (16 * 1024, 16 * 1024 + 1);
    let post = || Event::post("wpp-status").bearer(&app.school.token);
    for event in [post().body(&" ".repeat(more)), post().base64_body(&vec![b'{'; more])] {
        let answer = app.invoke("wpp-status", event.v2()).await;
        assert_refused(&app, &answer, 413, "body_too_large", "one byte too many");
    }
    let full = format!("{{}}{}", " ".repeat(most - 2));
    assert_eq!(app.invoke("wpp-status", post().body(&full).v2()).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let app = TestApp::start().await;
    for name in FUNCTIONS {
        for (body, code) in [
            ("{", "invalid_json"),
            ("{'session': 'x'}", "invalid_json"),
            ("{} {}", "invalid_json"),
            ("\u{feff}{}", "invalid_json"),
            ("[]", "invalid_request"),
            ("7", "invalid_request"),
            (r#""{}""#, "invalid_request"),
            ("true", "invalid_request"),
        ] {
            let event = Event::post(name).bearer(&app.school.token).body(body);
            assert_refused(&app, &app.invoke(name, event.v2()).await, 400, code, &format!("{name} {body}"));
        }
        let deep = Event::post(name).bearer(&app.school.token).body(&"[".repeat(8000));
        assert_refused(&app, &app.invoke(name, deep.v2()).await, 400, "invalid_json", "a deep body");
        let bytes = Event::post(name).bearer(&app.school.token).base64_body(&[b'{', 0xff, b'}']);
        assert_refused(&app, &app.invoke(name, bytes.v2()).await, 400, "invalid_json", "no UTF-8");
    }
}

#[tokio::test]
async fn a_field_of_a_wrong_type_is_named_and_its_value_is_not_quoted() {
    let app = TestApp::start().await;
    let cases = [
        ("wpp-create", "add_new", json!("hunter2"), "true or false"),
        ("wpp-create", "force_recreate", json!(["hunter2"]), "true or false"),
        ("wpp-create", "force_recreate", json!(1), "true or false"),
        ("wpp-qr", "session", json!(4), "a string"),
        ("wpp-qr", "session", json!({"hunter2": 1}), "a string"),
        ("wpp-status", "session_name", json!(false), "a string"),
        ("wpp-status", "session", json!(["hunter2"]), "a string"),
        ("wpp-status", "integration_id", json!(7), "a string"),
        ("wpp-status", "force", json!("hunter2, expected nothing"), "true or false"),
    ];
    for (name, field, value, expected) in cases {
        let answer = app.post(name, json!({"other": {"is": "ignored"}, field: value})).await;
        assert_refused(&app, &answer, 400, "invalid_request", field);
        let said = format!("The field \"{field}\" must be {expected}. Please reload the page");
        assert!(answer.json["error"].as_str().unwrap().starts_with(&said), "{answer:?}");
    }
}

#[tokio::test]
async fn a_session_has_128_characters_of_a_few_kinds_at_most() {
    let app = TestApp::start().await;
    let refused = [
        "x".repeat(129),
        "a b".into(),
        "a/b".into(),
        "a?b".into(),
        "a%2Fb".into(),
        "é".into(),
        "\0".into(),
        "a\nb".into(),
        "'; drop table".into(),
        "\u{202e}".into(),
    ];
    for session in &refused {
        for (name, field) in
            [("wpp-qr", "session"), ("wpp-status", "session"), ("wpp-status", "session_name")]
        {
            let answer = app.post(name, json!({field: session})).await;
            assert_refused(&app, &answer, 400, "invalid_request", &format!("{name} {session:?}"));
        }
        let get = Event::get("wpp-qr").bearer(&app.school.token).query("session", session).v2();
        assert_refused(&app, &app.invoke("wpp-qr", get).await, 400, "invalid_request", session);
    }
    for missing in [json!({}), json!({"session": ""}), json!({"session": null})] {
        let answer = app.post("wpp-qr", missing.clone()).await;
        assert_refused(&app, &answer, 400, "invalid_request", &missing.to_string());
    }
    for session in
        ["x".repeat(128), "0000000000004".into(), "4915112345678@c.us".into(), "a-b_c.d:e+1".into()]
    {
        let answer = app.post("wpp-qr", json!({"session": session})).await;
        assert_eq!(
            (answer.status, answer.json["code"].as_str()),
            (404, Some("number_not_found")),
            "{session}"
        );
    }
}

#[tokio::test]
async fn an_integration_id_is_a_uuid() {
    let app = TestApp::start().await;
    for id in ["7", "x' or 1=1", &"a".repeat(5000), "00000000-0000-0000-0000-00000000000g"] {
        let answer = app.post("wpp-status", json!({"integration_id": id})).await;
        assert_refused(&app, &answer, 400, "invalid_request", id);
    }
    let unknown = app.post("wpp-status", json!({"integration_id": Uuid::new_v4()})).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn an_idempotency_key_has_1_to_255_visible_characters() {
    let app = TestApp::start().await;
    let create = |key: &str| {
        let event = Event::post("wpp-create").bearer(&app.school.token);
        event.header("Idempotency-Key", key).json(&json!({})).v2()
    };
    for key in ["", " ", &"k".repeat(256), "k\u{e9}"] {
        let answer = app.invoke("wpp-create", create(key)).await;
        assert_refused(&app, &answer, 400, "invalid_request", key);
    }
    let longest = "k".repeat(255);
    assert_eq!(app.invoke("wpp-create", create(&longest)).await.status, 200);
}

#[tokio::test]
async fn whoever_has_no_token_learns_nothing_but_that() {
    let app = TestApp::start().await;
    for name in FUNCTIONS {
        let none = app.invoke(name, Event::post(name).body("{").v2()).await;
        assert_refused(&app, &none, 401, "unauthorized", name);
        for authorization in ["Basic dTpw", "Bearer", "Bearer a b", &app.school.token, "Bearer \u{e9}"] {
            let event = Event::post(name).header("Authorization", authorization).json(&json!({}));
            let answer = app.invoke(name, event.v2()).await;
            assert_refused(&app, &answer, 401, "unauthorized", authorization);
        }
        let ended = app.keys.user_token_for(app.school.user, -60);
        let answer = app.invoke(name, Event::post(name).bearer(&ended).json(&json!({})).v2()).await;
        assert_refused(&app, &answer, 401, "session_expired", name);
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

/// What a body may say, a `GET` says in its query.
#[tokio::test]
async fn a_number_is_named_in_a_body_or_in_a_query_by_the_same_names() {
    let app = TestApp::start().await;
    let (_primary, number) = (app.number().await, app.number().await);
    let (session, id) = (number.session.as_str(), number.id.to_string());
    let qr = app.shown_qr(session);
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
            let answer = app.invoke(function, event).await;
            let shown = if function == "wpp-qr" { &answer.json["qr"] } else { &answer.json["qrcode"] };
            assert_eq!((answer.status, shown), (200, &qr), "{function} {field}: {answer:?}");
        }
    }
    let get = |force: &str| Event::get("wpp-status").bearer(&app.school.token).query("force", force).v2();
    for (force, calls) in [("true", 1), ("1", 1), ("false", 0), ("", 0)] {
        app.forget_calls();
        app.invoke("wpp-status", get(force)).await.expect(200, "qr_issued");
        assert_eq!(app.calls().get("status").cloned().unwrap_or(json!(0)), json!(calls), "force={force}");
    }
    app.forget_calls();
    let answer = app.invoke("wpp-status", get("yes")).await;
    assert_refused(&app, &answer, 400, "invalid_request", "force=yes");
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
                assert_eq!(answer.headers["vary"], "Origin, Accept-Language");
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
    let encoded: String = session.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let rude = [
        with(&|event| event["rawQueryString"] = json!(format!("session={encoded}"))),
        with(&|event| event["rawQueryString"] = json!(format!("session={session}&x=<script>\"{{}}|^`\\"))),
        with(&|event| event["rawQueryString"] = json!(format!("session={session}&x=a b"))),
        with(&|event| event["rawQueryString"] = json!(format!("session={session}&x=%zz%ff&&=&é"))),
        with(&|event| event["headers"]["x-rude"] = json!("é")),
        with(&|event| event["rawPath"] = json!("//%zz/ é<>")),
        with(&|event| event["cookies"] = json!(["a=\u{1}", "é"])),
        with(&|event| event["body"] = Value::Null),
        with(&|event| event["headers"]["host"] = json!("a.b:99999")),
        with(&|event| event["headers"]["x-forwarded-proto"] = json!("http, https")),
        with(&|event| event["headers"]["x-rude"] = json!("a\nb")),
        with(&|event| event["rawQueryString"] = json!(format!("session={session}&x={}", "x".repeat(70_000)))),
        with(&|event| (event["isBase64Encoded"], event["body"]) = (json!(true), json!("no base64!"))),
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
    for event in
        [json!(null), json!({}), json!([1]), json!("x"), json!({"Records": [{"eventSource": "aws:sqs"}]})]
    {
        for name in FUNCTIONS {
            let answer = app.invoke(name, event.clone()).await;
            assert_refused(&app, &answer, 400, "invalid_request", &event.to_string());
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
        }
    }
    let post = Event::post("wpp-status").bearer(&app.school.token).header("Content-Type", "application/json");
    let mut broken = post.body("{").v2();
    broken["isBase64Encoded"] = json!(true);
    let answer = app.invoke("wpp-status", broken).await;
    assert_refused(&app, &answer, 400, "invalid_json", "broken base64");
}

#[tokio::test]
async fn a_creation_that_contradicts_itself_is_refused() {
    let app = TestApp::start().await;
    for body in [
        json!({"force_recreate": true, "add_new": true}),
        json!({"add_new": true, "session": "0000000000004"}),
        json!({"add_new": true, "integration_id": Uuid::new_v4()}),
    ] {
        let answer = app.create(body.clone()).await;
        assert_refused(&app, &answer, 400, "invalid_request", &body.to_string());
    }
}
