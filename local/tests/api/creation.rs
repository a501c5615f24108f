//! `wpp-create`: one creation and one number, however many requests arrive at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use local::clock::unix_ms;
use local::fault_injector::Fault;
use local::fault_injector::Point::{After, Before};
use local::lambda::{Answer, Ended, Sandbox};
use local::stack::Organization;
use local::test_app::{TestApp, until};

const CROWD: usize = 20;

async fn crowd(app: &TestApp) -> Vec<Sandbox> {
    join_all((0..CROWD).map(|_| app.process("wpp-create"))).await
}

fn answered(ended: Vec<Ended>) -> Vec<Answer> {
    let answers: Vec<_> = ended.into_iter().map(|ended| ended.answered().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    answers
}

fn sessions(answers: &[Answer]) -> BTreeSet<String> {
    answers.iter().map(|answer| answer.text("session").to_owned()).collect()
}

/// Rows of the organization: all, active ones, primary ones.
async fn rows(app: &TestApp, organization: &Organization) -> (i64, i64, i64) {
    let rows = "select count(*), count(*) filter (where is_active), count(*) filter (where is_primary)
        from messenger_integrations where organization_id = $1";
    let row = app.sql.query_one(rows, &[&organization.id]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn twenty_processes_create_one_number() {
    let app = TestApp::start().await;
    let crowd = crowd(&app).await;
    let hold = app.hold("create", Before);
    let event = app.school.post("wpp-create", &json!({})).http_api();
    let answers = join_all(crowd.iter().map(|sandbox| sandbox.invoke(event.clone())));
    let all_wait = async {
        // The first request is held at the platform until all others have found its creation.
        until(async || app.count("rpc/wpp_begin_creation") >= CROWD as u64).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(answers, all_wait);
    let answers = answered(answers);
    assert_eq!(sessions(&answers).len(), 1, "{answers:?}");
    let keys: BTreeSet<_> = answers.iter().map(|answer| answer.json["apiKey"].to_string()).collect();
    assert_eq!(keys.len(), 1, "{answers:?}");
    assert_eq!((app.platform.create_calls(), app.platform.clients()), (1, 1));
    assert_eq!(app.poll_qr(answers[0].text("session")).await.status, 200);
    assert_eq!(rows(&app, &app.school).await, (1, 1, 1));
}

/// Two people who add a number at the same time get the same one.
#[tokio::test]
async fn twenty_simultaneous_add_new_share_one_number() {
    let app = TestApp::start().await;
    let crowd = crowd(&app).await;
    let event = app.school.post("wpp-create", &json!({"add_new": true})).http_api();
    let answers = answered(join_all(crowd.iter().map(|sandbox| sandbox.invoke(event.clone()))).await);
    assert_eq!(sessions(&answers).len(), 1, "{answers:?}");
    assert_eq!(app.platform.create_calls(), 1);
    assert_eq!(rows(&app, &app.school).await, (1, 1, 1));
}

#[tokio::test]
async fn thirty_first_new_number_in_an_hour_is_refused() {
    let app = TestApp::start().await;
    let fill = "insert into wpp_platform_ids (platform_id, organization_id)
        select $1::uuid || '__wpp__' || lpad(n::text, 8, '0'), $1 from generate_series(1, 30) n";
    app.sql.execute(fill, &[&app.school.id]).await.unwrap();
    let refused = app.create(json!({"add_new": true})).await.expect(429, "too_many_numbers");
    assert_eq!(refused.json["retryable"], true);
    let wait: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((3_500..=3_600).contains(&wait), "{wait}");
    assert_eq!((app.platform.create_calls(), app.numbers().await.len()), (0, 0));
}

#[tokio::test]
async fn two_recreations_without_a_number_share_one_creation() {
    let app = TestApp::start().await;
    let hold = app.hold("create", Before);
    let other = app.process("wpp-create").await;
    let event = app.school.post("wpp-create", &json!({"force_recreate": true}));
    let both_wait = async {
        // Three calls: one request has started, and the other one has asked again after its wait.
        until(async || app.count("rpc/wpp_begin_creation") >= 3).await;
        hold.release();
    };
    let (one, other, ()) = tokio::join!(
        app.invoke("wpp-create", event.clone().http_api()),
        other.invoke(event.http_api()),
        both_wait
    );
    assert_eq!(one.json["session"], other.answered().unwrap().json["session"]);
    assert_eq!(app.platform.create_calls(), 1);
    assert_eq!(rows(&app, &app.school).await, (1, 1, 1));
}

#[tokio::test]
async fn caller_continues_after_the_holder_died() {
    let app = TestApp::start().await;
    assert!(app.killed_at("create", After, app.school.post("wpp-create", &json!({}))).await);
    // It waits for the whole lease of the dead one: ten seconds.
    app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(app.platform.clients(), 1);
    assert_eq!(rows(&app, &app.school).await, (1, 1, 1));
}

#[tokio::test]
async fn a_request_that_waits_too_long_is_a_retryable_503() {
    let app = TestApp::start().await;
    let (first, hold) = (app.process("wpp-create").await, app.hold("create", Before));
    let event = app.school.post("wpp-create", &json!({})).http_api();
    let behind = async {
        hold.reached(1).await;
        let answer = app.sandbox("wpp-create").invoke_by(event.clone(), unix_ms() + 3_000).await;
        hold.release();
        answer.answered().unwrap()
    };
    let (first, behind) = tokio::join!(first.invoke(event.clone()), behind);
    assert_eq!(behind.told(), (503, "creation_in_progress"), "{behind:?}");
    assert_eq!((&behind.json["retryable"], &*behind.headers["retry-after"]), (&json!(true), "2"));
    assert_eq!(first.answered().unwrap().json["status"], "qr_issued");
    assert_eq!(app.platform.create_calls(), 1);
}

#[tokio::test]
async fn add_new_reuses_the_last_number_until_it_is_linked() {
    let app = TestApp::start().await;
    let add_new = async || {
        let added = app.create(json!({"add_new": true})).await.expect(200, "qr_issued");
        added.text("session").to_owned()
    };
    let first = add_new().await;
    assert_eq!(add_new().await, first);

    app.platform.scan(&first).unwrap();
    let second = add_new().await;
    assert_ne!(second, first);

    // `wpp-webhook`, which receives the platform's reports, knows about the link before the functions do.
    let link = "update whatsapp_sessions set status = 'connected' where session_name = 'wpp_' || $1";
    app.sql.execute(link, &[&second]).await.unwrap();
    let third = add_new().await;
    assert_ne!(third, second);

    let disconnect =
        "update messenger_integrations set is_active = false where settings->>'wppAccountNumber' = $1";
    app.sql.execute(disconnect, &[&third]).await.unwrap();
    assert_ne!(add_new().await, third);
    assert_eq!(rows(&app, &app.school).await, (4, 3, 1));
}

#[tokio::test]
async fn a_row_is_created_with_its_credentials() {
    let app = TestApp::start().await;
    let event = app.school.post("wpp-create", &json!({"add_new": true}));
    assert!(app.killed_at("create", After, event).await);
    assert_eq!(rows(&app, &app.school).await, (0, 0, 0));
    let platform_id = "select platform_id from wpp_creations";
    let platform_id: String = app.sql.query_one(platform_id, &[]).await.unwrap().get(0);
    let session = app.platform.session_of(&platform_id).unwrap();
    assert_eq!(app.poll_qr(&session).await.status, 404);
    assert_eq!(app.post("wpp-status", json!({})).await.json["status"], "disconnected");
}

#[tokio::test]
async fn an_unfinished_additional_number_is_not_the_first() {
    let app = TestApp::start().await;
    app.inject("create", Fault::status(500));
    app.create(json!({"add_new": true})).await.expect(502, "platform_unavailable");
    app.clear_faults();
    let waiting = "select platform_id from wpp_creations";
    let waiting: String = app.sql.query_one(waiting, &[]).await.unwrap().get(0);

    let first = app.create(json!({})).await.json;
    assert_eq!(first["session"], json!(app.platform.session_of(&app.school.id.to_string())));
    app.platform.scan(first["session"].as_str().unwrap()).unwrap();
    assert_eq!(app.check().await.json["status"], "connected");
    let second = app.create(json!({"add_new": true})).await.json;
    assert_eq!(second["session"], json!(app.platform.session_of(&waiting)));
    for session in [&first["session"], &second["session"]] {
        assert_eq!(app.poll_qr(session.as_str().unwrap()).await.status, 200);
    }
    assert_eq!(rows(&app, &app.school).await, (2, 2, 1));
}

#[tokio::test]
async fn disconnected_number_is_reused() {
    let app = TestApp::start().await;
    for body in [json!({}), json!({"add_new": true})] {
        let school = app.organization("disconnected").await.unwrap();
        let number = app.post_as(&school, "wpp-create", body).await;
        let disconnect = "update messenger_integrations set is_active = false where organization_id = $1";
        app.sql.execute(disconnect, &[&school.id]).await.unwrap();
        let again = app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
        assert_eq!(again.json["session"], number.json["session"]);
        assert_eq!(rows(&app, &school).await, (1, 1, 1));
    }
    assert_eq!(app.platform.clients(), 2);
}

/// The TypeScript version answered `not found` or `disconnected`, and `wpp-create` created a second client and a second primary row.
#[tokio::test]
async fn database_failure_is_not_a_missing_number() {
    let app = TestApp::start().await;
    for fault in [
        Fault::status_with(503, r#"{"code":"PGRST002"}"#),
        Fault::status(500),
        Fault::status(404),
        Fault::Body("null".to_owned()),
        Fault::Body("[]".to_owned()),
        Fault::Body("{}".to_owned()),
        Fault::Html,
        Fault::Truncated,
        Fault::Drop,
    ] {
        app.supabase.faults.inject("*", fault.clone());
        for (name, body) in [
            ("wpp-create", json!({})),
            ("wpp-create", json!({"add_new": true})),
            ("wpp-create", json!({"force_recreate": true})),
            ("wpp-qr", json!({"session": "0000000000004"})),
            ("wpp-status", json!({"force": true})),
        ] {
            let answer = app.post(name, body).await;
            assert!(matches!(answer.status, 500 | 503), "{fault:?} {answer:?}");
            let is_passing = answer.json["code"] != "database_not_migrated";
            assert_eq!(answer.json["retryable"], is_passing, "{fault:?} {answer:?}");
        }
    }
    assert_eq!(app.platform.faults.count("*"), 0);
}

/// The TypeScript version or its runtime repeated the request, and got a second row or client.
#[tokio::test]
async fn lost_answer_creates_nothing_twice() {
    let app = TestApp::start().await;
    for endpoint in ["rpc/wpp_begin_creation", "rpc/wpp_save_credentials", "create"] {
        let school = app.organization(endpoint).await.unwrap();
        let clients = app.platform.clients();
        app.forget_calls();
        app.inject_times(endpoint, 1, Fault::LostAnswer);
        app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
        assert_eq!(app.calls()[endpoint], 2, "{endpoint}");
        assert_eq!(app.platform.clients(), clients + 1, "{endpoint}");
        assert_eq!(rows(&app, &school).await, (1, 1, 1), "{endpoint}");
    }
}
