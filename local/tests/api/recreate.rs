//! `wpp-create` with failures after the platform's answer, and `force_recreate`: the working credentials are kept until
//! the new ones are saved.

use serde_json::{Value, json};

use local::fault_injector::Fault;
use local::fault_injector::Point::After;
use local::lambda::Options;
use local::platform::RepeatedCreate;
use local::test_app::TestApp;

use crate::create::masked;

async fn recreate(app: &TestApp) -> Value {
    let answer = app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
    answer.json
}

/// The TypeScript version was left with a dead key.
#[tokio::test]
async fn failed_save_is_a_retryable_503() {
    let app = TestApp::start().await;
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        for fault in [Fault::status(503), Fault::LostAnswer, Fault::Drop] {
            for body in [json!({}), json!({"add_new": true}), json!({"force_recreate": true})] {
                let school = app.organization("unsaved").await.unwrap();
                if body["force_recreate"] == true {
                    app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
                }
                let clients = app.platform.clients() + usize::from(body["force_recreate"].is_null());
                app.inject("rpc/wpp_save_credentials", fault.clone());
                let failed = app.post_as(&school, "wpp-create", body.clone()).await;
                assert_eq!((failed.status, &failed.json["retryable"]), (503, &json!(true)), "{failed:?}");
                app.clear_faults();

                app.forget_calls();
                app.post_as(&school, "wpp-create", body).await.expect(200, "qr_issued");
                assert_eq!(app.calls()["rpc/wpp_begin_creation"], 1, "no request waits for one that gave up");
                let rows = "select c.platform_id, i.settings->>'wppApiKey', i.settings->>'wppAccountNumber'
                    from messenger_integrations i join wpp_creations c on c.integration_id = i.id
                    where i.organization_id = $1 order by c.created_at desc";
                let rows = app.sql.query(rows, &[&school.id]).await.unwrap();
                let id: String = rows[0].get(0);
                assert_eq!(rows[0].get::<_, Option<String>>(1), app.platform.key_of(&id));
                assert_eq!(rows[0].get::<_, Option<String>>(2), app.platform.session_of(&id));
                assert_eq!(app.platform.clients(), clients);
            }
        }
    }
    let doubled = "select 1 from messenger_integrations group by organization_id having count(*) > 1";
    assert!(app.sql.query(doubled, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn recreation_keeps_other_settings() {
    // A platform that otherwise returns the same key creates a new one if that key is dead.
    for (repeated_create, is_dead, is_same) in [
        (RepeatedCreate::SameKey, false, true),
        (RepeatedCreate::NewKey, false, false),
        (RepeatedCreate::SameKey, true, false),
    ] {
        let app = TestApp::start().await;
        let number = app.settled_number().await;
        app.merge(&number, json!({"greeting": {"de": "Hallo"}})).await;
        let before = app.settings(&number).await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        if is_dead {
            app.platform.revoke_key(&number.key);
        }

        let answer = recreate(&app).await;
        let calls = app.calls();
        assert_eq!(answer["session"], json!(number.session));
        let after = app.settings(&number).await;
        let key = app.platform.key_of(before["wppSubOrgId"].as_str().unwrap()).unwrap();
        assert_eq!(after["wppApiKey"], json!(key));
        assert_eq!(key == number.key, is_same);
        assert_eq!(answer["apiKey"], masked(&key));
        assert_eq!((&calls["create"], &calls["token"]), (&json!(1), &json!(1)));
        assert_eq!(app.numbers().await.len(), 1);
        assert_eq!(after["wppSubOrgId"], before["wppSubOrgId"]);
        assert_eq!(after["greeting"], before["greeting"]);
        assert_eq!(after["wppJwtToken"] == before["wppJwtToken"], is_same);
        let poll = app.poll_qr(&number.session).await;
        assert_eq!((poll.status, &poll.json["qr"]), (200, &answer["qrcode"]), "{poll:?}");
    }
}

#[tokio::test]
async fn a_failed_recreation_leaves_the_number_working() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    let before = app.settings(&number).await;
    for fault in [
        Fault::status(500),
        Fault::status(401),
        Fault::status(409),
        Fault::Html,
        Fault::Body("{}".to_owned()),
        Fault::Drop,
    ] {
        app.inject("create", fault.clone());
        let answer = app.create(json!({"force_recreate": true})).await;
        assert_eq!(answer.status, 502, "{fault:?} {answer:?}");
        assert_eq!(app.settings(&number).await, before);
        let plain = app.create(json!({})).await;
        assert_eq!(plain.json["session"], json!(number.session), "{plain:?}");
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
    }
    app.clear_faults();
    assert_eq!(recreate(&app).await["session"], json!(number.session));
}

#[tokio::test]
async fn a_dead_api_key_is_replaced_under_a_new_platform_id() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    let before = app.settings(&number).await;
    let given = json!({"apiKey": number.key, "session": number.session}).to_string();
    app.inject_times("create", 1, Fault::Body(given));
    app.platform.revoke_key(&number.key);

    // The request that is given the new id is killed. The next recreation continues with that id.
    let event = app.school.post("wpp-create", &json!({"force_recreate": true}));
    assert!(app.killed_at("rpc/wpp_assign_platform_id", After, event).await);
    app.end_waits().await;
    let new_platform_id = "select platform_id from wpp_creations where finished_at is null";
    let new_platform_id: String = app.sql.query_one(new_platform_id, &[]).await.unwrap().get(0);

    let answer = recreate(&app).await;
    assert_ne!(answer["session"], json!(number.session));
    assert_eq!(answer["session"], json!(app.platform.session_of(&new_platform_id)));
    let after = app.settings(&number).await;
    assert_eq!(after["wppSubOrgId"], json!(new_platform_id));
    assert_eq!(after["wppAccountNumber"], answer["session"]);
    assert_ne!(after["wppApiKey"], before["wppApiKey"]);
    assert_eq!(app.poll_qr(answer["session"].as_str().unwrap()).await.status, 200);
    assert_eq!(app.poll_qr(&number.session).await.status, 404);
}

#[tokio::test]
async fn an_api_key_that_is_not_active_yet_is_not_replaced() {
    let app = TestApp::start_with(&[("REQUEST_BUDGET_MS", "1500")], Options::default()).await;
    app.platform.behave(|behavior| behavior.activate_after = u32::MAX);
    for body in [json!({}), json!({"force_recreate": true})] {
        app.create(body).await.expect(503, "api_key_not_active");
    }
    assert_eq!((app.numbers().await.len(), app.platform.clients()), (1, 1));
}
