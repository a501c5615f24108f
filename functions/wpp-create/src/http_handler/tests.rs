use std::time::Duration;

use serde_json::{Value, json};
use shared::deadline::Deadline;
use shared::testing::{API_KEY, LONG_AGO, SESSION, TestApp, TestNumber};

use super::*;

/// So short that only the first and the last poll for a QR code fit.
const SHORT_QR_WAIT: Duration = Duration::from_millis(50);

/// Sets up a test whose database has this number, and whose platform reports this status for its session.
async fn app_with_number(number: TestNumber, status: &str) -> TestApp {
    let test = TestApp::with_qr_wait(SHORT_QR_WAIT).await;
    test.database("wpp_begin_creation", number.existing());
    test.platform("/status", 200, json!({"status": status}));
    test
}

/// Sets up a test whose database has no number, and whose platform creates one and accepts its webhook.
async fn app_without_number() -> TestApp {
    let test = TestApp::with_qr_wait(SHORT_QR_WAIT).await;
    test.begins_creation();
    test.platform("/create", 200, json!({"apiKey": API_KEY, "session": SESSION}));
    test.database("wpp_save_credentials", TestNumber::created().saved());
    test.refreshes_token(TestNumber::created(), "new");
    test.platform("/webhook", 200, json!({}));
    test.database("wpp_save_webhook", Value::Null);
    test
}

/// Sets up a test whose platform refuses the API key of the number in the database.
async fn app_with_refused_key() -> TestApp {
    let number = TestNumber::new().without_token();
    let test = TestApp::with_qr_wait(SHORT_QR_WAIT).await;
    test.database_once("wpp_begin_creation", number.clone().existing());
    test.refreshes_token(number, "new");
    test.platform("/auth/token", 403, json!({}));
    test.database("wpp_release_refresh", json!({"outcome": "saved"}));
    test
}

async fn answer(test: &TestApp, request: Value) -> Result<Value, Error> {
    let request = serde_json::from_value(request).unwrap();
    let answer = create_number(&test.app, &test.context, request).await?;
    Ok(serde_json::to_value(answer).unwrap())
}

fn count(calls: &[String], name: &str) -> usize {
    calls.iter().filter(|call| *call == name).count()
}

#[tokio::test]
async fn connected_number_is_not_started_again() {
    let test = app_with_number(TestNumber::connected(1), "connected").await;
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["state"]), (&json!("connected"), &json!("connected")));
    assert_eq!(answer.get("poll_after_ms"), None);
    assert_eq!(test.calls(), ["wpp_begin_creation", "status"]);
}

#[tokio::test]
async fn connected_number_retries_its_pending_webhook() {
    for registered_url in [Value::Null, json!("https://old.example/functions/v1/wpp-webhook")] {
        let number = TestNumber::connected(1).with("webhook_url", registered_url);
        let test = app_with_number(number, "connected").await;
        test.database("wpp_claim_webhook", json!(true));
        test.platform("/webhook", 200, json!({}));
        test.database("wpp_save_webhook", Value::Null);
        assert_eq!(answer(&test, json!({})).await.unwrap()["webhook"], "registered");
        assert_eq!(test.calls()[2..], ["wpp_claim_webhook", "webhook", "wpp_save_webhook"]);
    }
}

#[tokio::test]
async fn new_number_gets_its_qr() {
    let test = app_without_number().await;
    test.platform("/start", 200, json!({"qr": "2@text"}));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["qrcode"]), (&json!("qr_issued"), &json!("2@text")));
    assert_eq!((&answer["format"], &answer["webhook"]), (&json!("text"), &json!("registered")));
    assert_eq!((&answer["apiKey"], &answer["session"]), (&json!("wpp_ke••••••0150"), &json!(SESSION)));
    let calls = [
        "wpp_begin_creation",
        "create",
        "wpp_save_credentials",
        "wpp_claim_refresh",
        "token",
        "wpp_save_token",
        "webhook",
        "wpp_save_webhook",
        "start",
        "wpp_save_snapshot",
    ];
    assert_eq!(test.calls(), calls);
}

#[tokio::test]
async fn qr_is_polled_for_after_the_start() {
    let test = TestApp::new().await;
    test.database("wpp_begin_creation", TestNumber::new().existing());
    test.platform("/start", 200, json!({"status": "starting"}));
    test.platform("/status", 200, json!({"status": "starting"}));
    test.platform("/qr", 200, json!({"qr": "2@text"}));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["qrcode"]), (&json!("qr_issued"), &json!("2@text")));
    assert_eq!(count(&test.calls(), "qr"), 1);
}

#[tokio::test]
async fn connected_answer_to_the_start_hides_its_qr() {
    for (status, shown) in [("connected", "connected"), ("starting", "qr_issued")] {
        let test = app_without_number().await;
        test.platform("/start", 200, json!({"status": status, "qr": "2@text"}));
        assert_eq!(answer(&test, json!({})).await.unwrap()["status"], shown);
        assert_eq!(test.calls().last().unwrap(), "wpp_save_snapshot");
    }
}

