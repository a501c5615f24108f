//! `wpp-create` between the credentials and the QR: a wait with an end, and troubles that do not matter.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::Duration;

use serde_json::{Value, json};

use local::clock::unix_ms;
use local::events::Event;
use local::gate::Fault;
use local::gate::Point::{self, After};
use local::lambda::{Answer, Options};
use local::platform::StartAnswer;
use local::stage::Stage;

/// More looks than any wait has time for.
const NEVER: u32 = 1_000_000;

#[tokio::test]
async fn the_wait_for_a_qr_ends_before_the_requests_deadline() {
    let stage = Stage::start().await;
    stage.world.platform.behave(|manners| manners.looks_until_qr = NEVER);
    let event = Event::post("wpp-create").bearer(&stage.school.token).json(&json!({})).v2();
    let answer = stage.sandbox("wpp-create").invoke_by(event, unix_ms() + 4_000).await.answered().unwrap();
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("starting")), "{answer:?}");
    // There was time left to remember it, too.
    assert_eq!(stage.mirror(answer.json["session"].as_str().unwrap()).await["status"], "pairing");
}

#[tokio::test]
async fn a_qr_that_takes_some_looks_is_waited_for() {
    let stage = Stage::start().await;
    stage.world.platform.behave(|manners| manners.looks_until_qr = 3);
    let answer = stage.post("wpp-create", json!({})).await;
    let session = answer.json["session"].as_str().unwrap();
    assert_eq!(answer.json["qrcode"], json!(stage.world.platform.qr_of(session).unwrap()), "{answer:?}");
    assert_eq!(stage.mirror(session).await["status"], "qr_issued");
}

#[tokio::test]
async fn a_qr_that_the_start_brings_is_not_asked_for_again() {
    let stage = Stage::start().await;
    stage.world.platform.behave(|manners| manners.start_answer = StartAnswer::Qr);
    let answer = stage.post("wpp-create", json!({})).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    let calls = json!({
        "rpc/wpp_begin_creation": 1, "create": 1, "rpc/wpp_save_credentials": 1,
        "rpc/wpp_claim_refresh": 1, "token": 1, "rpc/wpp_save_token": 1,
        "webhook": 1, "rpc/wpp_save_webhook": 1, "start": 1, "rpc/wpp_remember_session": 1,
    });
    assert_eq!(stage.calls(), calls);
}

#[tokio::test]
async fn a_webhook_that_fails_or_hangs_keeps_nobody_from_the_qr() {
    let stage = Stage::start().await;
    for fault in [Fault::status(500), Fault::Drop, Fault::SlowHeaders] {
        let school = stage.world.organisation("webhook").await.unwrap();
        stage.world.platform.gate.inject("webhook", fault.clone());
        let answer = stage.post_as(&school, "wpp-create", json!({})).await;
        assert_eq!(answer.json["status"], "qr_issued", "{fault:?} {answer:?}");
        stage.world.platform.gate.clear();
        // The next call makes up for it.
        let again = stage.post_as(&school, "wpp-create", json!({})).await;
        let webhook = stage.world.platform.webhook_of(again.json["session"].as_str().unwrap());
        assert_eq!(webhook.unwrap(), format!("{}/functions/v1/wpp-webhook", stage.world.supabase.url()));
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_had_yet_does_not_fail_the_creation_and_the_first_poll_gets_it() {
    let stage = Stage::start_with(&[("QR_WAIT_MS", "1000")], Options::default()).await;
    stage.world.platform.behave(|manners| manners.activate_after = 2);
    // The repetition finds the number already made, and its key no more active.
    for _ in 0..2 {
        let answer = stage.post("wpp-create", json!({})).await;
        assert_eq!((answer.status, &answer.json["status"]), (200, &json!("starting")), "{answer:?}");
        // A token is not asked for again within a second of a failure; this test does not wait for that.
        stage.sql.execute("update wpp_token_leases set retry_at = null", &[]).await.unwrap();
    }
    let poll = stage.post("wpp-status", json!({})).await;
    assert_eq!((poll.status, &poll.json["platform_status"]), (200, &json!("offline")), "{poll:?}");
    assert_eq!(stage.world.platform.clients(), 1);
}

#[tokio::test]
async fn what_was_not_seen_does_not_replace_in_the_mirror_what_was() {
    let stage = Stage::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    let line = stage.number().await;
    stage.settle_keys().await;
    stage.world.platform.scan(&line.session).unwrap();
    assert_eq!(stage.post("wpp-status", json!({"force": true})).await.json["status"], "connected");
    // The platform takes the start, and is not heard of again.
    stage.world.platform.set_status(&line.session, "offline").unwrap();
    stage.world.platform.gate.inject("start", Fault::Body("{}".to_owned()));
    let hold = stage.world.platform.gate.hold_one("start", After);
    let hang = async {
        hold.reached(1).await;
        stage.world.platform.gate.inject("status", Fault::SlowHeaders);
        hold.release();
    };
    let (answer, ()) = tokio::join!(stage.post("wpp-create", json!({})), hang);
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("starting")), "{answer:?}");
    assert_eq!(stage.mirror(&line.session).await["status"], "connected");
}

