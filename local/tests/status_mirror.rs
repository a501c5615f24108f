//! `wpp-status` and `whatsapp_sessions`, where the rest of the product reads what was last seen.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use serde_json::{Value, json};
use std::time::Duration;

use local::gate::{Fault, Point};
use local::lambda::{Answer, Options};
use local::stage::{Line, Stage};

async fn ask(stage: &Stage) -> Answer {
    stage.post("wpp-status", json!({})).await
}

/// The requests since the last look at them.
fn calls(stage: &Stage) -> Value {
    let calls = stage.calls();
    stage.forget_calls();
    calls
}

/// A number that was just seen connected.
async fn connected(stage: &Stage) -> Line {
    let line = stage.number().await;
    stage.world.platform.scan(&line.session).unwrap();
    stage.post("wpp-status", json!({"force": true})).await;
    stage.forget_calls();
    line
}

#[tokio::test]
async fn a_qr_is_remembered_for_25_seconds_unless_force_is_asked() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.age_mirror(15).await;
    let remembered = ask(&stage).await;
    assert_eq!(remembered.json["status"], "qr_issued");
    assert_eq!(remembered.json["qrcode"], json!(stage.world.platform.qr_of(&line.session).unwrap()));
    assert_eq!(calls(&stage), json!({"rpc/wpp_find_number": 1}));

    let live = stage.post("wpp-status", json!({"force": true})).await;
    for field in ["status", "qrcode", "last_qr_at"] {
        assert_eq!(live.json[field], remembered.json[field]);
    }
    assert_eq!(calls(&stage), json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1}));

    stage.age_mirror(10).await;
    ask(&stage).await;
    assert_eq!(calls(&stage), json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1}));
}

/// The webhook reports the scan while a poll that has seen the QR is still on its way.
#[tokio::test]
async fn what_was_told_since_a_slow_poll_began_stands_and_is_answered() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage
        .sql
        .execute("update whatsapp_sessions set status = 'pairing', last_qr_b64 = null", &[])
        .await
        .unwrap();
    let hold = stage.world.platform.gate.hold("status", Point::After);
    let told = async {
        hold.reached(1).await;
        let told = "update whatsapp_sessions set status = 'connected', updated_at = clock_timestamp()";
        stage.sql.execute(told, &[]).await.unwrap();
        hold.release();
    };
    let (answer, ()) = tokio::join!(stage.post("wpp-status", json!({"force": true})), told);
    assert_eq!(answer.json["status"], "connected", "{answer:?}");
    assert_eq!(stage.mirror(&line.session).await["status"], "connected");
}

/// The original believed `connected` for ever, and a forced look did not correct the row.
#[tokio::test]
async fn connected_is_remembered_for_10_seconds_and_the_row_then_corrected() {
    let stage = Stage::start().await;
    let line = connected(&stage).await;
    stage.world.platform.set_status(&line.session, "offline").unwrap();
    stage.age_mirror(5).await;
    assert_eq!(ask(&stage).await.json["status"], "connected");
    assert_eq!(calls(&stage), json!({"rpc/wpp_find_number": 1}));

    stage.age_mirror(5).await;
    assert_eq!(ask(&stage).await.json["status"], "disconnected");
    assert_eq!(calls(&stage), json!({"rpc/wpp_find_number": 1, "status": 1, "rpc/wpp_remember_session": 1}));
    assert_eq!(stage.mirror(&line.session).await["status"], "disconnected");
}

#[tokio::test]
async fn a_forced_look_believes_the_platform_and_corrects_a_fresh_row() {
    let stage = Stage::start().await;
    let line = connected(&stage).await;
    stage.world.platform.set_status(&line.session, "qr_required").unwrap();
    let answer = stage.post("wpp-status", json!({"force": true})).await;
    assert_eq!(answer.json["status"], "qr_issued");
    let row = stage.mirror(&line.session).await;
    assert_eq!(row["status"], "qr_issued");
    assert_eq!(row["last_qr_b64"], answer.json["qrcode"]);
    assert_eq!(
        calls(&stage),
        json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1, "rpc/wpp_remember_session": 1})
    );
}

#[tokio::test]
async fn the_row_follows_every_state_and_is_written_only_when_something_changed() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    for (word, state) in [
        ("starting", "pairing"),
        ("qr_required", "qr_issued"),
        ("connected", "connected"),
        ("offline", "disconnected"),
    ] {
        stage.world.platform.set_status(&line.session, word).unwrap();
        for writes in [1, 0] {
            stage.post("wpp-status", json!({"force": true})).await;
            assert_eq!(stage.world.supabase.gate.count("rpc/wpp_remember_session"), writes, "{word}");
            stage.forget_calls();
        }
        let row = stage.mirror(&line.session).await;
        assert_eq!(row["status"], state);
        assert_eq!(row["last_qr_b64"].is_string(), state == "qr_issued", "{row}");
        assert_eq!(row["last_qr_at"].is_string(), state == "qr_issued", "{row}");
    }
}

#[tokio::test]
async fn the_next_qr_takes_the_place_of_the_last_and_has_a_time_of_its_own() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.age_mirror(30).await;
    let last = stage.mirror(&line.session).await;
    stage.world.platform.advance(Duration::from_secs(20));
    let answer = ask(&stage).await;
    let next = stage.mirror(&line.session).await;
    assert_eq!(next["last_qr_b64"], answer.json["qrcode"]);
    assert_ne!(next["last_qr_b64"], last["last_qr_b64"]);
    assert_ne!(next["last_qr_at"], last["last_qr_at"]);
    assert_eq!(next["created_at"], last["created_at"]);
}

