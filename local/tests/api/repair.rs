//! An API key that the platform refuses: what is repaired at once, and what a person must ask for.

use serde_json::{Value, json};

use local::fault_injector::Fault;
use local::fault_injector::Point::{After, Before};
use local::lambda::Options;
use local::platform::RepeatedCreate;
use local::test_app::{Number, TestApp};

/// Makes the platform refuse a valid key once.
fn refuse_for_a_moment(app: &TestApp) {
    app.inject_times("token", 1, Fault::status_with(403, r#"{"error":"Invalid API key"}"#));
}

/// Revokes the key on the platform. The key is old enough for that to count, and there is no token left.
async fn kill(app: &TestApp, number: &Number) {
    app.settle_keys().await;
    app.platform.revoke_key(&number.key);
    app.merge(number, json!({"wppJwtToken": null})).await;
    app.end_waits().await;
}

/// Makes the platform return this key and session once more, valid or not.
fn give(app: &TestApp, key: &str, session: &str) {
    let given = json!({"apiKey": key, "session": session}).to_string();
    app.inject_times("create", 1, Fault::Body(given));
}

/// Sends a request whose sandbox dies when the platform has created the client, and ends its lease.
async fn die_with_the_platforms_answer(app: &TestApp, body: Value) {
    assert!(app.killed_at("create", After, app.school.post("wpp-create", &body)).await);
    app.end_waits().await;
}

/// Adds a number whose key is dead, linked or not.
async fn dead_number(app: &TestApp, is_linked: bool) -> Number {
    let number = app.number().await;
    if is_linked {
        app.link(&number).await;
    }
    kill(app, &number).await;
    number
}

/// When asked again, the platform returns the same key, a new key, or a new client.
#[tokio::test]
async fn never_linked_number_is_repaired() {
    for (repeated_create, is_same_session) in
        [(RepeatedCreate::SameKey, true), (RepeatedCreate::NewKey, true), (RepeatedCreate::NewClient, false)]
    {
        for body in [json!({}), json!({"add_new": true})] {
            let app = TestApp::start().await;
            let number = dead_number(&app, false).await;
            app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
            let repaired = app.create(body.clone()).await.expect(200, "qr_issued");
            let is_same = repaired.json["session"] == json!(number.session);
            assert_eq!(is_same, is_same_session, "{repeated_create:?} {body}");
            assert_eq!(app.numbers().await.len(), 1, "{repeated_create:?} {body}");
            assert_eq!(app.poll_qr(repaired.text("session")).await.status, 200);
        }
    }
}

#[tokio::test]
async fn linked_number_is_repaired_with_its_own_session() {
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        let app = TestApp::start().await;
        let number = dead_number(&app, true).await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        let repaired = app.create(json!({})).await.expect(200, "connected");
        assert_eq!(repaired.text("session"), number.session);
        assert_ne!(app.settings(&number).await["wppApiKey"], json!(number.key));
        assert_eq!(app.platform.clients(), 1, "the platform was asked with the same id");
    }
}

/// A new session would lose the linked phone, so a person must ask for it.
#[tokio::test]
async fn linked_number_keeps_its_row_if_another_session_comes() {
    let app = TestApp::start().await;
    let number = dead_number(&app, true).await;
    let before = app.settings(&number).await;
    for _ in 0..2 {
        give(&app, "another key", "0000000000009");
        app.create(json!({})).await.expect(409, "api_key_rejected");
        assert_eq!(app.settings(&number).await, before);
    }
    assert_eq!((app.platform.clients(), app.numbers().await.len()), (1, 1));
    let unfinished = "select 1 from wpp_creations where finished_at is null";
    assert!(app.sql.query(unfinished, &[]).await.unwrap().is_empty());
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewClient);
    let recreated = app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
    assert_ne!(recreated.text("session"), number.session);
    assert_eq!(app.poll_qr(recreated.text("session")).await.status, 200);
    assert_eq!(app.snapshot_row(&number.session).await["status"], "disconnected");
}

#[tokio::test]
async fn same_dead_key_again_leaves_a_linked_number_alone() {
    let app = TestApp::start().await;
    let number = dead_number(&app, true).await;
    let before = app.settings(&number).await;
    give(&app, &number.key, &number.session);
    app.create(json!({})).await.expect(409, "api_key_rejected");
    assert_eq!((app.settings(&number).await, app.platform.clients()), (before, 1));
}

#[tokio::test]
async fn same_dead_key_again_gives_an_unlinked_number_a_new_id() {
    let app = TestApp::start().await;
    let number = dead_number(&app, false).await;
    give(&app, &number.key, &number.session);
    let repaired = app.create(json!({})).await.expect(200, "qr_issued");
    assert_ne!(repaired.text("session"), number.session);
    assert_eq!((app.numbers().await.len(), app.platform.clients()), (1, 2));
}

