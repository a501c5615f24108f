//! What `wpp-qr` and `wpp-status` say when the platform or the database fails them: an error, and never a state.

use serde_json::json;

use local::fault_injector::Fault;
use local::lambda::{Answer, Options};
use local::test_app::{Number, TestApp};

fn status(status: u16) -> Fault {
    Fault::Status { status, body: "<html>".to_owned(), retry_after_s: None }
}

/// A poll of each function, past what is remembered.
async fn polls(app: &TestApp, number: &Number) -> [Answer; 2] {
    [app.poll_qr(&number.session).await, app.post("wpp-status", json!({"force": true})).await]
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{answer:?}");
    assert_eq!(answer.json["success"], false);
    assert!(answer.json["error"].is_string());
    assert_eq!((answer.json.get("status"), answer.json.get("qr")), (None, None));
}

/// The original said `qr: null`, and `disconnected`.
#[tokio::test]
async fn a_platform_that_fails_is_an_error_and_leaves_the_mirror_alone() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let mirror = app.mirror(&number.session).await;
    for (fault, http, code) in [
        (status(500), 502, "platform_unavailable"),
        (status(502), 502, "platform_unavailable"),
        (Fault::Html, 502, "platform_bad_answer"),
        (Fault::Body("null".to_owned()), 502, "platform_bad_answer"),
        (status(429), 503, "platform_busy"),
        (status(403), 502, "platform_refused"),
        (Fault::Drop, 502, "platform_unavailable"),
    ] {
        for endpoint in ["qr", "status"] {
            app.stack.platform.faults.inject(endpoint, fault.clone());
        }
        for answer in polls(&app, &number).await {
            assert_refused(&answer, http, code);
        }
    }
    assert_eq!(app.mirror(&number.session).await, mirror);
}

/// The original passed the platform's own words on, or said `disconnected`.
#[tokio::test]
async fn a_token_that_cannot_be_had_is_an_error_that_tells_a_dead_key_from_a_platform_in_trouble() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.settle_keys().await;
    app.set_token_end(&number, -3600).await;
    app.stack.platform.faults.inject("token", status(500));
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 502, "platform_unavailable");
    }
    app.stack.platform.faults.clear();
    app.stack.platform.revoke_key(&number.key);
    app.sql.batch_execute("update wpp_token_leases set retry_at = now()").await.unwrap();
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 409, "api_key_rejected");
        assert!(answer.json["hint"].as_str().unwrap().contains("connect it again"));
    }
}

/// The original said `not found`, or `disconnected`.
#[tokio::test]
async fn a_database_that_does_not_answer_is_an_error_and_the_platform_is_not_asked() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.stack.supabase.faults.inject("*", status(503));
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 503, "database_unavailable");
    }
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 6}));
}

/// The original waited for 30 s, or without an end.
#[tokio::test]
async fn a_platform_that_hangs_is_a_timeout() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1000")], Options::default()).await;
    let number = app.number().await;
    for fault in [Fault::SlowHeaders, Fault::SlowBody] {
        for endpoint in ["qr", "status"] {
            app.stack.platform.faults.inject(endpoint, fault.clone());
        }
        for answer in polls(&app, &number).await {
            assert_refused(&answer, 504, "platform_timeout");
        }
    }
    app.stack.platform.faults.clear();
    app.set_token_end(&number, -3600).await;
    app.stack.platform.faults.inject("token", Fault::SlowHeaders);
    assert_refused(&app.poll_qr(&number.session).await, 504, "platform_timeout");
}

/// Were one call given all of the request's time, none would be left for the next.
#[tokio::test]
async fn a_database_that_hangs_over_a_new_token_leaves_time_for_the_poll() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1000")], Options::default()).await;
    let number = app.number().await;
    app.set_token_end(&number, -3600).await;
    app.stack.supabase.faults.inject("rpc/wpp_save_token", Fault::SlowHeaders);
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.json["qr"], json!(app.stack.platform.qr_of(&number.session).unwrap()), "{answer:?}");
    assert_eq!(app.calls()["rpc/wpp_save_token"], 1);
}

/// The original wrote each QR into its log: whoever reads it can log in.
#[tokio::test]
async fn no_qr_no_key_and_no_token_is_ever_logged() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let mut secrets =
        vec![number.key.clone(), app.school.token.clone(), app.stack.platform.secret().to_owned()];
    secrets.extend(app.stack.platform.tokens_of(&number.session));
    secrets.extend(app.stack.platform.qr_of(&number.session));
    secrets.push(app.stack.keys.service_role_key());
    polls(&app, &number).await;
    app.stack.platform.forget_tokens();
    polls(&app, &number).await;
    secrets.extend(app.stack.platform.tokens_of(&number.session));
    // An answer that breaks the rules is most tempting to log.
    let qr = app.stack.platform.qr_of(&number.session).unwrap();
    app.stack.platform.faults.inject("*", Fault::Body(format!("{{\"qr\": [{qr:?}], \"status\": [{qr:?}]}}")));
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 502, "platform_bad_answer");
    }
    for name in ["wpp-create", "wpp-qr", "wpp-status"] {
        let logs = app.sandbox(name).logs().await;
        assert!(logs.contains("answered"), "{logs}");
        for secret in &secrets {
            // The start of a secret would be too much already.
            assert!(!logs.contains(&secret[..secret.len().min(16)]), "{name}: {secret} in {logs}");
        }
    }
}

/// A proxy on the way refuses or does not find, in HTML. Who took that for the platform's word would tell every person to
/// give up a number that is linked.
#[tokio::test]
async fn a_proxys_page_says_nothing_of_a_key_or_a_session() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.settle_keys().await;
    let mirror = app.mirror(&number.session).await;
    for endpoint in ["qr", "status"] {
        app.stack.platform.faults.inject(endpoint, status(404));
    }
    for answer in polls(&app, &number).await {
        assert_refused(&answer, 502, "platform_refused");
    }
    for refusal in [status(401), status(403), status(404)] {
        app.stack.platform.faults.inject("token", refusal);
        app.set_token_end(&number, -1).await;
        app.end_waits(&number).await;
        for answer in polls(&app, &number).await {
            assert!(
                matches!(answer.json["code"].as_str(), Some("platform_refused" | "platform_unavailable")),
                "{answer:?}"
            );
        }
    }
    assert_eq!(app.mirror(&number.session).await, mirror);
    // Nor is a key that is refused so one to be replaced.
    let before = app.settings(&number).await;
    app.end_waits(&number).await;
    let answer = app.post("wpp-create", json!({"force_recreate": true})).await;
    assert_refused(&answer, 502, "platform_refused");
    assert_eq!(app.settings(&number).await, before);
}