/// The siblings write here too, and leave the QR where it is.
#[tokio::test]
async fn a_qr_that_is_still_shown_after_another_word_in_the_row_keeps_its_time() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.age_mirror(5).await;
    let first_seen = stage.mirror(&line.session).await["last_qr_at"].clone();
    let told = ask(&stage).await.json["last_qr_at"].clone();
    stage.sql.batch_execute("update whatsapp_sessions set status = 'disconnected'").await.unwrap();
    assert_eq!(ask(&stage).await.json["last_qr_at"], told);
    let row = stage.mirror(&line.session).await;
    assert_eq!((&row["status"], &row["last_qr_at"]), (&json!("qr_issued"), &first_seen));
}

/// The original ignored it when the row could not be written, too: but said nothing to anybody.
#[tokio::test]
async fn a_row_that_cannot_be_written_costs_the_person_nothing_and_is_written_by_the_next_look() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.world.platform.scan(&line.session).unwrap();
    let refusal = Fault::status(500);
    stage.world.supabase.gate.inject_times("rpc/wpp_remember_session", 1, refusal);
    for state in ["qr_issued", "connected"] {
        let answer = stage.post("wpp-status", json!({"force": true})).await;
        assert_eq!(answer.json["status"], "connected", "{answer:?}");
        assert_eq!(stage.mirror(&line.session).await["status"], state);
        stage.age_mirror(30).await;
    }
    let logs = stage.sandbox("wpp-status").logs().await;
    assert_eq!(logs.matches("could not be remembered").count(), 1, "{logs}");
}

/// The original handed out the other organisation's QR, and moved its row.
#[tokio::test]
async fn the_row_of_another_organisation_under_the_same_session_is_neither_read_nor_written() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    let other = stage.world.organisation("other").await.unwrap();
    let copy = "insert into messenger_integrations (organization_id, messenger_type, provider, settings)
        select $2, messenger_type, provider, settings from messenger_integrations where id = $1";
    stage.sql.execute(copy, &[&line.id, &other.id]).await.unwrap();
    let row = stage.mirror(&line.session).await;
    assert_eq!(row["organization_id"], json!(stage.school.id.to_string()));

    stage.world.platform.scan(&line.session).unwrap();
    let answer = stage.post_as(&other, "wpp-status", json!({})).await;
    assert_eq!(answer.json["status"], "connected", "remembered nothing, asked the platform: {answer:?}");
    assert_eq!(stage.mirror(&line.session).await, row);
}

#[tokio::test]
async fn an_outage_disconnects_nobody_unless_the_present_state_is_asked_for() {
    let stage = Stage::start_with(&[("UPSTREAM_TIMEOUT_MS", "500")], Options::default()).await;
    let line = connected(&stage).await;
    stage.age_mirror(3600).await;
    let mirror = stage.mirror(&line.session).await;
    for fault in [Fault::status(503), Fault::status(429), Fault::Drop, Fault::Html, Fault::SlowHeaders] {
        stage.world.platform.gate.inject("status", fault.clone());
        let answer = ask(&stage).await;
        assert_eq!(
            (answer.status, &answer.json["status"]),
            (200, &json!("connected")),
            "{fault:?} {answer:?}"
        );
        assert_eq!(answer.json["stale"], true, "{answer:?}");
        assert!(answer.json["message"].as_str().unwrap().contains("last known state"), "{answer:?}");
        let (seen, updated) = (answer.json["seen_at"].as_str(), mirror["updated_at"].as_str());
        assert_eq!(seen.unwrap()[..19], updated.unwrap()[..19], "{answer:?}");
        let forced = stage.post("wpp-status", json!({"force": true})).await;
        assert!(forced.status >= 500 && forced.json["success"] == false, "{fault:?} {forced:?}");
        stage.world.platform.gate.clear();
    }
    assert_eq!(stage.mirror(&line.session).await, mirror);
    assert_eq!(ask(&stage).await.json.get("stale"), None);
}

#[tokio::test]
async fn a_number_that_was_never_seen_has_no_last_state_to_tell_in_an_outage() {
    let stage = Stage::start().await;
    stage.number().await;
    stage.sql.execute("delete from whatsapp_sessions", &[]).await.unwrap();
    stage.world.platform.gate.inject("status", Fault::status(503));
    assert_eq!(ask(&stage).await.json["code"], "platform_unavailable");
}

/// A person who opens the panel waits for the last known state for less than for the present one.
#[tokio::test]
async fn a_platform_that_hangs_is_not_waited_for_where_the_last_known_state_will_do() {
    let stage = Stage::start_with(&[("UPSTREAM_TIMEOUT_MS", "60000")], Options::default()).await;
    connected(&stage).await;
    stage.age_mirror(3600).await;
    let _hold = stage.world.platform.gate.hold("status", Point::Before);
    // Well below the request's own time of 25 s.
    let answer = tokio::time::timeout(Duration::from_secs(15), ask(&stage)).await.unwrap();
    assert_eq!((answer.status, &answer.json["stale"]), (200, &json!(true)), "{answer:?}");
}
