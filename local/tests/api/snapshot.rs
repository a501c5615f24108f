//! `wpp-status` and `whatsapp_sessions`, the snapshot that the rest of the product reads.

use serde_json::{Value, json};
use std::time::Duration;

use local::fault_injector::{Fault, Point};
use local::lambda::{Answer, Options};
use local::test_app::{Number, TestApp};

async fn status(app: &TestApp) -> Answer {
    app.post("wpp-status", json!({})).await
}

/// Returns the requests since the last call of this function.
fn calls(app: &TestApp) -> Value {
    let calls = app.calls();
    app.forget_calls();
    calls
}

/// Adds a number whose snapshot was just saved as connected.
async fn connected(app: &TestApp) -> Number {
    let number = app.number().await;
    app.link(&number).await;
    app.forget_calls();
    number
}

#[tokio::test]
async fn a_stored_qr_is_answered_for_25_seconds_unless_force_is_set() {
    let (app, number) = TestApp::start_with_number().await;
    app.age_mirror(15).await;
    let stored = status(&app).await;
    assert_eq!(stored.json["status"], "qr_issued");
    assert_eq!(stored.json["qrcode"], app.shown_qr(&number.session));
    assert_eq!(calls(&app), json!({"rpc/wpp_find_number": 1}));

    let live = app.check().await;
    for field in ["status", "qrcode", "last_qr_at"] {
        assert_eq!(live.json[field], stored.json[field]);
    }
    assert_eq!(calls(&app), json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1}));

    app.age_mirror(10).await;
    status(&app).await;
    assert_eq!(calls(&app), json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1}));
}

/// The webhook reports the scan while a poll waits for the answer with its QR.
#[tokio::test]
async fn a_report_since_a_slow_poll_began_stands_and_is_answered() {
    let (app, number) = TestApp::start_with_number().await;
    app.sql
        .execute("update whatsapp_sessions set status = 'pairing', last_qr_b64 = null", &[])
        .await
        .unwrap();
    let hold = app.hold("status", Point::After);
    let report = async {
        hold.reached(1).await;
        let change = "update whatsapp_sessions set status = 'connected', updated_at = clock_timestamp()";
        app.sql.execute(change, &[]).await.unwrap();
        hold.release();
    };
    let (answer, ()) = tokio::join!(app.check(), report);
    assert_eq!(answer.json["status"], "connected", "{answer:?}");
    assert_eq!(app.mirror(&number.session).await["status"], "connected");
}

/// The original believed `connected` for ever, and `force` did not correct the row.
#[tokio::test]
async fn a_stored_connected_answers_for_10_seconds() {
    let app = TestApp::start().await;
    let number = connected(&app).await;
    app.platform.set_status(&number.session, "offline").unwrap();
    app.age_mirror(5).await;
    assert_eq!(status(&app).await.json["status"], "connected");
    assert_eq!(calls(&app), json!({"rpc/wpp_find_number": 1}));

    app.age_mirror(5).await;
    assert_eq!(status(&app).await.json["status"], "disconnected");
    assert_eq!(calls(&app), json!({"rpc/wpp_find_number": 1, "status": 1, "rpc/wpp_save_snapshot": 1}));
    assert_eq!(app.mirror(&number.session).await["status"], "disconnected");
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
            let row = app.mirror(&number.session).await;
            assert_eq!((&row["status"], &row["last_qr_b64"]), (&json!(state), &answer.json["qrcode"]));
        }
        let row = app.mirror(&number.session).await;
        assert_eq!(row["last_qr_b64"].is_string(), state == "qr_issued", "{row}");
        assert_eq!(row["last_qr_at"].is_string(), state == "qr_issued", "{row}");
    }
}

/// The other functions write here too, and leave the QR unchanged.
#[tokio::test]
async fn each_qr_keeps_the_time_of_its_first_sight() {
    let (app, number) = TestApp::start_with_number().await;
    app.age_mirror(5).await;
    let first = app.mirror(&number.session).await;
    let first_answered = status(&app).await.json["last_qr_at"].clone();
    app.sql.batch_execute("update whatsapp_sessions set status = 'disconnected'").await.unwrap();
    assert_eq!(status(&app).await.json["last_qr_at"], first_answered);
    let row = app.mirror(&number.session).await;
    assert_eq!((&row["status"], &row["last_qr_at"]), (&json!("qr_issued"), &first["last_qr_at"]));

    app.age_mirror(30).await;
    let last = app.mirror(&number.session).await;
    app.platform.advance(Duration::from_secs(20));
    let answer = status(&app).await;
    let next = app.mirror(&number.session).await;
    assert_eq!(next["last_qr_b64"], answer.json["qrcode"]);
    assert_ne!(next["last_qr_b64"], last["last_qr_b64"]);
    assert_ne!(next["last_qr_at"], last["last_qr_at"]);
    assert_eq!(next["created_at"], last["created_at"]);
}

