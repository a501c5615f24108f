//! A key that the platform refuses: what heals by itself, what a person has to ask for, and for which number.

use serde_json::{Value, json};

use local::events::Event;
use local::fault_injector::Fault;
use local::fault_injector::Point::{After, Before};
use local::lambda::{Answer, Options};
use local::platform::RepeatedCreate;
use local::test_app::{Number, TestApp};

async fn create(app: &TestApp, body: Value) -> Answer {
    app.create(body).await
}

/// What the platform says of a key that it does not take.
fn refusal() -> Fault {
    Fault::Status { status: 403, body: r#"{"error":"Invalid API key"}"#.to_owned(), retry_after_s: None }
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
    let (doomed, hold) = (app.process("wpp-create").await, app.hold("create", After));
    let event = app.school.post("wpp-create", &body);
    tokio::select! {
        () = hold.reached(1) => doomed.kill().await.unwrap(),
        ended = doomed.invoke(event.v2()) => panic!("{ended:?}"),
    }
    hold.release();
    app.sql.batch_execute("update wpp_creations set held_until = null").await.unwrap();
}

async fn link(app: &TestApp, number: &Number) {
    app.platform.scan(&number.session).unwrap();
    app.post("wpp-status", json!({"session": number.session, "force": true})).await.expect(200, "connected");
}

/// A person learns which number to create again; the other one is not touched.
#[tokio::test]
async fn new_credentials_are_for_the_number_that_is_named() {
    for repeated_create in [RepeatedCreate::SameKey, RepeatedCreate::NewKey] {
        let app = TestApp::start().await;
        let (primary, second) = (app.number().await, app.number().await);
        link(&app, &primary).await;
        link(&app, &second).await;
        kill(&app, &second).await;
        app.platform.behave(|behavior| behavior.repeated_create = repeated_create);
        let refused = app.poll_qr(&second.session).await.expect(409, "api_key_rejected");
        for text in [&refused.json["error"], &refused.json["hint"]] {
            assert!(text.as_str().unwrap().contains("delete the number in the list"), "{refused:?}");
        }

        let untouched = app.settings(&primary).await;
        let answer = create(&app, json!({"force_recreate": true, "session": second.session}))
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
        let answer = create(&app, name.clone()).await;
        assert_eq!(
            (answer.status, &answer.json["session"]),
            (200, &json!(second.session)),
            "{name}: {answer:?}"
        );
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
        let first = create(&app, body.clone()).await.expect(200, "qr_issued");
        let [row] = &app.numbers().await[..] else { panic!("not one row") };
        let number = Number {
            id: row["id"].as_str().unwrap().parse().unwrap(),
            session: first.text("session").to_owned(),
            key: row["settings"]["wppApiKey"].as_str().unwrap().to_owned(),
        };
        kill(&app, &number).await;
        let healed = create(&app, body.clone()).await.expect(200, "qr_issued");
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
    let asked = (0..5).map(|_| create(&app, json!({})));
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
    let app = TestApp::start().await;
    let number = app.number().await;
    link(&app, &number).await;
    kill(&app, &number).await;
    let before = (app.settings(&number).await, app.platform.create_calls());
    for _ in 0..2 {
        create(&app, json!({})).await.expect(409, "api_key_rejected");
    }
    assert_eq!((app.settings(&number).await, app.platform.create_calls()), before);
    create(&app, json!({"force_recreate": true})).await.expect(200, "connected");
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// The sibling that takes the platform's reports knows of the link, and nobody else.
#[tokio::test]
async fn a_link_that_only_the_mirror_knows_of_counts_as_well() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.sql.batch_execute("update whatsapp_sessions set status = 'connected'").await.unwrap();
    kill(&app, &number).await;
    let before = app.settings(&number).await;
    create(&app, json!({})).await.expect(409, "api_key_rejected");
    assert_eq!(app.settings(&number).await, before);
}

/// The platform gives the same key again, and takes it now: that is no dead key.
#[tokio::test]
async fn a_key_that_the_platform_takes_after_all_is_not_called_dead() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.settle_keys().await;
    app.set_token_end(&number, -1).await;
    app.end_waits().await;
    app.inject_times("token", 1, refusal());
    let answer = create(&app, json!({})).await;
    assert_eq!((answer.status, &answer.json["session"]), (200, &json!(number.session)), "{answer:?}");
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
}

/// Somebody switches the number off while its key is found dead.
#[tokio::test]
async fn a_number_that_is_switched_off_meanwhile_stays_off() {
    let app = TestApp::start().await;
    let number = app.number().await;
    kill(&app, &number).await;
    let before = app.settings(&number).await;
    let hold = app.hold_one("token", Before);
    let disconnect = async {
        hold.reached(1).await;
        app.sql.batch_execute("update messenger_integrations set is_active = false").await.unwrap();
        hold.release();
    };
    let (answer, ()) = tokio::join!(create(&app, json!({})), disconnect);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!((&app.numbers().await[0]["is_active"], app.settings(&number).await), (&json!(false), before));
}

/// A number that somebody has disconnected is not what adding one brings back, though bringing it back was tried once.
#[tokio::test]
async fn a_disconnected_number_is_not_taken_up_by_adding_one() {
    let app = TestApp::start().await;
    let (first, off) = (app.number().await, app.number().await);
    link(&app, &first).await;
    link(&app, &off).await;
    let disconnect = "update messenger_integrations set is_active = false where id = $1";
    app.sql.execute(disconnect, &[&off.id]).await.unwrap();
    app.inject("create", Fault::Html);
    assert_eq!(create(&app, json!({"session": off.session})).await.status, 502);
    app.clear_faults();
    let added = create(&app, json!({"add_new": true})).await.expect(200, "qr_issued");
    assert_ne!(added.json["session"], json!(off.session));
    let numbers = app.numbers().await;
    assert_eq!((numbers.len(), &numbers[1]["is_active"]), (3, &json!(false)));
}

/// The old key died with the platform's answer, which was lost with its sandbox. That somebody asked for a new one is on
/// record, so that the next ordinary request finishes it.
#[tokio::test]
async fn a_recreation_that_died_is_finished_by_a_request_of_another_kind() {
    let app = TestApp::start().await;
    let number = app.number().await;
    link(&app, &number).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    die_with_the_platforms_answer(&app, json!({"force_recreate": true})).await;

    // The old token serves for as long as the platform takes it.
    assert_eq!(create(&app, json!({})).await.json["status"], "connected");
    kill(&app, &number).await;
    let answer = create(&app, json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = app.settings(&number).await["wppSubOrgId"].as_str().unwrap().to_owned();
    assert_eq!(app.settings(&number).await["wppApiKey"], json!(app.platform.key_of(&id)));
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// A first number whose creation died waits for its credentials: that comes before one more.
#[tokio::test]
async fn a_first_number_that_was_never_finished_is_finished_by_adding_one() {
    let app = TestApp::start().await;
    die_with_the_platforms_answer(&app, json!({})).await;
    create(&app, json!({"add_new": true})).await.expect(200, "qr_issued");
    let [row] = &app.numbers().await[..] else { panic!("not one row") };
    assert_eq!((&row["is_primary"], &row["is_active"]), (&json!(true), &json!(true)));
    assert_eq!(app.platform.clients(), 1);
}

/// The frontend repeats what failed with a 5xx: the new credentials are not replaced again by that.
#[tokio::test]
async fn a_recreation_that_failed_after_its_key_was_saved_goes_on_with_that_key() {
    let app = TestApp::start().await;
    app.number().await;
    app.settle_keys().await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let before = app.platform.create_calls();
    app.inject("start", Fault::Html);
    let recreate = async || create(&app, json!({"force_recreate": true})).await;
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
    let app = TestApp::start().await;
    let number = app.number().await;
    link(&app, &number).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let recreate = async |key: &str| {
        let event = Event::post("wpp-create").bearer(&app.school.token).header("Idempotency-Key", key);
        app.invoke("wpp-create", event.json(&json!({"force_recreate": true})).v2()).await
    };
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
    let use_it = async |body: Value| {
        let event = Event::post("wpp-create").bearer(&app.school.token).header("Idempotency-Key", "three");
        app.invoke("wpp-create", event.json(&body).v2()).await
    };
    assert_eq!(use_it(json!({})).await.status, 200);
    assert_eq!(use_it(json!({"add_new": false, "unknown": "\u{0}"})).await.status, 200);
    assert_eq!(use_it(json!({"add_new": true})).await.status, 422);
}

/// The refusal of a key says nothing once the platform has given the same key again.
#[tokio::test]
async fn a_key_that_was_refused_for_a_moment_serves_at_once_after_a_recreation() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.settle_keys().await;
    app.set_token_end(&number, -1).await;
    app.inject_times("token", 1, refusal());
    assert_eq!(app.poll_qr(&number.session).await.status, 409);
    let answer = create(&app, json!({"force_recreate": true})).await;
    assert_eq!(
        (answer.json["session"].as_str(), answer.json["status"].as_str()),
        (Some(&*number.session), Some("qr_issued"))
    );
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

/// The way out that a person has: delete the number in the list, connect again. This platform gives the dead key once more.
#[tokio::test]
async fn a_deleted_number_comes_back_with_another_key_where_the_platform_repeats_the_dead_one() {
    let app = TestApp::start().await;
    let created = create(&app, json!({})).await.json;
    let session = created["session"].as_str().unwrap().to_owned();
    let [row] = &app.numbers().await[..] else { panic!("not one row") };
    let key = row["settings"]["wppApiKey"].as_str().unwrap().to_owned();
    let number = Number { id: row["id"].as_str().unwrap().parse().unwrap(), session, key };
    link(&app, &number).await;
    kill(&app, &number).await;
    assert_eq!(app.poll_qr(&number.session).await.json["code"], "api_key_rejected");
    app.sql.execute("delete from messenger_integrations", &[]).await.unwrap();
    let dead = json!({"apiKey": number.key, "session": number.session}).to_string();
    app.inject_times("create", 1, Fault::Body(dead));
    let again = create(&app, json!({})).await.expect(200, "qr_issued");
    assert_ne!(again.json["session"], json!(number.session));
}
