//! `wpp-create` after the number has its credentials: waiting for the QR ends in time, and the webhook never delays an answer.

use std::time::Duration;

use serde_json::{Value, json};

use local::clock::unix_ms;
use local::fault_injector::Fault;
use local::fault_injector::Point::{self, After};
use local::lambda::{Answer, Options};
use local::platform::StartAnswer;
use local::test_app::TestApp;

#[tokio::test]
async fn create_waits_for_a_late_qr() {
    let app = TestApp::start().await;
    // Each request for the status or the QR counts as one poll.
    app.platform.behave(|behavior| behavior.looks_until_qr = 2);
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    let session = answer.text("session");
    assert_eq!(answer.json["qrcode"], app.shown_qr(session), "{answer:?}");
    assert_eq!(app.mirror(session).await["status"], "qr_issued");
    let calls = app.calls();
    assert_eq!((&calls["start"], &calls["status"], &calls["qr"]), (&json!(1), &json!(2), &json!(2)));
}

#[tokio::test]
async fn failed_webhook_does_not_delay_the_qr() {
    let app = TestApp::start().await;
    for fault in [Fault::status(500), Fault::Drop, Fault::SlowHeaders] {
        let school = app.organization("webhook").await.unwrap();
        app.inject("webhook", fault.clone());
        app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
        app.clear_faults();
        // The next call registers the webhook.
        let again = app.post_as(&school, "wpp-create", json!({})).await;
        let webhook = app.platform.webhook_of(again.text("session"));
        assert_eq!(webhook.unwrap(), format!("{}/functions/v1/wpp-webhook", app.supabase.url()));
    }
}

#[tokio::test]
async fn unreported_state_is_not_saved() {
    let app = TestApp::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    let number = app.settled_number().await;
    app.link(&number).await;
    // The platform accepts the start, then stops answering.
    app.platform.set_status(&number.session, "offline").unwrap();
    app.inject("start", Fault::Body("{}".to_owned()));
    let hold = app.hold_one("start", After);
    let hang = async {
        hold.reached(1).await;
        app.inject("status", Fault::SlowHeaders);
        hold.release();
    };
    let (answer, ()) = tokio::join!(app.create(json!({})), hang);
    assert_eq!(answer.told(), (200, "starting"), "{answer:?}");
    assert_eq!(app.mirror(&number.session).await["status"], "connected");
}

/// Each step has its own timeout, and the wait for the QR begins after them.
#[tokio::test]
async fn slow_start_does_not_shorten_the_qr_wait() {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| (behavior.activate_after, behavior.looks_until_qr) = (2, 2));
    app.inject("webhook", Fault::SlowHeaders);
    app.inject("start", Fault::Delay { ms: 4000 });
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(app.platform.status_of(answer.text("session")).unwrap(), "qr_required");
    assert_eq!((app.count("token"), app.count("start")), (3, 1));
}

/// A new account has ten sandboxes: ten people who connect at once must not hold all of them for longer than this.
#[tokio::test]
async fn create_waits_three_seconds_for_a_qr() {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| behavior.looks_until_qr = u32::MAX);
    let began = unix_ms();
    app.create(json!({})).await.expect(200, "starting");
    let took = unix_ms() - began;
    assert!((3000..6000).contains(&took), "{took} ms");
}

/// If the session was not started, the answer must not say `starting`.
#[tokio::test]
async fn hanging_platform_before_the_start_is_a_timeout() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1500")], Options::default()).await;
    let number = app.settled_number().await;
    for endpoint in ["status", "start"] {
        app.inject(endpoint, Fault::SlowHeaders);
        app.create(json!({})).await.expect(504, "platform_timeout");
        app.clear_faults();
    }
    let answer = app.create(json!({})).await;
    assert_eq!((answer.status, &answer.json["session"]), (200, &json!(number.session)), "{answer:?}");
}

#[tokio::test]
async fn every_answer_to_a_start_is_understood() {
    let app = TestApp::start().await;
    for (start_answer, status, asked) in [
        (StartAnswer::Qr, "qr_issued", &[][..]),
        (StartAnswer::QrAlone, "qr_issued", &[]),
        (StartAnswer::Word("ready"), "connected", &[]),
        (StartAnswer::Word("pending"), "qr_issued", &["status", "qr"]),
        (StartAnswer::State, "qr_issued", &["status", "qr"]),
    ] {
        let school = app.organization("start").await.unwrap();
        app.platform.behave(|behavior| behavior.start_answer = start_answer);
        app.forget_calls();
        let answer = app.post_as(&school, "wpp-create", json!({})).await;
        assert_eq!(answer.json["status"], status, "{start_answer:?}: {answer:?}");
        let mut calls = json!({
            "rpc/wpp_begin_creation": 1, "create": 1, "rpc/wpp_save_credentials": 1,
            "rpc/wpp_claim_refresh": 1, "token": 1, "rpc/wpp_save_token": 1,
            "webhook": 1, "rpc/wpp_save_webhook": 1, "start": 1, "rpc/wpp_save_snapshot": 1,
        });
        asked.iter().for_each(|endpoint| calls[*endpoint] = json!(1));
        assert_eq!(app.calls(), calls, "{start_answer:?}");
    }
}

