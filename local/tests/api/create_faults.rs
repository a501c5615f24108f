//! `wpp-create`, where something goes wrong on the way: nothing is made twice and nothing is lost.

use serde_json::{Value, json};

use local::events::Event;
use local::fault_injector::{Fault, Point};
use local::lambda::{Answer, Options};
use local::platform::RepeatedCreate;
use local::test_app::{TestApp, until};

async fn create(app: &TestApp) -> Answer {
    app.post("wpp-create", json!({})).await
}

async fn add(app: &TestApp, key: &str) -> Answer {
    let event = Event::post("wpp-create").bearer(&app.school.token).header("Idempotency-Key", key);
    app.invoke("wpp-create", event.json(&json!({"add_new": true})).v2()).await
}

/// Two requests that have both begun before the platform answers the first.
async fn at_once(
    app: &TestApp,
    one: impl Future<Output = Answer>,
    two: impl Future<Output = Answer>,
) -> [Answer; 2] {
    let hold = app.stack.platform.faults.hold("create", Point::Before);
    let begun = || app.stack.supabase.faults.count("rpc/wpp_begin_creation");
    let (one, two, ()) = tokio::join!(one, two, async {
        until(async || begun() >= 2).await;
        hold.release();
    });
    [one, two]
}

fn primaries(numbers: &[Value]) -> usize {
    numbers.iter().filter(|row| row["is_primary"] == true).count()
}

/// The original made two clients and two primary rows, of which none could be used.
#[tokio::test]
async fn two_first_creations_at_once_make_one_number() {
    let app = TestApp::start_with(&[], Options { concurrency: 2, ..Options::default() }).await;
    let [one, two] = at_once(&app, create(&app), create(&app)).await;
    assert_eq!((one.status, two.status), (200, 200), "{one:?} {two:?}");
    assert_eq!(one.json["session"], two.json["session"]);
    let numbers = app.numbers().await;
    assert_eq!((numbers.len(), primaries(&numbers)), (1, 1));
    assert_eq!((app.stack.platform.clients(), app.stack.platform.create_calls()), (1, 1));
    let session = one.json["session"].as_str().unwrap();
    assert_eq!(app.poll_qr(session).await.status, 200);
}

/// The original made both of them primary.
#[tokio::test]
async fn two_further_numbers_at_once_are_two_with_one_primary_between_them() {
    let app = TestApp::start_with(&[], Options { concurrency: 2, ..Options::default() }).await;
    let [one, two] = at_once(&app, add(&app, "one"), add(&app, "two")).await;
    assert_eq!((one.status, two.status), (200, 200), "{one:?} {two:?}");
    assert_ne!(one.json["session"], two.json["session"]);
    let numbers = app.numbers().await;
    assert_eq!((numbers.len(), primaries(&numbers)), (2, 1));
}

/// The original was left with a dead key.
#[tokio::test]
async fn a_recreation_that_could_not_be_saved_is_finished_by_repeating_it() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.stack.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    app.stack.supabase.faults.inject_times("rpc/wpp_save_credentials", 1, Fault::status(500));
    let recreate = async || app.post("wpp-create", json!({"force_recreate": true})).await;
    assert_eq!(recreate().await.status, 503);
    let answer = recreate().await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    let settings = app.settings(&number).await;
    let key = app.stack.platform.key_of(settings["wppSubOrgId"].as_str().unwrap());
    assert_eq!(settings["wppApiKey"], json!(key));
    assert_eq!(app.numbers().await.len(), 1);
}

/// The original took the failure for "there is none", and made a second client and a second primary row.
#[tokio::test]
async fn a_database_that_does_not_answer_is_an_error_and_the_platform_is_not_asked() {
    let app = TestApp::start().await;
    app.number().await;
    let before = app.numbers().await;
    app.stack.supabase.faults.inject("*", Fault::status(503));
    let answer = create(&app).await;
    assert_eq!((answer.status, &answer.json["code"]), (503, &json!("database_unavailable")), "{answer:?}");
    assert_eq!(app.calls(), json!({"rpc/wpp_begin_creation": 3}));
    assert_eq!(app.numbers().await, before);
}

/// The original, or the runtime below it, sent the request again and got a second row or client.
#[tokio::test]
async fn an_answer_lost_on_its_way_makes_nothing_twice() {
    for endpoint in ["rpc/wpp_begin_creation", "rpc/wpp_save_credentials", "create"] {
        let app = TestApp::start().await;
        app.stack.supabase.faults.inject_times(endpoint, 1, Fault::LostAnswer);
        app.stack.platform.faults.inject_times(endpoint, 1, Fault::LostAnswer);
        let answer = create(&app).await;
        assert_eq!(answer.json["status"], "qr_issued", "{endpoint}: {answer:?}");
        assert_eq!(app.calls()[endpoint], 2, "{endpoint}");
        assert_eq!((app.numbers().await.len(), app.stack.platform.clients()), (1, 1), "{endpoint}");
    }
}

/// The original waited without an end.
#[tokio::test]
async fn a_platform_that_hangs_is_a_timeout_and_the_number_is_finished_by_repeating_the_request() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1000")], Options::default()).await;
    app.stack.platform.faults.inject_times("create", 1, Fault::SlowHeaders);
    let answer = create(&app).await;
    assert_eq!((answer.status, &answer.json["code"]), (504, &json!("platform_timeout")), "{answer:?}");
    assert_eq!(app.calls()["create"], 1);
    let answer = create(&app).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    assert_eq!((app.numbers().await.len(), app.stack.platform.clients()), (1, 1));
}