/// The time for a QR is over before the session was even started: that is no number that is starting.
#[tokio::test]
async fn a_platform_that_hangs_before_the_start_is_a_timeout() {
    let stage = Stage::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    let line = stage.number().await;
    stage.settle_keys().await;
    for endpoint in ["status", "start"] {
        stage.world.platform.gate.inject(endpoint, Fault::SlowHeaders);
        let answer = stage.post("wpp-create", json!({})).await;
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (504, &json!("platform_timeout")),
            "{endpoint}: {answer:?}"
        );
        stage.world.platform.gate.clear();
    }
    let answer = stage.post("wpp-create", json!({})).await;
    assert_eq!((answer.status, &answer.json["session"]), (200, &json!(line.session)), "{answer:?}");
}

#[tokio::test]
async fn every_answer_to_a_start_is_understood() {
    let stage = Stage::start().await;
    for (start_answer, looks, status) in [
        (StartAnswer::QrAlone, 0, "qr_issued"),
        (StartAnswer::Word("ready"), 0, "connected"),
        (StartAnswer::Word("pending"), 1, "qr_issued"),
        (StartAnswer::State, 1, "qr_issued"),
    ] {
        let school = stage.world.organisation("start").await.unwrap();
        stage.world.platform.behave(|manners| manners.start_answer = start_answer);
        stage.forget_calls();
        let answer = stage.post_as(&school, "wpp-create", json!({})).await;
        assert_eq!(answer.json["status"], status, "{start_answer:?}: {answer:?}");
        assert_eq!(stage.world.platform.gate.count("qr"), looks, "{start_answer:?}");
    }
}

/// The number's webhook, as the platform has it and as an answer tells it.
async fn webhook(stage: &Stage, answer: &Answer) -> (bool, Value) {
    let session = answer.json["session"].as_str().or(answer.json["account_number"].as_str()).unwrap();
    (stage.world.platform.webhook_of(session).is_some(), answer.json["webhook"].clone())
}

#[tokio::test]
async fn a_platform_that_takes_no_webhook_before_the_start_is_asked_again_after_it() {
    let stage = Stage::start().await;
    stage.world.platform.behave(|manners| manners.webhook_needs_start = true);
    let answer = stage.post("wpp-create", json!({})).await;
    assert_eq!(webhook(&stage, &answer).await, (true, json!("registered")), "{answer:?}");
    assert_eq!(stage.calls()["webhook"], 2);
}

#[tokio::test]
async fn a_webhook_that_failed_is_registered_once_the_number_is_seen_connected() {
    let stage = Stage::start().await;
    stage.world.platform.gate.inject("webhook", Fault::status(503));
    let created = stage.post("wpp-create", json!({})).await;
    assert_eq!(webhook(&stage, &created).await, (false, json!("pending")), "{created:?}");
    assert_eq!(created.json["code"], Value::Null, "a number that is not linked has nothing to miss yet");
    stage.world.platform.scan(created.json["session"].as_str().unwrap()).unwrap();
    stage.settle_keys().await;

    let look = async || stage.post("wpp-status", json!({"force": true})).await;
    let linked = look().await;
    assert_eq!(
        (&linked.json["status"], &linked.json["code"]),
        (&json!("connected"), &json!("webhook_pending"))
    );
    assert_eq!(webhook(&stage, &linked).await, (false, json!("pending")));
    stage.world.platform.gate.clear();
    // It was tried just now, and not again before a minute has passed.
    stage.forget_calls();
    assert_eq!(look().await.json["webhook"], "pending");
    assert_eq!(stage.post("wpp-create", json!({})).await.json["webhook"], "pending");
    assert_eq!(stage.world.platform.gate.count("webhook"), 0);

    let minute = "update wpp_numbers set webhook_tried_at = webhook_tried_at - interval '1 minute'";
    for name in ["wpp-status", "wpp-create"] {
        stage.sql.execute("update wpp_numbers set webhook_url = null", &[]).await.unwrap();
        stage.sql.execute(minute, &[]).await.unwrap();
        stage.forget_calls();
        let answer = stage.post(name, json!({"force": true})).await;
        assert_eq!(webhook(&stage, &answer).await, (true, json!("registered")), "{name}: {answer:?}");
        assert_eq!(answer.json["code"], Value::Null, "{answer:?}");
        assert_eq!(stage.world.platform.gate.count("webhook"), 1, "{name}");
    }
}

/// A school that moves its webhook elsewhere has its numbers follow.
#[tokio::test]
async fn a_webhook_that_is_registered_elsewhere_is_pending() {
    let stage = Stage::start().await;
    stage.post("wpp-create", json!({})).await;
    stage.sql.execute("update wpp_numbers set webhook_url = 'https://old.example'", &[]).await.unwrap();
    assert_eq!(stage.post("wpp-status", json!({})).await.json["webhook"], "pending");
    let again = stage.post("wpp-create", json!({})).await;
    assert_eq!(webhook(&stage, &again).await, (true, json!("registered")), "{again:?}");
}

#[tokio::test]
async fn a_webhook_that_hangs_keeps_nobody_from_an_answer_for_long() {
    let stage = Stage::start().await;
    let created = stage.post("wpp-create", json!({})).await;
    stage.world.platform.scan(created.json["session"].as_str().unwrap()).unwrap();
    stage.sql.execute("update wpp_numbers set webhook_url = null", &[]).await.unwrap();
    let _hold = stage.world.platform.gate.hold("webhook", Point::Before);
    let look = stage.post("wpp-status", json!({"force": true}));
    let answer = tokio::time::timeout(Duration::from_secs(7), look).await.unwrap();
    assert_eq!((&answer.json["status"], &answer.json["webhook"]), (&json!("connected"), &json!("pending")));
}
