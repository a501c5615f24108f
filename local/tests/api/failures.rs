//! What is said where the fault matrix has no cell for it: an error, and never a state.

use serde_json::json;

use local::fault_injector::Fault;
use local::lambda::Answer;
use local::test_app::{Number, TestApp};

fn status(status: u16) -> Fault {
    Fault::Status { status, body: "<html>".to_owned(), retry_after_s: None }
}

/// A poll of each function, past the snapshot.
async fn polls(app: &TestApp, number: &Number) -> [Answer; 2] {
    [app.poll_qr(&number.session).await, app.check().await]
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{answer:?}");
    assert_eq!(answer.json["success"], false);
    assert!(answer.json["error"].is_string());
    assert_eq!((answer.json.get("status"), answer.json.get("qr")), (None, None));
}

/// The original said `not found` or `disconnected`; `wpp-create` made a second client and a second primary row.
#[tokio::test]
async fn a_database_that_does_not_answer_is_an_error_and_the_platform_is_not_asked() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let before = app.numbers().await;
    app.supabase.faults.inject("*", status(503));
    for (name, calls) in [
        ("wpp-qr", json!({"rpc/wpp_find_number": 3})),
        ("wpp-status", json!({"rpc/wpp_find_number": 3})),
        ("wpp-create", json!({"rpc/wpp_begin_creation": 3})),
    ] {
        let answer = app.post(name, json!({"session": number.session, "force": true})).await;
        assert_refused(&answer, 503, "database_unavailable");
        assert_eq!(app.calls(), calls, "{name}");
        app.forget_calls();
    }
    assert_eq!(app.numbers().await, before);
}

/// The original said `qr: null`, and `disconnected`.
#[tokio::test]
async fn a_platform_that_answers_null_is_an_error_and_leaves_the_mirror_alone() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let mirror = app.mirror(&number.session).await;
    for endpoint in ["qr", "status"] {
        app.inject(endpoint, Fault::Body("null".to_owned()));
    }
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 502, "platform_bad_answer");
    }
    assert_eq!(app.mirror(&number.session).await, mirror);
}

/// A proxy on the way refuses or does not find, in HTML. Taking that for the platform's own answer would tell every person to
/// give up a number that is linked.
#[tokio::test]
async fn a_proxys_page_says_nothing_of_a_key_or_a_session() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.settle_keys().await;
    let mirror = app.mirror(&number.session).await;
    for endpoint in ["qr", "status"] {
        app.inject(endpoint, status(404));
    }
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 502, "platform_bad_answer");
    }
    for refusal in [status(401), status(403), status(404)] {
        app.inject("token", refusal);
        app.set_token_end(&number, -1).await;
        app.end_waits().await;
        for answer in polls(&app, &number).await {
            assert!(
                matches!(answer.json["code"].as_str(), Some("platform_bad_answer" | "platform_unavailable")),
                "{answer:?}"
            );
        }
    }
    assert_eq!(app.mirror(&number.session).await, mirror);
    // Nor is a key that is refused so one to be replaced.
    let before = app.settings(&number).await;
    app.end_waits().await;
    let answer = app.create(json!({"force_recreate": true})).await;
    assert_refused(&answer, 502, "platform_bad_answer");
    assert_eq!(app.settings(&number).await, before);
}
