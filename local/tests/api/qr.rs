//! `wpp-qr`.

use serde_json::{Value, json};

use local::fault_injector::{Fault, Point};
use local::platform::{QrField, QrForm, RepeatedCreate};
use local::test_app::TestApp;

fn shown(app: &TestApp, session: &str) -> Value {
    app.shown_qr(session)
}

#[tokio::test]
async fn a_warm_poll_costs_one_database_and_one_platform_request_and_no_token() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json["qr"], shown(&app, &number.session));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
}

/// The original knew neither of two numbers.
#[tokio::test]
async fn both_numbers_of_an_organisation_show_their_own_qr_by_get_and_by_post() {
    let app = TestApp::start().await;
    for number in [app.number().await, app.number().await] {
        let expected = shown(&app, &number.session);
        assert_eq!(app.poll_qr(&number.session).await.json["qr"], expected);
        let posted = app.post("wpp-qr", json!({"session": number.session})).await;
        assert_eq!(posted.json["qr"], expected);
    }
}

#[tokio::test]
async fn a_session_that_shows_no_qr_answers_null() {
    let app = TestApp::start().await;
    let number = app.number().await;
    for omit_unready_qr in [false, true] {
        app.platform.behave(|behavior| behavior.omit_unready_qr = omit_unready_qr);
        for state in ["starting", "connected", "offline"] {
            app.platform.set_status(&number.session, state).unwrap();
            let answer = app.poll_qr(&number.session).await;
            assert_eq!((answer.status, answer.json.get("qr")), (200, Some(&Value::Null)), "{state}");
            assert_eq!(
                (&answer.json["state"], &answer.json["poll_after_ms"]),
                (&json!("not_ready"), &json!(2000))
            );
        }
    }
}

#[tokio::test]
async fn a_qr_is_passed_on_as_it_is_wherever_the_platform_puts_it() {
    let app = TestApp::start().await;
    let number = app.number().await;
    for field in [QrField::Qr, QrField::CamelCode, QrField::LowerCode, QrField::Nested] {
        for form in [QrForm::Text, QrForm::DataUrl, QrForm::Base64] {
            app.platform.behave(|behavior| (behavior.qr_field, behavior.qr_form) = (field, form));
            let shown = shown(&app, &number.session);
            assert_eq!(app.poll_qr(&number.session).await.json["qr"], shown, "{field:?} {form:?}");
            let status = app.check().await;
            assert_eq!(status.json["qrcode"], shown, "{field:?} {form:?}");
        }
    }
}

/// The original wrote the whole of `settings` back as it had read them.
#[tokio::test]
async fn what_others_write_into_the_settings_during_a_refresh_stays() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.merge(&number, json!({"greeting": "old"})).await;
    app.set_token_end(&number, -3600).await;
    let before = app.settings(&number).await;
    let hold = app.hold("token", Point::After);
    let (answer, ()) = tokio::join!(app.poll_qr(&number.session), async {
        hold.reached(1).await;
        app.merge(&number, json!({"greeting": "new", "added": 1})).await;
        hold.release();
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut after = app.settings(&number).await;
    assert_ne!(after["wppJwtToken"], before["wppJwtToken"]);
    assert_eq!((&after["greeting"], &after["added"]), (&json!("new"), &json!(1)));
    for key in ["greeting", "added", "wppJwtToken", "wppJwtExpiresAt"] {
        after[key] = before[key].clone();
    }
    after.as_object_mut().unwrap().remove("added");
    assert_eq!(after, before);
}

/// The original put the old key and session back over the new ones.
#[tokio::test]
async fn a_refresh_that_ends_after_a_recreation_leaves_the_new_credentials_alone() {
    for old_token in [json!({"wppJwtExpiresAt": 1000}), json!({"wppJwtToken": null})] {
        recreate_during_a_refresh(old_token).await;
    }
}

async fn recreate_during_a_refresh(old_token: Value) {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.merge(&number, old_token).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let database = &app.supabase.faults;
    let fetched = app.hold("token", Point::After);
    let recreate = async {
        fetched.reached(1).await;
        let claim = database.hold("rpc/wpp_claim_refresh", Point::Before);
        let recreate = app.create(json!({"force_recreate": true}));
        let (recreated, ()) = tokio::join!(recreate, async {
            // The new key is in the row, and its token not yet asked for.
            claim.reached(1).await;
            let saved = database.hold("rpc/wpp_save_token", Point::After);
            fetched.release();
            saved.reached(1).await;
            saved.release();
            claim.release();
        });
        recreated
    };
    let (_, recreated) = tokio::join!(app.poll_qr(&number.session), recreate);
    assert_eq!(recreated.json["status"], "qr_issued", "{recreated:?}");
    let settings = app.settings(&number).await;
    let sub_org_id = settings["wppSubOrgId"].as_str().unwrap();
    let key = app.platform.key_of(sub_org_id).unwrap();
    assert_eq!(settings["wppApiKey"], json!(key));
    assert_eq!(app.platform.tokens_issued(&key), 1, "the old key's token is not kept for the new one");
    assert_eq!(settings["wppAccountNumber"], json!(app.platform.session_of(sub_org_id).unwrap()));
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

#[tokio::test]
async fn a_linked_number_says_so_and_one_that_only_was_linked_does_not() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.platform.scan(&number.session).unwrap();
    assert_eq!(app.check().await.json["status"], "connected");
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(
        (&answer.json["qr"], &answer.json["state"]),
        (&Value::Null, &json!("connected")),
        "{answer:?}"
    );
    app.platform.set_status(&number.session, "starting").unwrap();
    assert_eq!(app.poll_qr(&number.session).await.json["state"], "not_ready");
    app.inject("status", Fault::status(500));
    let answer = app.poll_qr(&number.session).await;
    assert_eq!((answer.status, &answer.json["state"]), (200, &json!("not_ready")), "{answer:?}");
}
