//! Failures that the fault matrix does not cover: the functions answer with an error, never with a state.

use serde_json::json;

use local::FUNCTIONS;
use local::fault_injector::Fault;
use local::lambda::Answer;
use local::test_app::{Number, TestApp};

fn status(status: u16) -> Fault {
    Fault::status_with(status, "<html>")
}

/// Polls each function, past the snapshot.
async fn polls(app: &TestApp, number: &Number) -> [Answer; 2] {
    [app.poll_qr(&number.session).await, app.check().await]
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{answer:?}");
    assert_eq!(answer.json["success"], false);
    assert!(answer.json["error"].is_string());
    assert_eq!((answer.json.get("status"), answer.json.get("qr")), (None, None));
}

/// A proxy answers 401, 403 or 404 in HTML. If that counted as the platform's answer, every user would be told to give up a linked number.
#[tokio::test]
async fn html_from_a_proxy_rejects_no_key_or_session() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    let mirror = app.snapshot_row(&number.session).await;
    // The TypeScript version answered `qr: null` and `disconnected`.
    for (nonsense, code) in [
        (status(401), "platform_unavailable"),
        (status(403), "platform_unavailable"),
        (status(404), "platform_unavailable"),
        (Fault::Body("null".to_owned()), "platform_bad_answer"),
    ] {
        for endpoint in ["qr", "status"] {
            app.inject(endpoint, nonsense.clone());
        }
        for answer in polls(&app, &number).await {
            assert_refused(&answer, 502, code);
        }
    }
    for refusal in [status(401), status(403), status(404)] {
        app.inject("token", refusal);
        app.set_token_end(&number, -1).await;
        app.end_waits().await;
        for answer in polls(&app, &number).await {
            assert_refused(&answer, 502, "platform_unavailable");
        }
    }
    assert_eq!(app.snapshot_row(&number.session).await, mirror);
    // A key that is refused like this is not replaced, either.
    let before = app.settings(&number).await;
    app.end_waits().await;
    let answer = app.create(json!({"force_recreate": true})).await;
    assert_refused(&answer, 502, "platform_unavailable");
    assert_eq!(app.settings(&number).await, before);
}

/// The platform's values are checked against limits before they are saved.
#[tokio::test]
async fn oversized_credentials_are_not_saved() {
    let app = TestApp::start().await;
    for given in [
        json!({"apiKey": "k".repeat(513), "session": "4"}),
        json!({"apiKey": "k\u{1b}[2J", "session": "4"}),
        json!({"apiKey": "k", "session": ".."}),
        json!({"apiKey": "k", "session": "4/../5"}),
        json!({"apiKey": "k", "session": "4".repeat(129)}),
    ] {
        app.inject("create", Fault::Body(given.to_string()));
        assert_refused(&app.create(json!({})).await, 502, "platform_bad_answer");
        assert!(app.numbers().await.is_empty(), "{given}");
    }
}

#[tokio::test]
async fn oversized_token_is_not_saved() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    app.set_token_end(&number, -1).await;
    let before = app.settings(&number).await;
    for token in ["t".repeat(8 * 1024 + 1), "a\nb".to_owned()] {
        app.inject("token", Fault::Body(json!({"token": token}).to_string()));
        assert_refused(&app.poll_qr(&number.session).await, 502, "platform_bad_answer");
        app.end_waits().await;
    }
    assert_eq!(app.settings(&number).await, before);
}

#[tokio::test]
async fn oversized_qr_is_not_saved() {
    let (app, number) = TestApp::start_with_number().await;
    let mirror = app.snapshot_row(&number.session).await;
    for qr in ["2".repeat(64 * 1024 + 1), "2@\u{7}".to_owned()] {
        app.inject("qr", Fault::Body(json!({"qr": qr}).to_string()));
        for answer in polls(&app, &number).await {
            assert_refused(&answer, 502, "platform_bad_answer");
        }
    }
    assert_eq!(app.snapshot_row(&number.session).await, mirror);
}

/// An administrator edits the settings in the school's own rows, perhaps to get at another school's number.
#[tokio::test]
async fn unusual_row_raises_no_alarm() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    let good = app.settings(&number).await;
    let other = app.organization("other").await.unwrap();
    let created = app.post_as(&other, "wpp-create", json!({})).await.expect(200, "qr_issued");
    let foreign = app.number_of(created.text("session")).await;
    let foreign_token = app.settings(&foreign).await["wppJwtToken"].clone();
    for odd in [
        json!({"wppAccountNumber": foreign.session}),
        json!({"wppAccountNumber": "0000000000000"}),
        json!({"wppAccountNumber": "..", "wppApiKey": "no key"}),
        json!({"wppJwtToken": "no token"}),
        json!({"wppJwtToken": "no\ntoken", "wppApiKey": foreign.key}),
        json!({"wppJwtToken": foreign_token}),
        json!({"wppJwtToken": null, "wppApiKey": "no key"}),
        json!({"wppJwtToken": null, "wppApiKey": ""}),
    ] {
        app.merge(&number, good.clone()).await;
        app.merge(&number, odd.clone()).await;
        // A key that was just repaired counts as not active yet.
        app.settle_keys().await;
        app.end_waits().await;
        let session = odd["wppAccountNumber"].as_str().unwrap_or(&number.session);
        for answer in [
            app.poll_qr(session).await,
            app.check().await,
            app.post("wpp-status", json!({})).await,
            app.create(json!({})).await,
        ] {
            assert!(answer.status < 500, "{odd}: {answer:?}");
        }
    }
    for function in FUNCTIONS {
        let logs = app.sandbox(function).logs().await;
        for metric in ["OwnKeyRejected", "RefreshFailed", "PlatformFailed", "DatabaseFailed", "SecretFailed"]
        {
            assert!(!logs.contains(metric), "{function} {metric}: {logs}");
        }
    }
    let session = app.platform.status_of(&foreign.session).unwrap();
    assert_eq!(session, "qr_required", "the other school's number is as it was");
}