/// `wpp-send` writes back all of `settings` as it read them.
#[tokio::test]
async fn old_key_written_back_is_repaired() {
    for repeated_create in [RepeatedCreate::NewKey, RepeatedCreate::NewClient] {
        let app = TestApp::start().await;
        let number = app.number().await;
        app.link(&number).await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        let old = app.settings(&number).await;
        app.settle_keys().await;
        let recreated = app.create(json!({"force_recreate": true})).await;
        let session = recreated.text("session").to_owned();
        // A phone is linked to the new session, and then the old key and session are written back.
        app.platform.scan(&session).unwrap();
        app.post("wpp-status", json!({"session": session, "force": true})).await.expect(200, "connected");
        app.merge(&number, old).await;
        kill(&app, &number).await;
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::SameKey);
        give(&app, &app.platform.key_of_session(&session), &session);
        let repaired = app.create(json!({})).await.expect(200, "connected");
        assert_eq!(repaired.text("session"), session, "{repeated_create:?}");
    }
}

/// A row of the TypeScript version, about which nothing else is recorded.
#[tokio::test]
async fn number_of_the_typescript_version_counts_as_linked() {
    for (gives_its_session, status, word) in [(true, 200, "qr_issued"), (false, 409, "api_key_rejected")] {
        let app = TestApp::start().await;
        let number = dead_number(&app, false).await;
        app.sql.batch_execute("delete from wpp_numbers; delete from wpp_creations").await.unwrap();
        let before = app.settings(&number).await;
        if !gives_its_session {
            give(&app, "another key", "0000000000009");
        }
        app.create(json!({})).await.expect(status, word);
        assert_eq!(app.settings(&number).await == before, !gives_its_session);
    }
}

/// The panel's "Try again" after a failed create, while other numbers work.
#[tokio::test]
async fn panels_try_again_leaves_a_working_number_alone() {
    let app = TestApp::start().await;
    let (first, second) = (app.number().await, app.number().await);
    app.link(&first).await;
    app.link(&second).await;
    let rows = async || {
        let row = |row: &Value| json!([row["id"], row["settings"], row["is_primary"], row["is_active"]]);
        app.numbers().await.iter().map(row).collect::<Vec<_>>()
    };
    let before = (rows().await, app.platform.create_calls());
    app.create(json!({"add_new": false})).await.expect(200, "connected");
    assert_eq!((rows().await, app.platform.create_calls()), before);
}

#[tokio::test]
async fn recreation_repeated_after_a_lost_answer_keeps_its_session() {
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        let app = TestApp::start().await;
        let number = app.settled_number().await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        for _ in 0..2 {
            let recreated = app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
            assert_eq!(recreated.text("session"), number.session);
            assert_eq!(app.poll_qr(&number.session).await.status, 200);
        }
        assert_eq!((app.platform.clients(), app.numbers().await.len()), (1, 1));
    }
}

/// A person learns which number to create again; the other one is not touched.
#[tokio::test]
async fn new_credentials_are_for_the_named_number() {
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        let app = TestApp::start().await;
        let (primary, second) = (app.number().await, app.number().await);
        app.link(&primary).await;
        app.link(&second).await;
        kill(&app, &second).await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        let refused = app.poll_qr(&second.session).await.expect(409, "api_key_rejected");
        assert!(refused.text("error").contains("delete the number in the list"), "{refused:?}");

        let untouched = app.settings(&primary).await;
        let answer = app
            .create(json!({"force_recreate": true, "session": second.session}))
            .await
            .expect(200, "connected");
        let session = answer.text("session");
        assert_eq!(app.settings(&second).await["wppAccountNumber"], answer.json["session"]);
        assert_eq!(app.poll_qr(session).await.status, 200);
        assert_eq!(app.settings(&primary).await, untouched);
        assert_eq!(app.numbers().await.len(), 2);
    }
}

#[tokio::test]
async fn number_is_named_in_three_ways() {
    let app = TestApp::start().await;
    let (_primary, second) = (app.number().await, app.number().await);
    for name in [
        json!({"session": second.session}),
        json!({"session_name": format!("wpp_{}", second.session)}),
        json!({"integration_id": second.id}),
    ] {
        let answer = app.create(name.clone()).await;
        assert_eq!((answer.status, answer.text("session")), (200, &*second.session), "{name}");
    }
    let neighbor = app.organization("neighbor").await.unwrap();
    for name in [json!({"session": second.session}), json!({"integration_id": second.id})] {
        for force_recreate in [true, false] {
            let mut body = name.clone();
            body["force_recreate"] = json!(force_recreate);
            app.post_as(&neighbor, "wpp-create", body).await.expect(404, "number_not_found");
        }
    }
    assert_eq!(app.platform.clients(), 2);
}

/// Simultaneous requests that find the key dead all get the same new key.
#[tokio::test]
async fn dead_key_found_by_many_is_replaced_once() {
    let app = TestApp::start_with(&[], Options { concurrency: 5, ..Options::default() }).await;
    let number = app.number().await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    kill(&app, &number).await;
    let before = app.platform.create_calls();
    let hold = app.hold("create", Before);
    let asked = (0..5).map(|_| app.create(json!({})));
    let together = async {
        hold.reached(1).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(asked), together);
    assert!(answers.iter().all(|answer| answer.json["status"] == "qr_issued"), "{answers:?}");
    assert_eq!(app.platform.create_calls(), before + 1);
}

