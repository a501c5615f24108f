use serde_json::{Value, json};
use shared::messages as say;
use shared::testing::{LONG_AGO, SESSION, TestApp, TestNumber};

use super::*;

async fn test(number: impl Into<Option<TestNumber>>) -> TestApp {
    let test = TestApp::new().await;
    test.finds(number);
    test
}

async fn answer(test: &TestApp, request: Value) -> Result<QrResponse, Error> {
    get_qr(&test.app, &test.context, serde_json::from_value(request).unwrap()).await
}

/// Returns the JSON for the number's session.
async fn qr(test: &TestApp) -> Value {
    serde_json::to_value(answer(test, json!({"session": SESSION})).await.ok().unwrap()).unwrap()
}

async fn error(test: &TestApp, request: Value) -> Error {
    answer(test, request).await.err().unwrap()
}

/// Asks for an image of a number that has this status and no QR. Returns the error.
async fn image_without_qr(status: &str) -> Error {
    let test = test(TestNumber::new()).await;
    test.platform("/qr", 404, json!({"error": "no QR"}));
    test.platform("/status", 200, json!({"status": status}));
    let answer = answer(&test, json!({"session": SESSION})).await.ok().unwrap();
    answer.image(ImageFormat::Svg).unwrap().unwrap_err()
}

#[tokio::test]
async fn qr_text_is_one_platform_call() {
    let test = test(TestNumber::new()).await;
    test.platform("/qr", 200, json!({"qr": "2@text"}));
    let answer = qr(&test).await;
    assert_eq!((&answer["qr"], &answer["format"]), (&json!("2@text"), &json!("text")));
    assert_eq!(answer["state"], "qr_issued");
    assert_eq!(test.calls(), ["wpp_find_number", "qr"]);
}

#[tokio::test]
async fn qr_picture_has_the_format_image() {
    let test = test(TestNumber::new()).await;
    test.platform("/qr", 200, json!({"qr": "data:image/png;base64,iVBORw0KGgo="}));
    assert_eq!(qr(&test).await["format"], "image");
}

#[tokio::test]
async fn answer_has_the_session_under_both_names() {
    let test = test(TestNumber::new().with("name", "Reception")).await;
    test.platform("/qr", 200, json!({"qr": "2@text"}));
    let answer = qr(&test).await;
    assert_eq!((&answer["session"], &answer["account_number"]), (&json!(SESSION), &json!(SESSION)));
    assert_eq!(answer["name"], "Reception");
}

#[tokio::test]
async fn missing_qr_returns_the_numbers_state() {
    for (status, state) in
        [("starting", "qr_pending"), ("connected", "connected"), ("offline", "disconnected")]
    {
        let test = test(TestNumber::new()).await;
        test.platform("/qr", 404, json!({"error": "no QR"}));
        test.platform("/status", 200, json!({"status": status}));
        let answer = qr(&test).await;
        assert_eq!((&answer["state"], &answer["qr"]), (&json!(state), &Value::Null));
        assert_eq!(answer.get("format"), None);
        assert_eq!(test.calls(), ["wpp_find_number", "qr", "status"]);
    }
}

#[tokio::test]
async fn unknown_session_is_an_error() {
    let test = test(TestNumber::new()).await;
    test.platform("/qr", 404, json!({"error": "no session"}));
    test.platform("/status", 404, json!({"error": "no session"}));
    let error = error(&test, json!({"session": SESSION})).await;
    assert_eq!(error.response().code, "session_lost");
}

#[tokio::test]
async fn unknown_number_is_not_found() {
    let test = test(None).await;
    assert_eq!(error(&test, json!({"session": SESSION})).await, Error::NumberNotFound);
    assert_eq!(test.calls(), ["wpp_find_number"]);
}

#[tokio::test]
async fn request_without_a_session_makes_no_call() {
    let test = test(TestNumber::new()).await;
    assert_eq!(error(&test, json!({})).await, Error::missing_field("session"));
    assert!(test.calls().is_empty());
}

