use serde_json::{Value, json};
use shared::messages::Language;
use shared::testing::{LONG_AGO, SESSION, TestApp, TestNumber, snapshot};

use super::*;

async fn test(number: impl Into<Option<TestNumber>>) -> TestApp {
    let test = TestApp::new().await;
    test.finds(number);
    test
}

/// Returns a test app whose platform answers `/status` with this status, and `/qr` with this code or null.
async fn test_with_status(number: TestNumber, status: &str, qr: Option<&str>) -> TestApp {
    let test = test(number).await;
    test.platform("/status", 200, json!({"status": status}));
    test.platform("/qr", 200, json!({"qr": qr}));
    test
}

async fn answer(test: &TestApp, request: Value) -> Result<Value, Error> {
    let answer = get_status(&test.app, &test.context, serde_json::from_value(request).unwrap()).await?;
    Ok(serde_json::to_value(answer).unwrap())
}

fn text(sentence: Sentence) -> Value {
    sentence.text(Language::English).into()
}

#[tokio::test]
async fn recent_connected_snapshot_makes_no_platform_call() {
    let test = test(TestNumber::connected(9_999)).await;
    let answer = answer(&test, json!({"session": SESSION})).await.unwrap();
    assert_eq!((&answer["status"], &answer["state"]), (&json!("connected"), &json!("connected")));
    assert_eq!((answer.get("stale"), &answer["seen_at"]), (None, &json!("2027-01-15T07:59:50.001Z")));
    assert_eq!(test.calls(), ["wpp_find_number"]);
}

#[tokio::test]
async fn force_asks_the_platform() {
    let test = test_with_status(TestNumber::connected(1), "offline", None).await;
    assert_eq!(answer(&test, json!({"force": true})).await.unwrap()["status"], "disconnected");
    assert_eq!(test.calls(), ["wpp_find_number", "status", "wpp_save_snapshot"]);
}

#[tokio::test]
async fn old_snapshot_asks_the_platform() {
    let test = test_with_status(TestNumber::connected(10_000), "offline", None).await;
    assert_eq!(answer(&test, json!({})).await.unwrap()["status"], "disconnected");
    assert_eq!(test.calls(), ["wpp_find_number", "status", "wpp_save_snapshot"]);
}

#[tokio::test]
async fn outage_without_force_returns_the_last_known_state() {
    for (status, answered) in [(500, json!({})), (408, json!({})), (429, json!({})), (200, json!([]))] {
        let test = test(TestNumber::connected(LONG_AGO)).await;
        test.platform("/status", status, answered);
        let answer = answer(&test, json!({})).await.unwrap();
        assert_eq!((&answer["status"], &answer["stale"]), (&json!("connected"), &json!(true)));
        assert_eq!(answer["message"], text(say::LAST_KNOWN));
        assert!(answer["poll_after_ms"].is_number());
        assert_eq!(test.calls(), ["wpp_find_number", "status"]);
    }
}

#[tokio::test]
async fn outage_with_force_is_an_error() {
    let test = test(TestNumber::connected(LONG_AGO)).await;
    test.platform("/status", 500, json!({}));
    let error = answer(&test, json!({"force": true})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::Unavailable));
}

#[tokio::test]
async fn outage_without_a_snapshot_is_an_error() {
    let test = test(TestNumber::new()).await;
    test.platform("/status", 500, json!({}));
    let error = answer(&test, json!({})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::Unavailable));
}

#[tokio::test]
async fn refused_key_is_an_error_despite_a_snapshot() {
    let number = TestNumber::connected(LONG_AGO).without_token();
    let test = test(number.clone()).await;
    test.refreshes_token(number, "new");
    test.platform("/auth/token", 403, json!({}));
    test.database("wpp_release_refresh", json!({"outcome": "saved"}));
    let error = answer(&test, json!({})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::KeyRefused));
}

#[tokio::test]
async fn organization_without_a_number_is_disconnected() {
    let answer = answer(&test(None).await, json!({})).await.unwrap();
    assert_eq!(answer["status"], "disconnected");
    assert_eq!(answer["message"], text(say::NO_NUMBER_YET));
    assert_eq!(answer.get("session"), None);
}

#[tokio::test]
async fn unknown_named_number_is_not_found() {
    for request in
        [json!({"session": SESSION}), json!({"integration_id": "00000000-0000-0000-0000-000000000001"})]
    {
        let error = answer(&test(None).await, request.clone()).await.unwrap_err();
        assert_eq!(error, Error::NumberNotFound, "{request}");
    }
}

#[tokio::test]
async fn number_without_credentials_is_disconnected() {
    let without_key = TestNumber::connected(1).with_setting("wppApiKey", Value::Null);
    for number in [TestNumber::new().without_credentials(), without_key] {
        let test = test(number).await;
        let answer = answer(&test, json!({"session": SESSION, "force": true})).await.unwrap();
        assert_eq!(answer["status"], "disconnected");
        assert_eq!(answer["message"], text(say::NOT_CONNECTED_YET));
        assert_eq!(test.calls(), ["wpp_find_number"]);
    }
}

