//! `wpp-create` against trouble after the platform's answer, and `force_recreate`: the working number stands until
//! there is a better one.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use serde_json::{Value, json};

use local::events::Event;
use local::gate::Fault;
use local::gate::Point::After;
use local::lambda::Options;
use local::platform::RepeatedCreate;
use local::stage::{Line, Stage};

const MANNERS: [RepeatedCreate; 2] = [RepeatedCreate::SameKey, RepeatedCreate::NewKey];

/// A number of some age: its key has long been active, so a refusal means something.
async fn settled_number(stage: &Stage) -> Line {
    let line = stage.number().await;
    stage.settle_keys().await;
    line
}

async fn recreate(stage: &Stage) -> Value {
    let answer = stage.post("wpp-create", json!({"force_recreate": true})).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    answer.json
}

#[tokio::test]
async fn a_save_that_fails_after_the_platforms_create_is_a_503_and_the_repetition_brings_the_same_key() {
    let stage = Stage::start().await;
    for (manner, fault) in [
        (RepeatedCreate::SameKey, Fault::status(503)),
        (RepeatedCreate::SameKey, Fault::LostAnswer),
        (RepeatedCreate::SameKey, Fault::Drop),
        (RepeatedCreate::NewKey, Fault::status(503)),
        (RepeatedCreate::NewKey, Fault::LostAnswer),
        (RepeatedCreate::NewKey, Fault::Drop),
    ] {
        for body in [json!({}), json!({"add_new": true})] {
            stage.world.platform.behave(|manners| manners.repeated_create = manner);
            let school = stage.world.organisation("unsaved").await.unwrap();
            let clients = stage.world.platform.clients();
            stage.world.supabase.gate.inject("rpc/wpp_save_credentials", fault.clone());
            let failed = stage.post_as(&school, "wpp-create", body.clone()).await;
            assert_eq!(failed.status, 503, "{fault:?} {failed:?}");
            assert_eq!(failed.json["retryable"], true, "{failed:?}");
            stage.world.supabase.gate.clear();

            stage.forget_calls();
            let repeated = stage.post_as(&school, "wpp-create", body).await;
            assert_eq!(stage.calls()["rpc/wpp_begin_creation"], 1, "nobody waits for one that has given up");
            assert_eq!(repeated.json["status"], "qr_issued", "{fault:?} {repeated:?}");
            let row = "select c.platform_id, i.settings->>'wppApiKey', i.settings->>'wppAccountNumber'
                from messenger_integrations i join wpp_creations c on c.integration_id = i.id
                where i.organization_id = $1";
            let row = stage.sql.query_one(row, &[&school.id]).await.unwrap();
            let id: String = row.get(0);
            assert_eq!(row.get::<_, Option<String>>(1), stage.world.platform.key_of(&id));
            assert_eq!(row.get::<_, Option<String>>(2), stage.world.platform.session_of(&id));
            assert_eq!(stage.world.platform.clients(), clients + 1);
        }
    }
}

#[tokio::test]
async fn recreating_keeps_the_row_and_what_others_wrote_in_it_and_ends_with_the_platforms_key() {
    for manner in MANNERS {
        let stage = Stage::start().await;
        let line = settled_number(&stage).await;
        stage.merge(&line, json!({"greeting": {"de": "Hallo"}})).await;
        let before = stage.settings(&line).await;
        stage.world.platform.behave(|manners| manners.repeated_create = manner);

        let answer = recreate(&stage).await;
        assert_eq!(answer["session"], json!(line.session));
        let after = stage.settings(&line).await;
        let key = stage.world.platform.key_of(before["wppSubOrgId"].as_str().unwrap()).unwrap();
        assert_eq!(after["wppApiKey"], json!(key));
        assert_eq!(key == line.key, manner == RepeatedCreate::SameKey);
        assert_eq!(after["wppSubOrgId"], before["wppSubOrgId"]);
        assert_eq!(after["greeting"], before["greeting"]);
        assert_eq!(after["wppJwtToken"] == before["wppJwtToken"], manner == RepeatedCreate::SameKey);
        assert_eq!(stage.poll_qr(&line.session).await.status, 200);
    }
}