/// Only `wpp-webhook`, which receives the platform's reports, knows about the link.
#[tokio::test]
async fn link_known_only_from_the_snapshot_counts() {
    let (app, number) = TestApp::start_with_number().await;
    app.sql.batch_execute("update whatsapp_sessions set status = 'connected'").await.unwrap();
    kill(&app, &number).await;
    give(&app, "another key", "0000000000009");
    let before = app.settings(&number).await;
    app.create(json!({})).await.expect(409, "api_key_rejected");
    assert_eq!(app.settings(&number).await, before);
}

/// The platform returns the same key, and now accepts it, so the key is not dead.
#[tokio::test]
async fn key_accepted_late_is_kept() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    app.set_token_end(&number, -1).await;
    app.end_waits().await;
    refuse_for_a_moment(&app);
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(answer.text("session"), number.session);
}

/// A user switches the number off while its key is found dead.
#[tokio::test]
async fn number_deactivated_meanwhile_stays_inactive() {
    let (app, number) = TestApp::start_with_number().await;
    kill(&app, &number).await;
    let before = app.settings(&number).await;
    let hold = app.hold_one("token", Before);
    let disconnect = async {
        hold.reached(1).await;
        app.sql.batch_execute("update messenger_integrations set is_active = false").await.unwrap();
        hold.release();
    };
    let (answer, ()) = tokio::join!(app.create(json!({})), disconnect);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!((&app.numbers().await[0]["is_active"], app.settings(&number).await), (&json!(false), before));
}

/// Adding a number does not reactivate one that a user disconnected, even after an attempt to reactivate it.
#[tokio::test]
async fn add_new_leaves_a_disconnected_number_alone() {
    let app = TestApp::start().await;
    let (first, off) = (app.number().await, app.number().await);
    app.link(&first).await;
    app.link(&off).await;
    let disconnect = "update messenger_integrations set is_active = false where id = $1";
    app.sql.execute(disconnect, &[&off.id]).await.unwrap();
    app.inject("create", Fault::Html);
    assert_eq!(app.create(json!({"session": off.session})).await.status, 502);
    app.clear_faults();
    let added = app.create(json!({"add_new": true})).await.expect(200, "qr_issued");
    assert_ne!(added.json["session"], json!(off.session));
    let numbers = app.numbers().await;
    assert_eq!((numbers.len(), &numbers[1]["is_active"]), (3, &json!(false)));
}

/// The platform replaced the old key, but its answer was lost with the sandbox. The request for a new key is recorded, so the next
/// ordinary request finishes it.
#[tokio::test]
async fn recreation_that_died_is_finished_by_another_request() {
    let (app, number) = TestApp::start_with_number().await;
    app.link(&number).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    die_with_the_platforms_answer(&app, json!({"force_recreate": true})).await;

    app.create(json!({})).await.expect(200, "connected");
    let settings = app.settings(&number).await;
    assert_eq!(settings["wppApiKey"], json!(app.platform.key_of(settings["wppSubOrgId"].as_str().unwrap())));
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// A first number whose creation died still needs its credentials. It is finished before another number is added.
#[tokio::test]
async fn unfinished_first_number_is_finished_by_add_new() {
    let app = TestApp::start().await;
    die_with_the_platforms_answer(&app, json!({})).await;
    app.create(json!({"add_new": true})).await.expect(200, "qr_issued");
    let [row] = &app.numbers().await[..] else { panic!("not one row") };
    assert_eq!((&row["is_primary"], &row["is_active"]), (&json!(true), &json!(true)));
    assert_eq!(app.platform.clients(), 1);
}

/// The refusal of a key no longer counts after the platform has returned the same key.
#[tokio::test]
async fn key_refused_for_a_moment_serves_after_a_recreation() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    app.set_token_end(&number, -1).await;
    refuse_for_a_moment(&app);
    assert_eq!(app.poll_qr(&number.session).await.status, 409);
    let answer = app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
    assert_eq!(answer.text("session"), number.session);
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// A person can always delete the number in the list and connect again. This platform returns the dead key once more.
#[tokio::test]
async fn deleted_number_comes_back_with_another_key() {
    let app = TestApp::start().await;
    let created = app.create(json!({})).await;
    let number = app.number_of(created.text("session")).await;
    app.link(&number).await;
    kill(&app, &number).await;
    assert_eq!(app.poll_qr(&number.session).await.json["code"], "api_key_rejected");
    app.sql.execute("delete from messenger_integrations", &[]).await.unwrap();
    let dead = json!({"apiKey": number.key, "session": number.session}).to_string();
    app.inject_times("create", 1, Fault::Body(dead));
    let again = app.create(json!({})).await.expect(200, "qr_issued");
    assert_ne!(again.json["session"], json!(number.session));
}