#[tokio::test]
async fn key_that_is_not_active_yet_is_tried_again() {
    let mut test = app_without_number().await;
    test.context.deadline = Deadline::within(Duration::from_secs(20));
    test.platform_once("/auth/token", 403, json!({}));
    test.database("wpp_release_refresh", json!({"outcome": "saved"}));
    test.platform("/start", 200, json!({"qr": "2@text"}));
    assert_eq!(answer(&test, json!({})).await.unwrap()["status"], "qr_issued");
    assert_eq!(count(&test.calls(), "token"), 2);
}

#[tokio::test]
async fn late_qr_returns_starting() {
    let test = app_without_number().await;
    test.platform("/start", 200, json!({"status": "starting"}));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["state"]), (&json!("starting"), &json!("qr_pending")));
    assert_eq!((&answer["poll_after_ms"], answer.get("qrcode")), (&json!(2000), None));
    assert_eq!(count(&test.calls(), "qr"), 2);
}

#[tokio::test]
async fn create_does_not_wait_for_a_passkey() {
    let test = app_without_number().await;
    test.platform("/start", 200, json!({"status": "passkey_required"}));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["code"]), (&json!("starting"), &json!("passkey_required")));
    assert_eq!(count(&test.calls(), "qr"), 0);
}

#[tokio::test]
async fn add_new_with_a_session_or_an_id_is_refused() {
    for (field, name) in [("session", SESSION), ("integration_id", "00000000-0000-0000-0000-000000000001")] {
        let test = TestApp::new().await;
        let error = answer(&test, json!({"add_new": true, field: name})).await.unwrap_err();
        assert_eq!(error, Error::bad_request("add_new", say::FIELD_NOT_ALONE), "{field}");
        assert!(test.calls().is_empty());
    }
}

#[tokio::test]
async fn add_new_with_force_recreate_is_refused() {
    let test = TestApp::new().await;
    let error = answer(&test, json!({"add_new": true, "force_recreate": true})).await.unwrap_err();
    assert_eq!(error, Error::bad_request("add_new", say::FIELD_NOT_ALONE));
    assert!(test.calls().is_empty());
}