#[tokio::test]
async fn a_number_whose_recreation_fails_at_the_platform_stands_as_it_was_and_works() {
    let stage = Stage::start().await;
    let line = settled_number(&stage).await;
    let before = stage.settings(&line).await;
    for fault in [
        Fault::status(500),
        Fault::status(401),
        Fault::status(409),
        Fault::Html,
        Fault::Body("{}".to_owned()),
        Fault::Drop,
    ] {
        stage.world.platform.gate.inject("create", fault.clone());
        let answer = stage.post("wpp-create", json!({"force_recreate": true})).await;
        assert_eq!(answer.status, 502, "{fault:?} {answer:?}");
        assert_eq!(stage.settings(&line).await, before);
        let plain = stage.post("wpp-create", json!({})).await;
        assert_eq!(plain.json["session"], json!(line.session), "{plain:?}");
        assert_eq!(stage.poll_qr(&line.session).await.status, 200);
    }
    stage.world.platform.gate.clear();
    assert_eq!(recreate(&stage).await["session"], json!(line.session));
}

#[tokio::test]
async fn a_key_that_the_platform_hands_back_and_refuses_is_replaced_under_a_new_id() {
    let stage = Stage::start().await;
    let line = settled_number(&stage).await;
    let before = stage.settings(&line).await;
    let given = json!({"apiKey": line.key, "session": line.session}).to_string();
    stage.world.platform.gate.inject_times("create", 1, Fault::Body(given));
    stage.world.platform.revoke_key(&line.key);

    // Killed with the new id in hand, the recreation goes on with that id.
    let (doomed, hold) =
        (stage.process("wpp-create").await, stage.world.supabase.gate.hold("rpc/wpp_move_creation", After));
    let event = Event::post("wpp-create").bearer(&stage.school.token).json(&json!({"force_recreate": true}));
    tokio::select! {
        () = hold.reached(1) => doomed.kill().await.unwrap(),
        ended = doomed.invoke(event.v2()) => panic!("{ended:?}"),
    }
    stage.sql.execute("update wpp_creations set held_until = null", &[]).await.unwrap();
    hold.release();
    let moved = "select platform_id from wpp_creations where finished_at is null";
    let moved: String = stage.sql.query_one(moved, &[]).await.unwrap().get(0);

    let answer = recreate(&stage).await;
    assert_ne!(answer["session"], json!(line.session));
    assert_eq!(answer["session"], json!(stage.world.platform.session_of(&moved)));
    let after = stage.settings(&line).await;
    assert_eq!(after["wppSubOrgId"], json!(moved));
    assert_eq!(after["wppAccountNumber"], answer["session"]);
    assert_ne!(after["wppApiKey"], before["wppApiKey"]);
    assert_eq!(stage.poll_qr(answer["session"].as_str().unwrap()).await.status, 200);
    assert_eq!(stage.poll_qr(&line.session).await.status, 404);
}

#[tokio::test]
async fn a_key_that_is_not_active_yet_is_not_taken_for_one_that_is_refused() {
    let stage = Stage::start_with(&[("QR_WAIT_MS", "1000")], Options::default()).await;
    stage.world.platform.behave(|manners| manners.activate_after = u32::MAX);
    let created = stage.post("wpp-create", json!({})).await;
    assert_eq!(created.json["status"], "starting", "{created:?}");
    let again = stage.post("wpp-create", json!({"force_recreate": true})).await;
    assert_eq!((again.status, &again.json["session"]), (200, &created.json["session"]), "{again:?}");
    assert_eq!(stage.world.platform.clients(), 1);
}

#[tokio::test]
async fn a_recreation_repeated_with_its_idempotency_key_makes_one_new_key() {
    let stage = Stage::start().await;
    settled_number(&stage).await;
    stage.world.platform.behave(|manners| manners.repeated_create = RepeatedCreate::NewKey);
    let event = Event::post("wpp-create").bearer(&stage.school.token).header("Idempotency-Key", "k");
    let event = event.json(&json!({"force_recreate": true})).v2();
    let before = stage.world.platform.create_calls();
    let once = stage.invoke("wpp-create", event.clone()).await;
    let twice = stage.invoke("wpp-create", event).await;
    assert_eq!(once.json["apiKey"], twice.json["apiKey"]);
    assert_eq!(stage.world.platform.create_calls(), before + 1);
}
