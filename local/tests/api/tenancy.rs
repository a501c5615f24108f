//! Another organization's number counts as missing, under each of its names and in each function.

use local::lambda::Answer;
use local::stack::Organization;
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

/// Returns all rows of an organization, in all tables.
async fn rows(app: &TestApp, organization: Uuid) -> Value {
    let rows = "select jsonb_build_object(
        'numbers', (select jsonb_agg(i order by id) from messenger_integrations i where organization_id = $1),
        'sessions', (select jsonb_agg(s order by session_name) from whatsapp_sessions s where organization_id = $1),
        'creations', (select jsonb_agg(c order by id) from wpp_creations c where organization_id = $1),
        'ids', (select jsonb_agg(p order by platform_id) from wpp_platform_ids p where organization_id = $1),
        'known', (select jsonb_agg(n order by n.integration_id) from wpp_numbers n where organization_id = $1),
        'leases', (select jsonb_agg(l order by l.integration_id) from wpp_token_leases l where organization_id = $1))";
    let Json(rows) = app.sql.query_one(rows, &[&organization]).await.unwrap().get(0);
    rows
}

/// Returns the body without the request id, which differs in any two answers.
fn without_request_id(answer: &Answer) -> String {
    answer.body.replace(answer.headers["x-request-id"].as_str(), "")
}

/// Returns the school with its own number, and its neighbor's number.
async fn neighbors() -> (TestApp, Organization, Number) {
    let mut app = TestApp::start().await;
    let neighbor = app.organization("neighbor").await.unwrap();
    let school = std::mem::replace(&mut app.school, neighbor);
    app.create(json!({})).await.expect(200, "qr_issued");
    let number = app.number().await;
    let neighbor = std::mem::replace(&mut app.school, school);
    app.number().await;
    (app, neighbor, number)
}

#[tokio::test]
async fn anothers_number_is_not_found() {
    let (app, neighbor, number) = neighbors().await;
    let before = rows(&app, neighbor.id).await;
    let (id, nobody) = (number.id.to_string(), Uuid::new_v4().to_string());
    let cases = [
        ("wpp-qr", "session", number.session.as_str(), "0000000000004"),
        ("wpp-status", "session", &number.session, "0000000000004"),
        ("wpp-status", "session_name", &number.session, "0000000000004"),
        ("wpp-status", "account_number", &number.session, "0000000000004"),
        ("wpp-status", "integration_id", &id, &nobody),
    ];
    for (name, field, foreign, missing) in cases {
        for force in [Value::Null, json!(true)] {
            let ask = async |id| {
                let mut body = json!({field: id});
                if name == "wpp-status" {
                    body["force"] = force.clone();
                }
                app.post(name, body).await
            };
            let (foreign, missing) = (ask(foreign).await, ask(missing).await);
            assert_eq!(foreign.told(), (404, "number_not_found"), "{name} {field}");
            assert_eq!(without_request_id(&foreign), without_request_id(&missing), "{name} {field}");
        }
    }
    let foreign = app.poll_qr(&number.session).await;
    assert_eq!(without_request_id(&foreign), without_request_id(&app.poll_qr("0000000000004").await));
    // The session wins, so adding the id of the caller's own number changes nothing.
    let own = app.number().await;
    let both = app.post("wpp-status", json!({"session": number.session, "integration_id": own.id})).await;
    assert_eq!(both.status, 404, "{both:?}");
    assert_eq!(app.platform.faults.count("*"), 0, "the platform is asked about numbers of one's own alone");
    assert_eq!(rows(&app, neighbor.id).await, before);
}

#[tokio::test]
async fn user_without_an_organization_is_refused() {
    let (app, neighbor, number) = neighbors().await;
    let before = rows(&app, neighbor.id).await;
    let (homeless, unknown) = (Uuid::new_v4(), Uuid::new_v4());
    app.sql.execute("insert into profiles (id) values ($1)", &[&homeless]).await.unwrap();
    for user in [homeless, unknown] {
        let token = app.keys.user_token(user);
        let nobody = Organization { id: Uuid::nil(), user, token };
        app.forget_calls();
        for (name, body) in [
            ("wpp-create", json!({})),
            ("wpp-create", json!({"add_new": true})),
            ("wpp-create", json!({"force_recreate": true})),
            ("wpp-qr", json!({"session": number.session})),
            ("wpp-status", json!({})),
            ("wpp-status", json!({"session": number.session, "force": true})),
            ("wpp-status", json!({"integration_id": number.id})),
        ] {
            app.post_as(&nobody, name, body).await.expect(404, "organization_not_found");
        }
        assert_eq!(app.platform.faults.count("*"), 0);
    }
    assert_eq!(rows(&app, neighbor.id).await, before);
}

