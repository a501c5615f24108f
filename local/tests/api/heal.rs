//! A key that the platform refuses: what heals by itself, what a person has to ask for, and for which number.

use serde_json::{Value, json};

use local::fault_injector::Fault;
use local::fault_injector::Point::{After, Before};
use local::lambda::Options;
use local::platform::RepeatedCreate;
use local::test_app::{Number, TestApp};

/// What the platform says once of a key that it does take.
fn refuse_for_a_moment(app: &TestApp) {
    app.inject_times("token", 1, Fault::status_with(403, r#"{"error":"Invalid API key"}"#));
}

/// The key is dead on the platform, old enough for that to mean something, and there is no token left.
async fn kill(app: &TestApp, number: &Number) {
    app.settle_keys().await;
    app.platform.revoke_key(&number.key);
    app.merge(number, json!({"wppJwtToken": null})).await;
    app.end_waits().await;
}

/// A request whose sandbox dies when the platform has made the client; its lease is over.
async fn die_with_the_platforms_answer(app: &TestApp, body: Value) {
    assert!(app.killed_at("create", After, app.school.post("wpp-create", &body)).await);
    app.end_waits().await;
}

/// A person learns which number to create again; the other one is not touched.
#[tokio::test]
async fn new_credentials_are_for_the_number_that_is_named() {
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        let app = TestApp::start().await;
        let (primary, second) = (app.number().await, app.number().await);
        app.link(&primary).await;
        app.link(&second).await;
        kill(&app, &second).await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        let refused = app.poll_qr(&second.session).await.expect(409, "api_key_rejected");
        for field in ["error", "hint"] {
            assert!(refused.text(field).contains("delete the number in the list"), "{refused:?}");
        }

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
async fn a_number_is_named_in_three_ways_and_only_one_of_the_organisations_own() {
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
    let neighbour = app.organisation("neighbour").await.unwrap();
    for name in [json!({"session": second.session}), json!({"integration_id": second.id})] {
        for force_recreate in [true, false] {
            let mut body = name.clone();
            body["force_recreate"] = json!(force_recreate);
            app.post_as(&neighbour, "wpp-create", body).await.expect(404, "number_not_found");
        }
    }
    assert_eq!(app.platform.clients(), 2);
}

/// The platform gave two keys, and the one that was saved is the dead one: a create that was given up came through late.
#[tokio::test]
async fn a_number_that_was_never_linked_gets_another_key_by_itself() {
    for body in [json!({}), json!({"add_new": true})] {
        let app = TestApp::start().await;
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
        let first = app.create(body.clone()).await.expect(200, "qr_issued");
        let number = app.number_of(first.text("session")).await;
        kill(&app, &number).await;
        let healed = app.create(body.clone()).await.expect(200, "qr_issued");
        assert_eq!(healed.json["session"], first.json["session"], "{body}");
        assert_eq!((app.numbers().await.len(), app.platform.clients()), (1, 1), "{body}");
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
    }
}

/// Whoever finds the key dead at once with others finds the new one with them: one replacement.
#[tokio::test]
async fn many_who_find_the_key_dead_at_once_replace_it_once() {
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

/// A phone is linked with it: a new session would lose that, so it is for a person to say.
#[tokio::test]
async fn a_number_that_was_linked_once_is_replaced_only_when_somebody_asks_for_it() {
    let (app, number) = TestApp::start_with_number().await;
    app.link(&number).await;
    kill(&app, &number).await;
    let before = (app.settings(&number).await, app.platform.create_calls());
    for _ in 0..2 {
        app.create(json!({})).await.expect(409, "api_key_rejected");
    }
    assert_eq!((app.settings(&number).await, app.platform.create_calls()), before);
    app.create(json!({"force_recreate": true})).await.expect(200, "connected");
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// The sibling that takes the platform's reports knows of the link, and nobody else.
#[tokio::test]
async fn a_link_that_only_the_mirror_knows_of_counts_as_well() {
    let (app, number) = TestApp::start_with_number().await;
    app.sql.batch_execute("update whatsapp_sessions set status = 'connected'").await.unwrap();
    kill(&app, &number).await;
    let before = app.settings(&number).await;
    app.create(json!({})).await.expect(409, "api_key_rejected");
    assert_eq!(app.settings(&number).await, before);
}

/// The platform gives the same key again, and takes it now: that is no dead key.
#[tokio::test]
async fn a_key_that_the_platform_takes_after_all_is_not_called_dead() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    app.set_token_end(&number, -1).await;
    app.end_waits().await;
    refuse_for_a_moment(&app);
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(answer.text("session"), number.session);
}

/// Somebody switches the number off while its key is found dead.
#[tokio::test]
async fn a_number_that_is_switched_off_meanwhile_stays_off() {
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

/// A number that somebody has disconnected is not what adding one brings back, though bringing it back was tried once.
#[tokio::test]
async fn a_disconnected_number_is_not_taken_up_by_adding_one() {
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

/// The old key died with the platform's answer, which was lost with its sandbox. That somebody asked for a new one is on
/// record, so that the next ordinary request finishes it.
#[tokio::test]
async fn a_recreation_that_died_is_finished_by_a_request_of_another_kind() {
    let (app, number) = TestApp::start_with_number().await;
    app.link(&number).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    die_with_the_platforms_answer(&app, json!({"force_recreate": true})).await;

    // The old token serves for as long as the platform takes it.
    app.create(json!({})).await.expect(200, "connected");
    kill(&app, &number).await;
    app.create(json!({})).await.expect(200, "connected");
    let settings = app.settings(&number).await;
    assert_eq!(settings["wppApiKey"], json!(app.platform.key_of(settings["wppSubOrgId"].as_str().unwrap())));
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// A first number whose creation died waits for its credentials: that comes before one more.
#[tokio::test]
async fn a_first_number_that_was_never_finished_is_finished_by_adding_one() {
    let app = TestApp::start().await;
    die_with_the_platforms_answer(&app, json!({})).await;
    app.create(json!({"add_new": true})).await.expect(200, "qr_issued");
    let [row] = &app.numbers().await[..] else { panic!("not one row") };
    assert_eq!((&row["is_primary"], &row["is_active"]), (&json!(true), &json!(true)));
    assert_eq!(app.platform.clients(), 1);
}

/// The frontend repeats what failed with a 5xx: the new credentials are not replaced again by that.
#[tokio::test]
async fn a_recreation_that_failed_after_its_key_was_saved_goes_on_with_that_key() {
    let app = TestApp::start().await;
    app.settled_number().await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let before = app.platform.create_calls();
    app.inject("start", Fault::Html);
    let recreate = async || app.create(json!({"force_recreate": true})).await;
    for _ in 0..2 {
        assert_eq!(recreate().await.status, 502);
    }
    app.clear_faults();
    assert_eq!(recreate().await.json["status"], "qr_issued");
    assert_eq!(app.platform.create_calls(), before + 1);

    // Later, it is another request.
    app.settle_keys().await;
    assert_eq!(recreate().await.json["status"], "qr_issued");
    assert_eq!(app.platform.create_calls(), before + 2);
}

/// Each of two clicks has its own key, and one creation serves them both: repeating either is no new request.
#[tokio::test]
async fn an_idempotency_key_is_kept_with_the_creation_that_it_joined() {
    let (app, number) = TestApp::start_with_number().await;
    app.link(&number).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let recreate =
        async |key: &str| app.create_with_key(&app.school, key, json!({"force_recreate": true})).await;
    app.inject("create", Fault::Html);
    assert_eq!(recreate("one").await.status, 502);
    app.clear_faults();
    let done = recreate("two").await.expect(200, "connected");
    app.settle_keys().await;
    let before = app.platform.create_calls();
    for key in ["one", "two"] {
        assert_eq!(recreate(key).await.json["apiKey"], done.json["apiKey"], "{key}");
    }
    assert_eq!(app.platform.create_calls(), before);

    // One that came within the minute after another is bound to what that one brought.
    let recent = "update wpp_creations set finished_at = now() where finished_at is not null";
    app.sql.batch_execute(recent).await.unwrap();
    assert_eq!(recreate("soon").await.json["apiKey"], done.json["apiKey"]);
    app.settle_keys().await;
    assert_eq!(recreate("soon").await.json["apiKey"], done.json["apiKey"]);
    assert_eq!(app.platform.create_calls(), before);

    // A request with no creation of its own has its key kept all the same.
    for (body, status) in [
        (json!({}), 200),
        (json!({"add_new": false, "unknown": "\u{0}"}), 200),
        (json!({"add_new": true}), 422),
    ] {
        assert_eq!(app.create_with_key(&app.school, "three", body).await.status, status);
    }
}

/// The refusal of a key says nothing once the platform has given the same key again.
#[tokio::test]
async fn a_key_that_was_refused_for_a_moment_serves_at_once_after_a_recreation() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    app.set_token_end(&number, -1).await;
    refuse_for_a_moment(&app);
    assert_eq!(app.poll_qr(&number.session).await.status, 409);
    let answer = app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
    assert_eq!(answer.text("session"), number.session);
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// The way out that a person has: delete the number in the list, connect again. This platform gives the dead key once more.
#[tokio::test]
async fn a_deleted_number_comes_back_with_another_key_where_the_platform_repeats_the_dead_one() {
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