#[tokio::test]
async fn begin_creation_is_called_with_mode_and_session() {
    for (request, mode, is_named) in [
        (json!({}), "ensure", false),
        (json!({"session": SESSION}), "ensure", true),
        (json!({"add_new": true}), "add_new", false),
        (json!({"force_recreate": true, "account_number": SESSION}), "force_recreate", true),
    ] {
        let test = app_with_number(TestNumber::connected(1), "connected").await;
        answer(&test, request).await.unwrap();
        let (_, begin) = test.requests().remove(0);
        assert!(begin.contains(&format!(r#""mode":"{mode}""#)), "{begin}");
        assert_eq!(begin.contains(&format!(r#""session":"{SESSION}""#)), is_named, "{begin}");
    }
}

#[tokio::test]
async fn refused_key_is_replaced() {
    let test = app_with_refused_key().await;
    let repaired = TestNumber::new().with_setting("wppApiKey", "wpp_key_00000151");
    test.database("wpp_begin_creation", repaired.existing());
    test.platform("/status", 200, json!({"status": "connected"}));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["apiKey"]), (&json!("connected"), &json!("wpp_ke••••••0151")));
    let (calls, requests): (Vec<_>, Vec<_>) = test.requests().into_iter().unzip();
    let begins: Vec<_> =
        calls.iter().zip(requests).filter(|(call, _)| *call == "wpp_begin_creation").collect();
    assert_eq!(begins.len(), 2);
    let repair = &begins[1].1;
    assert!(repair.contains(r#""mode":"repair""#), "{repair}");
    assert!(repair.contains(&format!(r#""rejected_key":"{API_KEY}""#)), "{repair}");
}

#[tokio::test]
async fn refused_replacement_key_is_an_error() {
    let test = app_with_refused_key().await;
    let repaired = TestNumber::new().without_token().with_setting("wppApiKey", "wpp_key_00000151");
    test.database("wpp_claim_refresh", json!({"outcome": "granted", "number": null}));
    test.database("wpp_begin_creation", repaired.existing());
    let error = answer(&test, json!({})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::KeyRefused));
    let calls = test.calls();
    assert_eq!((count(&calls, "wpp_begin_creation"), count(&calls, "token")), (2, 2));
}

#[tokio::test]
async fn repair_that_returns_the_same_key_is_an_error() {
    let test = app_with_refused_key().await;
    test.database("wpp_begin_creation", TestNumber::new().without_token().existing());
    let error = answer(&test, json!({})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::KeyRefused));
    let calls = test.calls();
    assert_eq!((count(&calls, "wpp_begin_creation"), count(&calls, "token")), (2, 1));
}

/// The key may become active, so it is not replaced. The first pause, of a second, is longer than the time left.
#[tokio::test]
async fn refused_new_key_is_not_replaced() {
    let mut test = app_without_number().await;
    test.platform("/auth/token", 403, json!({}));
    test.context.deadline = Deadline::within(Duration::from_millis(1400));
    let error = answer(&test, json!({})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::KeyNotActive));
    let calls = test.calls();
    assert_eq!((count(&calls, "wpp_begin_creation"), count(&calls, "token")), (1, 1));
}

#[tokio::test]
async fn add_new_skips_a_connected_number() {
    let test = TestApp::with_qr_wait(SHORT_QR_WAIT).await;
    test.database_once("wpp_begin_creation", TestNumber::new().existing());
    let another = TestNumber::new().with_setting("wppAccountNumber", "5");
    test.database("wpp_begin_creation", another.existing());
    test.platform("/accounts/5/status", 200, json!({"status": "starting"}));
    test.platform(&format!("/{SESSION}/status"), 200, json!({"status": "connected"}));
    test.platform("/start", 200, json!({"qr": "2@text"}));
    let answer = answer(&test, json!({"add_new": true})).await.unwrap();
    assert_eq!((&answer["session"], &answer["status"]), (&json!("5"), &json!("qr_issued")));
    assert_eq!(count(&test.calls(), "wpp_begin_creation"), 2);
}

#[tokio::test]
async fn qr_found_by_the_last_poll_is_returned() {
    let test = app_with_number(TestNumber::new(), "starting").await;
    test.platform("/start", 200, json!({"status": "starting"}));
    test.platform("/webhook", 200, json!({}));
    // The first poll comes at once, the second when the wait is over.
    test.platform_once(&format!("/{SESSION}/qr"), 404, json!({}));
    test.platform(&format!("/{SESSION}/qr"), 200, json!({"qr": "2@text"}));
    let answer = answer(&test, json!({})).await.unwrap();
    assert_eq!((&answer["status"], &answer["qrcode"]), (&json!("qr_issued"), &json!("2@text")));
    assert_eq!(count(&test.calls(), "qr"), 2);
}

#[tokio::test]
async fn creation_held_by_another_request_is_in_progress() {
    let mut test = TestApp::new().await;
    let busy =
        json!({"outcome": "busy", "creation": "00000000-0000-0000-0000-000000000001", "wait_ms": 9000});
    test.database("wpp_begin_creation", busy);
    test.context.deadline = Deadline::within(Duration::from_millis(700));
    assert_eq!(answer(&test, json!({})).await.unwrap_err(), Error::CreationInProgress);
    let calls = test.calls();
    assert_eq!(count(&calls, "wpp_begin_creation"), calls.len());
}

#[tokio::test]
async fn refused_secret_releases_the_creation() {
    let test = app_without_number().await;
    test.platform("/create", 401, json!({}));
    let error = answer(&test, json!({})).await.unwrap_err();
    assert_eq!(error.platform(), Some(PlatformError::SecretRefused));
    assert_eq!(test.calls(), ["wpp_begin_creation", "create", "wpp_release_creation"]);
}

#[tokio::test]
async fn refused_webhook_is_registered_after_the_start() {
    let test = app_without_number().await;
    test.platform_once("/webhook", 400, json!({}));
    test.platform("/start", 200, json!({"qr": "2@text"}));
    assert_eq!(answer(&test, json!({})).await.unwrap()["webhook"], "registered");
    let calls = test.calls();
    assert_eq!(calls[6..calls.len() - 1], ["webhook", "start", "webhook", "wpp_save_webhook"]);
}

#[tokio::test]
async fn timed_out_webhook_stays_pending() {
    let test = app_without_number().await;
    test.platform("/webhook", 408, json!({}));
    test.platform("/start", 200, json!({"qr": "2@text"}));
    assert_eq!(answer(&test, json!({})).await.unwrap()["webhook"], "pending");
    assert_eq!(count(&test.calls(), "webhook"), 1);
}

#[tokio::test]
async fn unknown_session_is_started() {
    let test = app_with_number(TestNumber::new(), "starting").await;
    test.platform("/status", 404, json!({"error": "no session"}));
    test.platform("/start", 200, json!({"qr": "2@text"}));
    assert_eq!(answer(&test, json!({})).await.unwrap()["status"], "qr_issued");
}

/// After its first 404, the platform answers nothing but the start.
#[tokio::test]
async fn unreported_state_replaces_no_snapshot() {
    for (number, is_saved) in [(TestNumber::connected(LONG_AGO), false), (TestNumber::new(), true)] {
        let test = app_with_number(number, "starting").await;
        test.platform("/status", 500, json!({}));
        test.platform_once("/status", 404, json!({"error": "no session"}));
        test.platform("/start", 200, json!({}));
        assert_eq!(answer(&test, json!({})).await.unwrap()["status"], "starting");
        assert_eq!(count(&test.calls(), "wpp_save_snapshot"), usize::from(is_saved));
    }
}
