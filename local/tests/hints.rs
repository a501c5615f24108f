//! A number that is stuck is recognised, and the answer says what to do.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use serde_json::{Value, json};

use local::gate::Fault;
use local::lambda::Options;
use local::stage::{Line, Stage};

/// Moves the number's credentials so many seconds into the past.
async fn age_credentials(stage: &Stage, line: &Line, seconds: i32) {
    let age = "update wpp_numbers set credentials_saved_at = credentials_saved_at - $1 * interval '1 second' where integration_id = $2";
    assert_eq!(stage.sql.execute(age, &[&f64::from(seconds), &line.id]).await.unwrap(), 1);
}

async fn status(stage: &Stage) -> Value {
    let answer = stage.post("wpp-status", json!({"force": true})).await;
    assert_eq!((answer.status, &answer.json["success"]), (200, &json!(true)), "{answer:?}");
    answer.json
}

async fn create(stage: &Stage) -> Value {
    let answer = stage.post("wpp-create", json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

/// What the screen offers for a number that is lost.
const RECONNECT: &str = "delete the number in the list and connect it again";

/// A hint is the way on for a person, under a word for programs, and the last part of what the screen shows.
fn assert_hint(answer: &Value, code: &str, about: &str) {
    assert_eq!(answer["code"], code, "{answer}");
    let shown = if answer["success"] == true { &answer["message"] } else { &answer["error"] };
    let (hint, shown) = (answer["hint"].as_str().unwrap(), shown.as_str().unwrap());
    assert!(hint.contains(about) && hint.ends_with('.') && shown.ends_with(&format!(". {hint}")), "{answer}");
}

fn assert_no_hint(answer: &Value) {
    assert!(answer["code"].is_null() && answer["hint"].is_null(), "{answer}");
}

#[tokio::test]
async fn a_number_that_has_been_starting_for_two_minutes_is_stuck() {
    // No QR will come, so nobody waits long for one.
    let stage = Stage::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    let line = stage.number().await;
    stage.world.platform.set_status(&line.session, "starting").unwrap();
    assert_no_hint(&status(&stage).await);
    age_credentials(&stage, &line, 600).await;
    assert_no_hint(&status(&stage).await);

    stage.age_mirror(60).await;
    assert_no_hint(&status(&stage).await);
    stage.age_mirror(70).await;
    assert_hint(&status(&stage).await, "start_stuck", RECONNECT);
    let created = create(&stage).await;
    assert_eq!(created["status"], "starting");
    assert_hint(&created, "start_stuck", RECONNECT);

    // A recreation is a new start, even where the platform gives the same session again.
    let again = stage.post("wpp-create", json!({"force_recreate": true})).await;
    assert_eq!((&again.json["session"], &again.json["status"]), (&json!(line.session), &json!("starting")));
    assert_no_hint(&again.json);
    assert_no_hint(&status(&stage).await);
}

#[tokio::test]
async fn a_qr_that_nobody_scans_for_ten_minutes_is_explained() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    age_credentials(&stage, &line, 500).await;
    assert_no_hint(&status(&stage).await);
    age_credentials(&stage, &line, 110).await;
    let answer = status(&stage).await;
    assert_eq!(answer["status"], "qr_issued", "{answer}");
    assert_hint(&answer, "qr_not_scanned", "Linked devices");
    assert_hint(&create(&stage).await, "qr_not_scanned", "Linked devices");

    stage.world.platform.scan(&line.session).unwrap();
    assert_no_hint(&status(&stage).await);
    // Whoever has linked the number once needs no explanation.
    stage.world.platform.set_status(&line.session, "qr_required").unwrap();
    let answer = status(&stage).await;
    assert_eq!(answer["status"], "qr_issued", "{answer}");
    assert_no_hint(&answer);
}

#[tokio::test]
async fn a_session_that_the_platform_does_not_know_is_disconnected_and_to_be_made_again() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    stage.world.platform.forget_session(&line.session);
    let answer = status(&stage).await;
    assert_eq!(
        (&answer["status"], &answer["account_number"]),
        (&json!("disconnected"), &json!(line.session))
    );
    assert_hint(&answer, "session_lost", RECONNECT);
    assert_eq!(stage.mirror(&line.session).await["status"], "disconnected");

    for (name, body) in [("wpp-qr", json!({"session": line.session})), ("wpp-create", json!({}))] {
        let answer = stage.post(name, body).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_hint(&answer.json, "session_lost", RECONNECT);
    }
    let again = stage.post("wpp-create", json!({"force_recreate": true})).await;
    assert_eq!(again.json["status"], "qr_issued", "{again:?}");
    assert_no_hint(&status(&stage).await);
}

#[tokio::test]
async fn a_passkey_that_whatsapp_asks_for_has_its_own_word_and_is_not_waited_for() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    // This platform shows no QR beside the word, in either of two ways.
    let unknown = Fault::status(404);
    let null = Fault::Body(r#"{"qr":null}"#.to_owned());
    for (word, qr) in [("passkey_required", null), ("PASSKEY_CONFIRMATION_REQUIRED", unknown)] {
        stage.world.platform.gate.clear();
        stage.world.platform.gate.inject("qr", qr);
        stage.world.platform.set_status(&line.session, word).unwrap();
        let answer = status(&stage).await;
        assert_eq!((&answer["status"], &answer["platform_status"]), (&json!("qr_pending"), &json!(word)));
        assert_hint(&answer, "passkey_required", "passkey");
        stage.forget_calls();
        let created = create(&stage).await;
        assert_eq!(created["status"], "starting");
        assert_hint(&created, "passkey_required", "passkey");
        assert_eq!(stage.calls()["status"], 1, "one look, not one each second");
    }
}

#[tokio::test]
async fn a_word_that_we_do_not_know_is_passed_on_as_it_is_and_never_means_connected() {
    let stage = Stage::start().await;
    let line = stage.number().await;
    for word in ["Pairing_v3", "ПОДКЛЮЧЕНО", "connected!", "<b>"] {
        stage.world.platform.set_status(&line.session, word).unwrap();
        let answer = status(&stage).await;
        assert_eq!((&answer["status"], &answer["platform_status"]), (&json!("qr_issued"), &json!(word)));
    }
    stage.world.platform.set_status(&line.session, &"long".repeat(1000)).unwrap();
    assert_eq!(status(&stage).await["platform_status"], json!("long".repeat(16)));
    stage.world.platform.set_status(&line.session, "").unwrap();
    assert_eq!(status(&stage).await["platform_status"], Value::Null);
}

/// Deployed databases mirror one number of an organisation. The others are stuck as visibly as that one.
#[tokio::test]
async fn a_number_that_the_mirror_has_no_room_for_is_stuck_from_its_beginning() {
    let stage = Stage::start().await;
    stage.sql.batch_execute("alter table whatsapp_sessions add unique (organization_id)").await.unwrap();
    let (_mirrored, line) = (stage.number().await, stage.number().await);
    assert_eq!(stage.mirror(&line.session).await, Value::Null);
    stage.world.platform.set_status(&line.session, "starting").unwrap();
    let status = async || {
        let answer = stage.post("wpp-status", json!({"session": line.session, "force": true})).await;
        assert_eq!(answer.json["status"], "qr_pending", "{answer:?}");
        answer.json
    };
    age_credentials(&stage, &line, 100).await;
    assert_no_hint(&status().await);
    age_credentials(&stage, &line, 30).await;
    assert_hint(&status().await, "start_stuck", RECONNECT);
}