#[tokio::test]
async fn two_different_sessions_make_no_call() {
    let test = test(TestNumber::new()).await;
    let error = answer(&test, json!({"session": SESSION, "session_name": "5"})).await.unwrap_err();
    assert_eq!(error, Error::bad_request("session_name", say::FIELD_CONTRADICTS));
    assert!(test.calls().is_empty());
}

#[tokio::test]
async fn lost_session_is_saved_as_disconnected() {
    let test = test(TestNumber::connected(LONG_AGO)).await;
    test.platform("/status", 404, json!({"error": "no session"}));
    test.platform("/qr", 404, json!({"error": "no session"}));
    test.database("wpp_save_snapshot", snapshot("disconnected", None, 0));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["code"]), (&json!("disconnected"), &json!("session_lost")));
    let (call, save) = test.requests().pop().unwrap();
    assert_eq!(call, "wpp_save_snapshot");
    // No row may be made for a session that the platform does not know.
    assert!(save.contains(r#""p_may_insert":false"#), "{save}");
    assert!(save.contains(r#""p_status":"disconnected""#), "{save}");
}

/// Also for a number whose credentials another function has saved.
#[tokio::test]
async fn reported_state_is_saved_as_a_first_snapshot() {
    for saved_at in [json!(LONG_AGO), Value::Null] {
        let number = TestNumber::new().with("credentials_saved_at_ms", saved_at);
        let test = test_with_status(number, "Starting", None).await;
        test.database("wpp_save_snapshot", snapshot("pairing", None, 0));
        assert_eq!(answer(&test, json!({})).await.unwrap()["platform_status"], "Starting");
        let (call, save) = test.requests().pop().unwrap();
        assert_eq!(call, "wpp_save_snapshot");
        assert!(save.contains(r#""p_may_insert":true"#), "{save}");
    }
}

#[tokio::test]
async fn newer_saved_state_is_returned() {
    let test = test_with_status(TestNumber::new(), "starting", None).await;
    test.database("wpp_save_snapshot", snapshot("connected", None, 0));
    assert_eq!(answer(&test, json!({})).await.unwrap()["status"], "connected");
}

#[tokio::test]
async fn unsaved_state_is_returned() {
    let test = test_with_status(TestNumber::connected(LONG_AGO), "offline", None).await;
    // The test's database refuses `wpp_save_snapshot`, because it has no answer to it.
    assert_eq!(answer(&test, json!({})).await.unwrap()["status"], "disconnected");
    assert!(test.calls().contains(&"wpp_save_snapshot".to_owned()));
}

#[tokio::test]
async fn connected_number_retries_its_pending_webhook() {
    let number = TestNumber::connected(59_999).with("webhook_url", Value::Null);
    let test = test_with_status(number, "connected", None).await;
    test.database("wpp_claim_webhook", json!(true));
    test.platform("/webhook", 200, json!({}));
    test.database("wpp_save_webhook", Value::Null);
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["webhook"], answer.get("code")), (&json!("registered"), None));
    let calls = ["wpp_find_number", "status", "wpp_claim_webhook", "webhook", "wpp_save_webhook"];
    assert_eq!(test.calls(), calls);
}

#[tokio::test]
async fn unconnected_number_leaves_its_webhook_pending() {
    let number = TestNumber::connected(LONG_AGO).with("webhook_url", Value::Null);
    let test = test_with_status(number, "offline", None).await;
    assert_eq!(answer(&test, json!({})).await.unwrap()["webhook"], "pending");
    assert_eq!(test.calls(), ["wpp_find_number", "status", "wpp_save_snapshot"]);
}

#[tokio::test]
async fn issued_qr_has_a_format() {
    let png = "data:image/png;base64,iVBORw0KGgo=";
    for (qr, format) in [("2@text", "text"), (png, "image")] {
        let test = test_with_status(TestNumber::new(), "qr_required", Some(qr)).await;
        let answer = answer(&test, json!({})).await.unwrap();
        assert_eq!(answer["status"], "qr_issued");
        assert_eq!((&answer["qrcode"], &answer["format"]), (&json!(qr), &json!(format)));
    }
}

#[tokio::test]
async fn only_a_changing_live_state_has_poll_after_ms() {
    for (status, qr, state, poll_after_ms) in [
        ("connected", None, "connected", None),
        ("offline", None, "disconnected", None),
        ("starting", None, "qr_pending", Some(json!(2000))),
        ("qr_required", Some("2@text"), "qr_issued", Some(json!(2000))),
    ] {
        let test = test_with_status(TestNumber::new(), status, qr).await;
        let answer = answer(&test, json!({})).await.unwrap();
        assert_eq!((&answer["status"], answer.get("poll_after_ms")), (&json!(state), poll_after_ms.as_ref()));
    }
}