/// The original also ignored a row that could not be written, but it did so silently.
#[tokio::test]
async fn a_snapshot_that_cannot_be_saved_fails_no_request() {
    let (app, number) = TestApp::start_with_number().await;
    app.platform.scan(&number.session).unwrap();
    app.inject_times("rpc/wpp_save_snapshot", 1, Fault::status(500));
    for state in ["qr_issued", "connected"] {
        app.check().await.expect(200, "connected");
        assert_eq!(app.mirror(&number.session).await["status"], state);
        app.age_mirror(30).await;
    }
    let logs = app.sandbox("wpp-status").logs().await;
    assert_eq!(logs.matches("could not be saved").count(), 1, "{logs}");
}

/// The original handed out the other organization's QR, and moved its row.
#[tokio::test]
async fn another_organizations_snapshot_is_not_touched() {
    let (app, number) = TestApp::start_with_number().await;
    let other = app.organization("other").await.unwrap();
    let copy = "insert into messenger_integrations (organization_id, messenger_type, provider, settings)
        select $2, messenger_type, provider, settings from messenger_integrations where id = $1";
    app.sql.execute(copy, &[&number.id, &other.id]).await.unwrap();
    let row = app.mirror(&number.session).await;
    assert_eq!(row["organization_id"], json!(app.school.id.to_string()));

    app.platform.scan(&number.session).unwrap();
    app.post_as(&other, "wpp-status", json!({})).await.expect(200, "connected");
    assert_eq!(app.mirror(&number.session).await, row);
}

#[tokio::test]
async fn an_outage_disconnects_no_number() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "500")], Options::default()).await;
    let number = connected(&app).await;
    app.age_mirror(3600).await;
    let mirror = app.mirror(&number.session).await;
    // What stands before the platform asks for a password, suspects a robot, or knows no such address.
    let gateways = [(401, "<html>"), (403, "<html>"), (404, "404 page not found"), (404, "")];
    let gateways = gateways.map(|(status, body)| Fault::status_with(status, body));
    let outages = [Fault::status(503), Fault::status(429), Fault::Drop, Fault::Html, Fault::SlowHeaders];
    for fault in outages.into_iter().chain(gateways) {
        app.inject("status", fault.clone());
        let answer = status(&app).await.expect(200, "connected");
        assert_eq!(answer.json["stale"], true, "{answer:?}");
        assert!(answer.json["message"].as_str().unwrap().contains("last known state"), "{answer:?}");
        let (seen_at, updated_at) = (answer.json["seen_at"].as_str(), mirror["updated_at"].as_str());
        assert_eq!(seen_at.unwrap()[..19], updated_at.unwrap()[..19], "{answer:?}");
        let forced = app.check().await;
        assert!(forced.status >= 500 && forced.json["success"] == false, "{fault:?} {forced:?}");
        app.clear_faults();
    }
    assert_eq!(app.mirror(&number.session).await, mirror);
    assert_eq!(status(&app).await.json.get("stale"), None);
}

#[tokio::test]
async fn an_outage_without_a_snapshot_is_an_error() {
    let app = TestApp::start().await;
    app.number().await;
    app.sql.execute("delete from whatsapp_sessions", &[]).await.unwrap();
    app.inject("status", Fault::status(503));
    assert_eq!(status(&app).await.json["code"], "platform_unavailable");
}

/// A person who opens the panel waits for the last known state for less than for the present one.
#[tokio::test]
async fn a_hanging_platform_is_not_waited_for_with_a_snapshot() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "60000")], Options::default()).await;
    connected(&app).await;
    app.age_mirror(3600).await;
    let _hold = app.hold("status", Point::Before);
    // Well below the request's own time of 25 s.
    let answer = tokio::time::timeout(Duration::from_secs(15), status(&app)).await.unwrap();
    assert_eq!((answer.status, &answer.json["stale"]), (200, &json!(true)), "{answer:?}");
}

#[tokio::test]
async fn an_outage_shows_no_qr_that_can_no_longer_be_scanned() {
    let (app, number) = TestApp::start_with_number().await;
    app.platform.faults.inject("*", Fault::status(503));
    app.age_mirror(24).await;
    assert_eq!(status(&app).await.json["qrcode"], app.mirror(&number.session).await["last_qr_b64"]);
    app.age_mirror(2).await;
    let answer = status(&app).await;
    assert_eq!(
        (&answer.json["status"], &answer.json["qrcode"]),
        (&json!("qr_pending"), &Value::Null),
        "{answer:?}"
    );
    assert_eq!(answer.json["stale"], true);
}

#[tokio::test]
async fn a_lasting_state_is_saved_once_a_minute() {
    let app = TestApp::start().await;
    connected(&app).await;
    for (age, writes) in [(50, 0), (20, 1), (0, 0)] {
        app.age_mirror(age).await;
        app.forget_calls();
        app.check().await;
        assert_eq!(app.count("rpc/wpp_save_snapshot"), writes, "{age} s later");
    }
}
