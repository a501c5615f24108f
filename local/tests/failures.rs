//! What `wpp-qr` and `wpp-status` say when the platform or the database fails them: an error, and never a state.

use serde_json::json;

use local::gate::Fault;
use local::lambda::{Answer, Options};
use local::stage::{Line, Stage};

fn status(status: u16) -> Fault {
    Fault::Status { status, body: "<html>".to_owned(), retry_after_s: None }
}

/// A poll of each function, past what is remembered.
async fn polls(stage: &Stage, line: &Line) -> [Answer; 2] {
    [stage.poll_qr(&line.session).await, stage.post("wpp-status", json!({"force": true})).await]
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
    let stage = Stage::start().await;
    let line = stage.number().await;
    let mirror = stage.mirror(&line.session).await;
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
            stage.world.platform.gate.inject(endpoint, fault.clone());
        }
        for answer in polls(&stage, &line).await {
            assert_refused(&answer, http, code);
        }
    }
    assert_eq!(stage.mirror(&line.session).await, mirror);
}

/// The original passed the platform's own words on, or said `disconnected`.
#[tokio::test]
async fn a_token_that_cannot_be_had_is_an_error_that_tells_a_dead_key_from_a_platform_in_trouble() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.settle_keys().await;
    stage.set_token_end(&line, -3600).await;
    stage.world.platform.gate.inject("token", status(500));
    for answer in polls(&stage, &line).await {
        assert_refused(&answer, 502, "platform_unavailable");
    }
    stage.world.platform.gate.clear();
    stage.world.platform.revoke_key(&line.key);
    stage.sql.batch_execute("update wpp_token_leases set retry_at = now()").await.unwrap();
    for answer in polls(&stage, &line).await {
        assert_refused(&answer, 409, "api_key_rejected");
        assert!(answer.json["hint"].as_str().unwrap().contains("connect it again"));
    }
}

/// The original said `not found`, or `disconnected`.
#[tokio::test]
async fn a_database_that_does_not_answer_is_an_error_and_the_platform_is_not_asked() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.world.supabase.gate.inject("*", status(503));
    for answer in polls(&stage, &line).await {
        assert_refused(&answer, 503, "database_unavailable");
    }
    assert_eq!(stage.calls(), json!({"rpc/wpp_find_number": 6}));
}

/// The original waited for 30 s, or without an end.
#[tokio::test]
async fn a_platform_that_hangs_is_a_timeout() {
    let stage = Stage::start_with(&[("UPSTREAM_TIMEOUT_MS", "1000")], Options::default()).await;
    let line = stage.number().await;
    for fault in [Fault::SlowHeaders, Fault::SlowBody] {
        for endpoint in ["qr", "status"] {
            stage.world.platform.gate.inject(endpoint, fault.clone());
        }
        for answer in polls(&stage, &line).await {
            assert_refused(&answer, 504, "platform_timeout");
        }
    }
    stage.world.platform.gate.clear();
    stage.set_token_end(&line, -3600).await;
    stage.world.platform.gate.inject("token", Fault::SlowHeaders);
    assert_refused(&stage.poll_qr(&line.session).await, 504, "platform_timeout");
}

/// Were one call given all of the request's time, none would be left for the next.
#[tokio::test]
async fn a_database_that_hangs_over_a_new_token_leaves_time_for_the_poll() {
    let stage = Stage::start_with(&[("UPSTREAM_TIMEOUT_MS", "1000")], Options::default()).await;
    let line = stage.number().await;
    stage.set_token_end(&line, -3600).await;
    stage.world.supabase.gate.inject("rpc/wpp_save_token", Fault::SlowHeaders);
    let answer = stage.poll_qr(&line.session).await;
    assert_eq!(answer.json["qr"], json!(stage.world.platform.qr_of(&line.session).unwrap()), "{answer:?}");
    assert_eq!(stage.calls()["rpc/wpp_save_token"], 1);
}

/// The original wrote each QR into its log: whoever reads it can log in.
#[tokio::test]
async fn no_qr_no_key_and_no_token_is_ever_logged() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    let mut secrets =
        vec![line.key.clone(), stage.school.token.clone(), stage.world.platform.secret().to_owned()];
    secrets.extend(stage.world.platform.tokens_of(&line.session));
    secrets.extend(stage.world.platform.qr_of(&line.session));
    secrets.push(stage.world.keys.service_role_key());
    polls(&stage, &line).await;
    stage.world.platform.forget_tokens();
    polls(&stage, &line).await;
    secrets.extend(stage.world.platform.tokens_of(&line.session));
    // An answer that breaks the rules is most tempting to log.
    let qr = stage.world.platform.qr_of(&line.session).unwrap();
    stage.world.platform.gate.inject("*", Fault::Body(format!("{{\"qr\": [{qr:?}], \"status\": [{qr:?}]}}")));
    for answer in polls(&stage, &line).await {
        assert_refused(&answer, 502, "platform_bad_answer");
    }
    for name in ["wpp-create", "wpp-qr", "wpp-status"] {
        let logs = stage.sandbox(name).logs().await;
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
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.settle_keys().await;
    let mirror = stage.mirror(&line.session).await;
    for endpoint in ["qr", "status"] {
        stage.world.platform.gate.inject(endpoint, status(404));
    }
    for answer in polls(&stage, &line).await {
        assert_refused(&answer, 502, "platform_refused");
    }
    for refusal in [status(401), status(403), status(404)] {
        stage.world.platform.gate.inject("token", refusal);
        stage.set_token_end(&line, -1).await;
        stage.end_waits(&line).await;
        for answer in polls(&stage, &line).await {
            assert!(
                matches!(answer.json["code"].as_str(), Some("platform_refused" | "platform_unavailable")),
                "{answer:?}"
            );
        }
    }
    assert_eq!(stage.mirror(&line.session).await, mirror);
    // Nor is a key that is refused so one to be replaced.
    let before = stage.settings(&line).await;
    stage.end_waits(&line).await;
    let answer = stage.post("wpp-create", json!({"force_recreate": true})).await;
    assert_refused(&answer, 502, "platform_refused");
    assert_eq!(stage.settings(&line).await, before);
}