#[tokio::test]
async fn two_different_sessions_make_no_call() {
    let test = test(TestNumber::new()).await;
    let error = error(&test, json!({"session": SESSION, "account_number": "5"})).await;
    assert_eq!(error, Error::bad_request("account_number", say::FIELD_CONTRADICTS));
    assert!(test.calls().is_empty());
}

#[tokio::test]
async fn one_session_under_any_names_is_looked_up() {
    for request in [
        json!({"session_name": SESSION}),
        json!({"account_number": SESSION}),
        json!({"session": SESSION, "session_name": SESSION, "account_number": SESSION}),
    ] {
        let test = test(TestNumber::new()).await;
        test.platform("/qr", 200, json!({"qr": "2@text"}));
        assert!(answer(&test, request.clone()).await.is_ok(), "{request}");
        let (_, find) = test.requests().remove(0);
        assert!(find.contains(&format!(r#""p_session":"{SESSION}""#)), "{find}");
    }
}

#[tokio::test]
async fn expired_token_is_refreshed_before_the_call() {
    let number = TestNumber::new().with_expired_token();
    let test = test(number.clone()).await;
    test.refreshes_token(number, "new");
    test.platform("/qr", 200, json!({"qr": "2@text"}));
    assert_eq!(qr(&test).await["qr"], "2@text");
    let (calls, requests): (Vec<_>, Vec<_>) = test.requests().into_iter().unzip();
    assert_eq!(calls, ["wpp_find_number", "wpp_claim_refresh", "token", "wpp_save_token", "qr"]);
    assert!(requests[4].contains("authorization: Bearer new\r\n"), "{}", requests[4]);
}

#[tokio::test]
async fn rejected_token_is_refreshed_once() {
    let test = test(TestNumber::new()).await;
    test.refreshes_token(TestNumber::new(), "new");
    test.platform("/qr", 401, json!({}));
    let error = error(&test, json!({"session": SESSION})).await;
    assert_eq!(error.response().code, "token_rejected");
    let calls = test.calls();
    assert_eq!(calls[1..], ["qr", "wpp_claim_refresh", "token", "wpp_save_token", "qr"]);
}

#[tokio::test]
async fn last_qr_at_is_the_snapshots_if_the_qr_is_the_same() {
    for (qr_text, last_qr_at) in [("2@text", json!("2027-01-15T07:59:50.000Z")), ("2@new", Value::Null)] {
        let test = test(TestNumber::qr_issued("2@text", 10_000)).await;
        test.platform("/qr", 200, json!({"qr": qr_text}));
        let answer = qr(&test).await;
        assert_eq!((&answer["qr"], &answer["last_qr_at"]), (&json!(qr_text), &last_qr_at));
    }
}

#[tokio::test]
async fn stored_qr_is_never_the_answer() {
    let test = test(TestNumber::qr_issued("2@text", LONG_AGO)).await;
    test.platform("/qr", 500, json!({}));
    let error = error(&test, json!({"session": SESSION})).await;
    assert_eq!(error.response().code, "platform_unavailable");
}

#[tokio::test]
async fn image_of_a_connected_number_is_an_error() {
    assert_eq!(image_without_qr("connected").await, Error::AlreadyConnected);
}

#[tokio::test]
async fn image_without_a_qr_is_an_error() {
    assert_eq!(image_without_qr("starting").await, Error::QrNotReady);
}

#[tokio::test]
async fn image_has_the_requested_format() {
    let test = test(TestNumber::new()).await;
    test.platform("/qr", 200, json!({"qr": "2@text"}));
    let answer = answer(&test, json!({"session": SESSION})).await.ok().unwrap();
    for (form, media_type) in [(ImageFormat::Svg, "image/svg+xml"), (ImageFormat::Png, "image/png")] {
        assert_eq!(answer.image(form).unwrap().unwrap().media_type, media_type);
    }
}
