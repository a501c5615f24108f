//! Someone else's number is as good as none: whatever name of it is used, by whichever function.

use local::lambda::Answer;
use local::stack::Organisation;
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

/// The neighbour's idempotency key.
const KEY: &str = "the-neighbours-click";

/// All rows of an organisation, in all tables.
async fn rows(app: &TestApp, organisation: Uuid) -> Value {
    let rows = "select jsonb_build_object(
        'numbers', (select jsonb_agg(i order by id) from messenger_integrations i where organization_id = $1),
        'sessions', (select jsonb_agg(s order by session_name) from whatsapp_sessions s where organization_id = $1),
        'creations', (select jsonb_agg(c order by id) from wpp_creations c where organization_id = $1),
        'keys', (select jsonb_agg(k order by key) from wpp_idempotency_keys k where organization_id = $1),
        'known', (select jsonb_agg(n order by n.integration_id) from wpp_numbers n where organization_id = $1),
        'leases', (select jsonb_agg(l order by l.integration_id) from wpp_token_leases l where organization_id = $1))";
    let Json(rows) = app.sql.query_one(rows, &[&organisation]).await.unwrap().get(0);
    rows
}

/// The body without what differs in any two answers.
fn without_request_id(answer: &Answer) -> String {
    answer.body.replace(answer.headers["x-request-id"].as_str(), "")
}

/// The school with a number of its own, and its neighbour's number.
async fn neighbours() -> (TestApp, Organisation, Number) {
    let mut app = TestApp::start().await;
    let neighbour = app.organisation("neighbour").await.unwrap();
    let school = std::mem::replace(&mut app.school, neighbour);
    app.create_with_key(&app.school, KEY, json!({})).await.expect(200, "qr_issued");
    let number = app.number().await;
    let neighbour = std::mem::replace(&mut app.school, school);
    app.number().await;
    (app, neighbour, number)
}

#[tokio::test]
async fn anothers_number_is_answered_like_one_that_does_not_exist() {
    let (app, neighbour, number) = neighbours().await;
    let before = rows(&app, neighbour.id).await;
    let (id, nobody) = (number.id.to_string(), Uuid::new_v4().to_string());
    let cases = [
        ("wpp-qr", "session", number.session.as_str(), "0000000000004"),
        ("wpp-status", "session", &number.session, "0000000000004"),
        ("wpp-status", "session_name", &number.session, "0000000000004"),
        ("wpp-status", "integration_id", &id, &nobody),
    ];
    for (name, field, theirs, nobodys) in cases {
        for force in [true, false] {
            let theirs = app.post(name, json!({field: theirs, "force": force})).await;
            let nobodys = app.post(name, json!({field: nobodys, "force": force})).await;
            assert_eq!(theirs.told(), (404, "number_not_found"), "{name} {field}");
            assert_eq!(without_request_id(&theirs), without_request_id(&nobodys), "{name} {field}");
        }
    }
    let theirs = app.poll_qr(&number.session).await;
    assert_eq!(without_request_id(&theirs), without_request_id(&app.poll_qr("0000000000004").await));
    // The session comes first, so an id of one's own beside it opens nothing.
    let own = app.number().await;
    let both = app.post("wpp-status", json!({"session": number.session, "integration_id": own.id})).await;
    assert_eq!(both.status, 404, "{both:?}");
    assert_eq!(app.platform.faults.count("*"), 0, "the platform is asked about numbers of one's own alone");
    assert_eq!(rows(&app, neighbour.id).await, before);
}

#[tokio::test]
async fn anothers_idempotency_key_is_a_new_one() {
    let (app, neighbour, number) = neighbours().await;
    let before = rows(&app, neighbour.id).await;
    // To the school the key is new: it stands for the first request, and for no other.
    for (body, status) in
        [(json!({"add_new": true}), 200), (json!({"force_recreate": true}), 422), (json!({}), 422)]
    {
        let mine = app.create_with_key(&app.school, KEY, body).await;
        assert_eq!(mine.status, status, "{mine:?}");
        let session = mine.json["session"].as_str().unwrap_or("none given");
        assert_ne!(session, number.session);
        assert!(!before.to_string().contains(session), "{mine:?}");
    }
    assert_eq!(rows(&app, neighbour.id).await, before);
}

#[tokio::test]
async fn a_user_of_no_organisation_gets_nowhere() {
    let (app, neighbour, number) = neighbours().await;
    let before = rows(&app, neighbour.id).await;
    let (homeless, unknown) = (Uuid::new_v4(), Uuid::new_v4());
    app.sql.execute("insert into profiles (id) values ($1)", &[&homeless]).await.unwrap();
    for user in [homeless, unknown] {
        let token = app.keys.user_token(user);
        let nobody = Organisation { id: Uuid::nil(), user, token };
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
    assert_eq!(rows(&app, neighbour.id).await, before);
}

#[tokio::test]
async fn an_organisation_without_a_number_sees_none_of_anothers() {
    let (app, neighbour, _) = neighbours().await;
    let before = rows(&app, neighbour.id).await;
    let newcomer = app.organisation("newcomer").await.unwrap();
    app.forget_calls();
    let status = app.post_as(&newcomer, "wpp-status", json!({"force": true})).await;
    assert!(!status.expect(200, "disconnected").text("message").is_empty());
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1}), "the platform is not asked");
    for body in [json!({}), json!({"force_recreate": true}), json!({"add_new": true})] {
        assert_eq!(app.post_as(&newcomer, "wpp-create", body).await.status, 200);
    }
    assert_eq!(rows(&app, neighbour.id).await, before);
}

/// Schools are merged, and an operator gives a number to the other one: what its old organisation began stays behind.
#[tokio::test]
async fn a_number_that_has_moved_is_out_of_its_old_organisations_reach() {
    let app = TestApp::start().await;
    let neighbour = app.organisation("neighbour").await.unwrap();
    let create = async |body: Value, key: Option<&str>| {
        let mut event = app.school.post("wpp-create", &body);
        if let Some(key) = key {
            event = event.header("Idempotency-Key", key);
        }
        app.invoke("wpp-create", event.v2()).await
    };
    let moved = create(json!({"add_new": true}), Some(KEY)).await.json["session"].clone();
    let give = "update messenger_integrations set organization_id = $1";
    assert_eq!(app.sql.execute(give, &[&neighbour.id]).await.unwrap(), 1);
    app.sql.execute("update whatsapp_sessions set organization_id = $1", &[&neighbour.id]).await.unwrap();
    let before = rows(&app, neighbour.id).await;

    let again = create(json!({"add_new": true}), Some(KEY)).await.expect(200, "qr_issued");
    let third = create(json!({"add_new": true}), Some(KEY)).await;
    assert_eq!(third.json["session"], again.json["session"], "the key stands for its new number from now on");
    for (body, key, status) in [
        (json!({"add_new": true}), Some(KEY), 200),
        (json!({"add_new": true}), None, 200),
        (json!({}), None, 200),
        (json!({"force_recreate": true}), None, 200),
        (json!({"force_recreate": true, "session": moved}), None, 404),
    ] {
        let answer = create(body.clone(), key).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_ne!(answer.json["session"], moved, "{body}");
    }
    assert_eq!(rows(&app, neighbour.id).await, before);
}
