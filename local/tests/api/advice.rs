//! If a number is stuck, the answer says so and what to do.

use serde_json::{Value, json};

use local::fault_injector::Fault;
use local::lambda::Options;
use local::test_app::{Number, TestApp};

/// Moves the number's credentials this many seconds into the past.
async fn age_credentials(app: &TestApp, number: &Number, seconds: i32) {
    let age = "update wpp_numbers set credentials_saved_at = credentials_saved_at - $1 * interval '1 second' where integration_id = $2";
    assert_eq!(app.sql.execute(age, &[&f64::from(seconds), &number.id]).await.unwrap(), 1);
}

async fn status(app: &TestApp) -> Value {
    let answer = app.check().await;
    assert_eq!((answer.status, &answer.json["success"]), (200, &json!(true)), "{answer:?}");
    answer.json
}

async fn create(app: &TestApp) -> Value {
    let answer = app.create(json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

/// The advice for a lost session.
const RECONNECT: &str = "delete the number in the list and connect it again";

/// Asserts that a stuck number has a code for programs, and a sentence that says what a person can do.
fn assert_stuck(answer: &Value, code: &str, about: &str) {
    assert_eq!(answer["code"], code, "{answer}");
    let shown = if answer["success"] == true { &answer["message"] } else { &answer["error"] };
    let shown = shown.as_str().unwrap();
    assert!(shown.contains(about) && shown.ends_with('.'), "{answer}");
}

fn assert_not_stuck(answer: &Value) {
    assert_eq!(answer.get("code"), None, "{answer}");
}

#[tokio::test]
async fn number_starting_for_two_minutes_is_stuck() {
    // There will be no QR, so waiting would only cost time.
    let app = TestApp::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    let number = app.number().await;
    app.platform.set_status(&number.session, "starting").unwrap();
    assert_not_stuck(&status(&app).await);
    age_credentials(&app, &number, 600).await;
    assert_not_stuck(&status(&app).await);

    app.age_snapshot(60).await;
    assert_not_stuck(&status(&app).await);
    app.age_snapshot(70).await;
    assert_stuck(&status(&app).await, "start_stuck", RECONNECT);
    let created = create(&app).await;
    assert_eq!(created["status"], "starting");
    assert_stuck(&created, "start_stuck", RECONNECT);

    // A recreation is a new start, even if the platform returns the same session.
    let again = app.create(json!({"force_recreate": true})).await;
    assert_eq!((&again.json["session"], &again.json["status"]), (&json!(number.session), &json!("starting")));
    assert_not_stuck(&again.json);
    assert_not_stuck(&status(&app).await);
}

#[tokio::test]
async fn qr_unscanned_for_ten_minutes_is_explained() {
    let (app, number) = TestApp::start_with_number().await;
    age_credentials(&app, &number, 500).await;
    assert_not_stuck(&status(&app).await);
    age_credentials(&app, &number, 110).await;
    let answer = status(&app).await;
    assert_eq!(answer["status"], "qr_issued", "{answer}");
    assert_stuck(&answer, "qr_not_scanned", "Linked devices");
    assert_stuck(&create(&app).await, "qr_not_scanned", "Linked devices");

    app.platform.scan(&number.session).unwrap();
    assert_not_stuck(&status(&app).await);
    // A person who linked the number before needs no explanation.
    app.platform.set_status(&number.session, "qr_required").unwrap();
    let answer = status(&app).await;
    assert_eq!(answer["status"], "qr_issued", "{answer}");
    assert_not_stuck(&answer);
}

#[tokio::test]
async fn session_unknown_to_the_platform_is_disconnected() {
    let (app, number) = TestApp::start_with_number().await;
    app.platform.forget_session(&number.session);
    let answer = status(&app).await;
    assert_eq!(
        (&answer["status"], &answer["account_number"]),
        (&json!("disconnected"), &json!(number.session))
    );
    assert_stuck(&answer, "session_lost", RECONNECT);
    assert_eq!(app.snapshot_row(&number.session).await["status"], "disconnected");

    for (name, body) in [("wpp-qr", json!({"session": number.session})), ("wpp-create", json!({}))] {
        let answer = app.post(name, body).await;
        assert_eq!(answer.status, 409, "{answer:?}");
        assert_stuck(&answer.json, "session_lost", RECONNECT);
    }
    app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
    assert_not_stuck(&status(&app).await);
}

#[tokio::test]
async fn create_does_not_wait_for_a_passkey() {
    let (app, number) = TestApp::start_with_number().await;
    // This platform returns no QR with this status, in either of two ways.
    let unknown = Fault::status(404);
    let null = Fault::Body(r#"{"qr":null}"#.to_owned());
    for (state, qr) in [("passkey_required", null), ("PASSKEY_CONFIRMATION_REQUIRED", unknown)] {
        app.clear_faults();
        app.inject("qr", qr);
        app.platform.set_status(&number.session, state).unwrap();
        let answer = status(&app).await;
        assert_eq!((&answer["status"], &answer["platform_status"]), (&json!("qr_pending"), &json!(state)));
        assert_stuck(&answer, "passkey_required", "passkey");
        app.forget_calls();
        let created = create(&app).await;
        assert_eq!(created["status"], "starting");
        assert_stuck(&created, "passkey_required", "passkey");
        assert_eq!(app.calls()["status"], 1, "one request, not one each second");
    }
}

/// Deployed databases hold the snapshot of only one number of an organization. The others are stuck as visibly as that one.
#[tokio::test]
async fn number_without_a_snapshot_is_stuck_after_two_minutes() {
    let app = TestApp::start().await;
    app.sql.batch_execute("alter table whatsapp_sessions add unique (organization_id)").await.unwrap();
    let (_with_snapshot, number) = (app.number().await, app.number().await);
    assert_eq!(app.snapshot_row(&number.session).await, Value::Null);
    app.platform.set_status(&number.session, "starting").unwrap();
    let status = async || {
        let answer = app
            .post("wpp-status", json!({"session": number.session, "force": true}))
            .await
            .expect(200, "qr_pending");
        answer.json
    };
    age_credentials(&app, &number, 100).await;
    assert_not_stuck(&status().await);
    age_credentials(&app, &number, 30).await;
    assert_stuck(&status().await, "start_stuck", RECONNECT);
}