/// Any 2xx counts as success, and so does an error that says "already": the session is running, so its QR is fetched.
#[tokio::test]
async fn session_already_running_returns_its_qr() {
    let app = TestApp::start().await;
    let session = app.create(json!({})).await.expect(200, "qr_issued").text("session").to_owned();
    for (status, body) in [
        (204, ""),
        (202, ""),
        (200, "OK"),
        (200, "null"),
        (409, r#"{"error":"Session is running"}"#),
        (400, r#"{"error":"Session already started"}"#),
        (403, "Instance Already in use"),
        (422, r#"{"message":"already exists"}"#),
        (500, r#"{"error":"already initialized"}"#),
    ] {
        app.inject("start", Fault::status_with(status, body));
        let answer = app.create(json!({})).await.expect(200, "qr_issued");
        assert_eq!(answer.json["qrcode"], app.shown_qr(&session), "{status} {body}");
    }
    app.inject("start", Fault::status_with(403, r#"{"error":"no"}"#));
    app.create(json!({})).await.expect(409, "platform_refused");
}

#[tokio::test]
async fn start_with_linked_phone_asks_nothing_more() {
    let app = TestApp::start().await;
    let created = app.create(json!({})).await;
    app.platform.behave(|behavior| behavior.start_answer = StartAnswer::State);
    app.platform.set_status(created.text("session"), "connected").unwrap();
    app.forget_calls();
    app.create(json!({})).await.expect(200, "connected");
    assert_eq!(
        app.calls(),
        json!({"rpc/wpp_begin_creation": 1, "webhook": 1, "start": 1, "rpc/wpp_save_snapshot": 1})
    );
}

/// Returns whether the platform has the number's webhook, and what the answer says about it.
async fn webhook(app: &TestApp, answer: &Answer) -> (bool, Value) {
    let session = answer.json["session"].as_str().or(answer.json["account_number"].as_str()).unwrap();
    (app.platform.webhook_of(session).is_some(), answer.json["webhook"].clone())
}

#[tokio::test]
async fn a_refused_webhook_is_registered_after_the_start() {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| behavior.webhook_needs_start = true);
    let answer = app.create(json!({})).await;
    assert_eq!(webhook(&app, &answer).await, (true, json!("registered")), "{answer:?}");
    assert_eq!(app.calls()["webhook"], 2);
}

#[tokio::test]
async fn a_failed_webhook_is_registered_when_connected() {
    let app = TestApp::start().await;
    app.inject("webhook", Fault::status(503));
    let created = app.create(json!({})).await;
    assert_eq!(webhook(&app, &created).await, (false, json!("pending")), "{created:?}");
    assert_eq!(created.json["code"], Value::Null, "a number that is not linked cannot miss messages yet");
    app.platform.scan(created.text("session")).unwrap();
    app.settle_keys().await;

    let linked = app.check().await;
    assert_eq!(
        (&linked.json["status"], &linked.json["code"]),
        (&json!("connected"), &json!("webhook_pending"))
    );
    assert_eq!(webhook(&app, &linked).await, (false, json!("pending")));
    app.clear_faults();
    // It was just tried, so it is not tried again for a minute.
    app.forget_calls();
    assert_eq!(app.check().await.json["webhook"], "pending");
    assert_eq!(app.create(json!({})).await.json["webhook"], "pending");
    assert_eq!(app.count("webhook"), 0);

    let minute = "update wpp_numbers set webhook_tried_at = webhook_tried_at - interval '1 minute'";
    for name in ["wpp-status", "wpp-create"] {
        app.sql.execute("update wpp_numbers set webhook_url = null", &[]).await.unwrap();
        app.sql.execute(minute, &[]).await.unwrap();
        app.forget_calls();
        let body = if name == "wpp-status" { json!({"force": true}) } else { json!({}) };
        let answer = app.post(name, body).await;
        assert_eq!(webhook(&app, &answer).await, (true, json!("registered")), "{name}: {answer:?}");
        assert_eq!(answer.json["code"], Value::Null, "{answer:?}");
        assert_eq!(app.count("webhook"), 1, "{name}");
    }
}

/// If the webhook's URL changes, each number is registered again.
#[tokio::test]
async fn webhook_with_an_old_url_is_pending() {
    let app = TestApp::start().await;
    app.create(json!({})).await;
    app.sql.execute("update wpp_numbers set webhook_url = 'https://old.example'", &[]).await.unwrap();
    assert_eq!(app.post("wpp-status", json!({})).await.json["webhook"], "pending");
    let again = app.create(json!({})).await;
    assert_eq!(webhook(&app, &again).await, (true, json!("registered")), "{again:?}");
}

#[tokio::test]
async fn hanging_webhook_does_not_block_the_answer() {
    let app = TestApp::start().await;
    let created = app.create(json!({})).await;
    app.platform.scan(created.text("session")).unwrap();
    app.sql.execute("update wpp_numbers set webhook_url = null", &[]).await.unwrap();
    let _hold = app.hold("webhook", Point::Before);
    let check = app.check();
    let answer = tokio::time::timeout(Duration::from_secs(7), check).await.unwrap();
    assert_eq!((&answer.json["status"], &answer.json["webhook"]), (&json!("connected"), &json!("pending")));
}
