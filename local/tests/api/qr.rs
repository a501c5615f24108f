//! `wpp-qr`.

use serde_json::{Value, json};

use local::events::Event;
use local::fault_injector::{Fault, Point};
use local::lambda::Answer;
use local::platform::{QrField, QrForm, RepeatedCreate};
use local::test_app::{TestApp, until};

fn shown(app: &TestApp, session: &str) -> Value {
    json!(app.stack.platform.qr_of(session).unwrap())
}

fn token_calls(app: &TestApp) -> u64 {
    app.stack.platform.faults.count("token")
}

fn refused(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.json["code"].as_str().unwrap_or_default())
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
async fn a_session_that_is_not_the_organisations_is_not_found_and_the_platform_not_asked() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let stranger = app.stack.organisation("stranger").await.unwrap();
    let foreign = app.post_as(&stranger, "wpp-qr", json!({"session": number.session})).await;
    assert_eq!(refused(&foreign), (404, "number_not_found"));
    assert_eq!(refused(&app.poll_qr("0000000000000").await), (404, "number_not_found"));
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 2}));
}

#[tokio::test]
async fn a_request_without_a_usable_session_costs_nothing() {
    let app = TestApp::start().await;
    for body in [json!({}), json!({"session": ""}), json!({"session": "../x"}), json!({"session": 7})] {
        let answer = app.post("wpp-qr", body).await;
        assert_eq!(refused(&answer), (400, "invalid_request"), "{answer:?}");
    }
    assert_eq!(app.calls(), json!({}));
}

/// The original took some spellings in one function and refused them in another.
#[tokio::test]
async fn the_bearer_scheme_is_read_in_any_case_and_with_any_number_of_spaces() {
    let app = TestApp::start().await;
    let number = app.number().await;
    for scheme in ["Bearer ", "bearer ", "BEARER   "] {
        let authorization = format!("{scheme}{}", app.school.token);
        for name in ["wpp-qr", "wpp-status"] {
            let event = Event::post(name).header("Authorization", &authorization);
            let answer = app.invoke(name, event.json(&json!({"session": number.session})).v2()).await;
            assert_eq!(answer.status, 200, "{scheme}{name}");
        }
    }
}

#[tokio::test]
async fn a_session_that_shows_no_qr_answers_null() {
    let app = TestApp::start().await;
    let number = app.number().await;
    for omit_unready_qr in [false, true] {
        app.stack.platform.behave(|behavior| behavior.omit_unready_qr = omit_unready_qr);
        for word in ["starting", "connected", "offline"] {
            app.stack.platform.set_status(&number.session, word).unwrap();
            let answer = app.poll_qr(&number.session).await;
            assert_eq!((answer.status, answer.json.get("qr")), (200, Some(&Value::Null)), "{word}");
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
            app.stack.platform.behave(|behavior| (behavior.qr_field, behavior.qr_form) = (field, form));
            let answer = app.poll_qr(&number.session).await;
            assert_eq!(answer.json["qr"], shown(&app, &number.session), "{field:?} {form:?}");
        }
    }
}

/// The original answered `qr: null` until the token expired.
#[tokio::test]
async fn a_token_refused_before_its_end_is_replaced_once_and_the_poll_repeated_once() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let old = app.settings(&number).await["wppJwtToken"].clone();
    app.stack.platform.forget_tokens();
    assert_eq!(app.poll_qr(&number.session).await.json["qr"], shown(&app, &number.session));
    assert_eq!(
        app.calls(),
        json!({
            "rpc/wpp_find_number": 1, "qr": 2, "token": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1,
        })
    );
    assert_ne!(app.settings(&number).await["wppJwtToken"], old);
    app.forget_calls();
    app.poll_qr(&number.session).await;
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
}

/// The original fetched a token for each, and each threw the other's away.
#[tokio::test]
async fn a_panels_two_polls_with_an_expired_token_fetch_one_between_them() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.set_token_end(&number, -3600).await;
    let hold = app.stack.platform.faults.hold("token", Point::Before);
    let claims = || app.stack.supabase.faults.count("rpc/wpp_claim_refresh");
    let (qr, status, ()) =
        tokio::join!(app.poll_qr(&number.session), app.post("wpp-status", json!({"force": true})), async {
            until(async || claims() >= 2).await;
            hold.release();
        });
    assert_eq!(qr.json["qr"], shown(&app, &number.session));
    assert_eq!(status.json["qrcode"], qr.json["qr"]);
    assert_eq!(token_calls(&app), 1);
    assert_eq!(app.stack.supabase.faults.count("rpc/wpp_save_token"), 1);
}

/// The original wrote the whole of `settings` back as it had read them.
#[tokio::test]
async fn what_others_write_into_the_settings_during_a_refresh_stays() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.merge(&number, json!({"greeting": "old"})).await;
    app.set_token_end(&number, -3600).await;
    let before = app.settings(&number).await;
    let hold = app.stack.platform.faults.hold("token", Point::After);
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
    app.stack.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let database = &app.stack.supabase.faults;
    let fetched = app.stack.platform.faults.hold("token", Point::After);
    let recreate = async {
        fetched.reached(1).await;
        let claim = database.hold("rpc/wpp_claim_refresh", Point::Before);
        let recreate = app.post("wpp-create", json!({"force_recreate": true}));
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
    let key = app.stack.platform.key_of(sub_org_id).unwrap();
    assert_eq!(settings["wppApiKey"], json!(key));
    assert_eq!(app.stack.platform.tokens_issued(&key), 1, "the old key's token is not kept for the new one");
    assert_eq!(settings["wppAccountNumber"], json!(app.stack.platform.session_of(sub_org_id).unwrap()));
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// The original ignored it in silence.
#[tokio::test]
async fn a_new_token_that_cannot_be_saved_serves_its_poll_and_the_loss_is_logged() {
    use local::fault_injector::Fault;
    let app = TestApp::start().await;
    let number = app.number().await;
    app.set_token_end(&number, -3600).await;
    let refusal = Fault::status(500);
    app.stack.supabase.faults.inject_times("rpc/wpp_save_token", 1, refusal);
    assert_eq!(app.poll_qr(&number.session).await.json["qr"], shown(&app, &number.session));
    let logs = app.sandbox("wpp-qr").logs().await;
    assert_eq!(logs.matches("SaveFailed").count(), 1, "{logs}");
}

#[tokio::test]
async fn a_linked_number_says_so_and_one_that_only_was_linked_does_not() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.stack.platform.scan(&number.session).unwrap();
    assert_eq!(app.post("wpp-status", json!({"force": true})).await.json["status"], "connected");
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(
        (&answer.json["qr"], &answer.json["state"]),
        (&Value::Null, &json!("connected")),
        "{answer:?}"
    );
    app.stack.platform.set_status(&number.session, "starting").unwrap();
    assert_eq!(app.poll_qr(&number.session).await.json["state"], "not_ready");
    app.stack.platform.faults.inject("status", Fault::status(500));
    let answer = app.poll_qr(&number.session).await;
    assert_eq!((answer.status, &answer.json["state"]), (200, &json!("not_ready")), "{answer:?}");
}
