//! `wpp-qr`.

use serde_json::{Value, json};

use local::fault_injector::{Fault, Point};
use local::platform::{QrField, QrForm, RepeatedCreate};
use local::test_app::TestApp;

#[tokio::test]
async fn a_warm_poll_costs_one_database_and_one_platform_request_and_no_token() {
    let (app, number) = TestApp::start_with_number().await;
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json["qr"], app.shown_qr(&number.session));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
}

#[tokio::test]
async fn a_session_that_shows_no_qr_answers_null_and_its_status_says_so_in_a_sentence() {
    let (app, number) = TestApp::start_with_number().await;
    for omit_unready_qr in [false, true] {
        app.platform.behave(|behavior| behavior.omit_unready_qr = omit_unready_qr);
        for (word, state) in
            [("starting", "qr_pending"), ("offline", "disconnected"), ("connected", "connected")]
        {
            app.platform.set_status(&number.session, word).unwrap();
            let answer = app.poll_qr(&number.session).await.expect(200, "not_ready");
            assert_eq!(
                (answer.json.get("qr"), &answer.json["poll_after_ms"]),
                (Some(&Value::Null), &json!(2000))
            );
            let status = app.check().await.expect(200, state).json;
            assert_eq!(status["message"].is_string(), state != "connected", "{status}");
            assert_eq!((status.get("qrcode"), status.get("last_qr_at")), (None, None), "{status}");
        }
    }
}

#[tokio::test]
async fn a_qr_is_passed_on_as_it_is_wherever_the_platform_puts_it() {
    let (app, number) = TestApp::start_with_number().await;
    for field in [QrField::Qr, QrField::CamelCode, QrField::LowerCode, QrField::Nested] {
        for form in [QrForm::Text, QrForm::DataUrl, QrForm::Base64] {
            app.platform.behave(|behavior| (behavior.qr_field, behavior.qr_form) = (field, form));
            let shown = app.shown_qr(&number.session);
            assert_eq!(app.poll_qr(&number.session).await.json["qr"], shown, "{field:?} {form:?}");
            assert_eq!(app.check().await.json["qrcode"], shown, "{field:?} {form:?}");
        }
    }
}

/// The original put the old key and session back over the new ones.
#[tokio::test]
async fn a_refresh_that_ends_after_a_recreation_leaves_the_new_credentials_alone() {
    for old_token in [json!({"wppJwtExpiresAt": 1000}), json!({"wppJwtToken": null})] {
        let (app, number) = TestApp::start_with_number().await;
        app.merge(&number, old_token).await;
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
        let fetched = app.hold("token", Point::After);
        let recreate = async {
            fetched.reached(1).await;
            let claim = app.hold("rpc/wpp_claim_refresh", Point::Before);
            let recreate = app.create(json!({"force_recreate": true}));
            let meanwhile = async {
                // The new key is in the row, and its token not yet asked for.
                claim.reached(1).await;
                let saved = app.hold("rpc/wpp_save_token", Point::After);
                fetched.release();
                saved.reached(1).await;
                saved.release();
                claim.release();
            };
            tokio::join!(recreate, meanwhile).0.expect(200, "qr_issued");
        };
        tokio::join!(app.poll_qr(&number.session), recreate);
        let settings = app.settings(&number).await;
        let sub_org_id = settings["wppSubOrgId"].as_str().unwrap();
        let key = app.platform.key_of(sub_org_id).unwrap();
        assert_eq!(settings["wppApiKey"], json!(key));
        assert_eq!(app.platform.tokens_issued(&key), 1, "the old key's token is not kept for the new one");
        assert_eq!(settings["wppAccountNumber"], json!(app.platform.session_of(sub_org_id).unwrap()));
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
    }
}

#[tokio::test]
async fn a_linked_number_says_so_and_one_that_only_was_linked_does_not() {
    let (app, number) = TestApp::start_with_number().await;
    app.link(&number).await;
    let answer = app.poll_qr(&number.session).await.expect(200, "connected");
    assert_eq!(answer.json["qr"], Value::Null, "{answer:?}");
    app.platform.set_status(&number.session, "starting").unwrap();
    app.poll_qr(&number.session).await.expect(200, "not_ready");
    app.inject("status", Fault::status(500));
    app.poll_qr(&number.session).await.expect(200, "not_ready");
}