#[tokio::test]
async fn organization_without_a_number_sees_no_others_number() {
    let (app, neighbor, _) = neighbors().await;
    let before = rows(&app, neighbor.id).await;
    let newcomer = app.organization("newcomer").await.unwrap();
    app.forget_calls();
    let status = app.post_as(&newcomer, "wpp-status", json!({"force": true})).await;
    assert!(!status.expect(200, "disconnected").text("message").is_empty());
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1}), "the platform is not asked");
    for body in [json!({}), json!({"force_recreate": true}), json!({"add_new": true})] {
        assert_eq!(app.post_as(&newcomer, "wpp-create", body).await.status, 200);
    }
    assert_eq!(rows(&app, neighbor.id).await, before);
}

/// Two schools are merged, and an operator moves a number. What its old organization started is not moved.
#[tokio::test]
async fn a_moved_number_is_unknown_to_its_old_organization() {
    let app = TestApp::start().await;
    let neighbor = app.organization("neighbor").await.unwrap();
    let moved = app.create(json!({})).await.expect(200, "qr_issued").json["session"].clone();
    let give = "update messenger_integrations set organization_id = $1";
    assert_eq!(app.sql.execute(give, &[&neighbor.id]).await.unwrap(), 1);
    app.sql.execute("update whatsapp_sessions set organization_id = $1", &[&neighbor.id]).await.unwrap();
    let before = rows(&app, neighbor.id).await;
    for (body, status) in
        [(json!({"add_new": true}), 200), (json!({"force_recreate": true, "session": moved}), 404)]
    {
        let answer = app.create(body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_ne!(answer.json["session"], moved, "{body}");
    }
    assert_eq!(rows(&app, neighbor.id).await, before);
}

/// An administrator can write any platform id into the organization's row, and it would be sent to the platform with `WPP_SECRET`.
#[tokio::test]
async fn platform_id_of_another_organization_is_not_asked_for() {
    let (app, neighbor, number) = neighbors().await;
    let foreign_ids =
        [neighbor.id.to_string(), app.settings(&number).await["wppSubOrgId"].as_str().unwrap().to_owned()];
    let before = rows(&app, neighbor.id).await;
    let own = app.number().await;
    for id in foreign_ids {
        for settings in [
            json!({"wppSubOrgId": id}),
            json!({"wppSubOrgId": id, "wppApiKey": null, "wppAccountNumber": null}),
            json!({"wppSubOrgId": id, "wppApiKey": "dead", "wppJwtToken": null}),
        ] {
            for mode in [json!({}), json!({"force_recreate": true}), json!({"add_new": true})] {
                app.sql
                    .execute("delete from wpp_numbers where integration_id = $1", &[&own.id])
                    .await
                    .unwrap();
                app.merge(&own, settings.clone()).await;
                let end = "update wpp_token_leases set retry_at = null where organization_id = $1";
                app.sql.execute(end, &[&app.school.id]).await.unwrap();
                let mut body = mode.clone();
                if mode["add_new"].is_null() {
                    body["integration_id"] = json!(own.id);
                }
                let answer = app.create(body).await;
                let own_rows = rows(&app, app.school.id).await.to_string();
                assert!(!own_rows.contains(&number.key), "{settings} {mode}: {answer:?}");
                assert_ne!(answer.json["session"], json!(number.session), "{settings} {mode}");
            }
        }
    }
    assert_eq!(rows(&app, neighbor.id).await, before);
}

/// Only the platform's refusal protects the session; nothing about it is read, written or registered.
#[tokio::test]
async fn row_with_anothers_session_gets_no_data() {
    let (app, neighbor, number) = neighbors().await;
    app.poll_qr(&number.session).await;
    let own = app.number().await;
    app.merge(&own, json!({"wppAccountNumber": number.session})).await;
    let before = rows(&app, neighbor.id).await;
    let webhook = app.platform.webhook_of(&number.session);
    let qr = app.shown_qr(&number.session).to_string();
    for (name, body) in [
        ("wpp-qr", json!({"session": number.session})),
        ("wpp-status", json!({"session": number.session})),
        ("wpp-status", json!({"session": number.session, "force": true})),
        ("wpp-create", json!({"session": number.session})),
    ] {
        let answer = app.post(name, body.clone()).await;
        assert_ne!(answer.status, 200, "{name} {body}: {answer:?}");
        assert!(!answer.body.contains(&qr), "{name} {body}");
    }
    assert_eq!(rows(&app, neighbor.id).await, before);
    assert_eq!(app.platform.webhook_of(&number.session), webhook);
    let own_rows = rows(&app, app.school.id).await;
    assert!(!own_rows["sessions"].to_string().contains(&number.session), "{own_rows}");
}

/// Otherwise one user could prevent snapshots of all future sessions.
#[tokio::test]
async fn session_the_platform_does_not_know_gets_no_snapshot() {
    let app = TestApp::start().await;
    let own = app.number().await;
    let future = "0099999999999";
    app.merge(&own, json!({"wppAccountNumber": future})).await;
    for force in [true, false] {
        app.post("wpp-status", json!({"session": future, "force": force})).await.expect(200, "disconnected");
    }
    app.create(json!({"session": future})).await.expect(409, "session_lost");
    assert_eq!(app.snapshot_row(future).await, Value::Null);
}
