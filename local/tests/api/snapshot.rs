//! `wpp-status` and `whatsapp_sessions`, the snapshot that the rest of the product reads.

use serde_json::{Value, json};
use std::time::Duration;

use local::fault_injector::{Fault, Point};
use local::lambda::{Answer, Options};
use local::test_app::{Number, TestApp};

async fn status(app: &TestApp) -> Answer {
    app.post("wpp-status", json!({})).await
}

/// Adds a number whose snapshot was just saved as connected.
async fn connected_number(app: &TestApp) -> Number {
    let number = app.number().await;
    app.link(&number).await;
    app.forget_calls();
    number
}

#[tokio::test]
async fn the_snapshot_follows_every_forced_poll() {
    let (app, number) = TestApp::start_with_number().await;
    for (platform_status, state) in [
        ("starting", "pairing"),
        ("qr_required", "qr_issued"),
        ("connected", "connected"),
        ("offline", "disconnected"),
        ("connected", "connected"),
        ("qr_required", "qr_issued"),
    ] {
        app.platform.set_status(&number.session, platform_status).unwrap();
        for writes in [1, 0] {
            let answer = app.check().await;
            assert_eq!(app.count("rpc/wpp_save_snapshot"), writes, "{platform_status}");
            app.forget_calls();
            let row = app.snapshot_row(&number.session).await;
            assert_eq!((&row["status"], &row["last_qr_b64"]), (&json!(state), &answer.json["qrcode"]));
        }
        let row = app.snapshot_row(&number.session).await;
        assert_eq!(row["last_qr_b64"].is_string(), state == "qr_issued", "{row}");
        assert_eq!(row["last_qr_at"].is_string(), state == "qr_issued", "{row}");
    }
}

/// The other functions also write to `whatsapp_sessions`, but never change the QR.
#[tokio::test]
async fn last_qr_at_is_when_the_qr_was_first_seen() {
    let (app, number) = TestApp::start_with_number().await;
    app.age_snapshot(5).await;
    let first = app.snapshot_row(&number.session).await;
    let first_answered = status(&app).await.json["last_qr_at"].clone();
    app.sql.batch_execute("update whatsapp_sessions set status = 'disconnected'").await.unwrap();
    assert_eq!(status(&app).await.json["last_qr_at"], first_answered);
    let row = app.snapshot_row(&number.session).await;
    assert_eq!((&row["status"], &row["last_qr_at"]), (&json!("qr_issued"), &first["last_qr_at"]));

    app.age_snapshot(30).await;
    let last = app.snapshot_row(&number.session).await;
    app.platform.advance(Duration::from_secs(20));
    let answer = status(&app).await;
    let next = app.snapshot_row(&number.session).await;
    assert_eq!(next["last_qr_b64"], answer.json["qrcode"]);
    assert_ne!(next["last_qr_b64"], last["last_qr_b64"]);
    assert_ne!(next["last_qr_at"], last["last_qr_at"]);
    assert_eq!(next["created_at"], last["created_at"]);
}

#[tokio::test]
async fn an_outage_disconnects_no_number() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "500")], Options::default()).await;
    let number = connected_number(&app).await;
    app.age_snapshot(3600).await;
    let saved = app.snapshot_row(&number.session).await;
    // Answers of a proxy in front of the platform: it asks for a password, suspects a bot, or does not know the address.
    let gateways = [(401, "<html>"), (403, "<html>"), (404, "404 page not found"), (404, "")];
    let gateways = gateways.map(|(status, body)| Fault::status_with(status, body));
    let outages = [Fault::status(503), Fault::status(429), Fault::Drop, Fault::Html, Fault::NoHeaders];
    for fault in outages.into_iter().chain(gateways) {
        app.inject("status", fault.clone());
        let answer = status(&app).await.expect(200, "connected");
        assert_eq!(answer.json["stale"], true, "{answer:?}");
        assert!(answer.json["message"].as_str().unwrap().contains("last known state"), "{answer:?}");
        let (seen_at, updated_at) = (answer.json["seen_at"].as_str(), saved["updated_at"].as_str());
        assert_eq!(seen_at.unwrap()[..19], updated_at.unwrap()[..19], "{answer:?}");
        let forced = app.check().await;
        assert!(forced.status >= 500 && forced.json["success"] == false, "{fault:?} {forced:?}");
        app.clear_faults();
    }
    assert_eq!(app.snapshot_row(&number.session).await, saved);
    assert_eq!(status(&app).await.json.get("stale"), None);
}

/// A person who opens the panel should see the last known state sooner than a live one.
#[tokio::test]
async fn snapshot_is_returned_early_if_the_platform_hangs() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "60000")], Options::default()).await;
    connected_number(&app).await;
    app.age_snapshot(3600).await;
    let _hold = app.hold("status", Point::Before);
    // Well below the request's budget of 25 s.
    let answer = tokio::time::timeout(Duration::from_secs(15), status(&app)).await.unwrap();
    assert_eq!((answer.status, &answer.json["stale"]), (200, &json!(true)), "{answer:?}");
}

#[tokio::test]
async fn outage_hides_an_expired_qr() {
    let (app, number) = TestApp::start_with_number().await;
    app.platform.faults.inject("*", Fault::status(503));
    app.age_snapshot(24).await;
    assert_eq!(status(&app).await.json["qrcode"], app.snapshot_row(&number.session).await["last_qr_b64"]);
    app.age_snapshot(2).await;
    let answer = status(&app).await;
    assert_eq!(
        (&answer.json["status"], &answer.json["qrcode"]),
        (&json!("qr_pending"), &Value::Null),
        "{answer:?}"
    );
    assert_eq!(answer.json["stale"], true);
}

#[tokio::test]
async fn unchanged_state_is_saved_once_a_minute() {
    let app = TestApp::start().await;
    connected_number(&app).await;
    for (age, writes) in [(50, 0), (20, 1), (0, 0)] {
        app.age_snapshot(age).await;
        app.forget_calls();
        app.check().await;
        assert_eq!(app.count("rpc/wpp_save_snapshot"), writes, "{age} s later");
    }
}
