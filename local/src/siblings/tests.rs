use super::*;
use crate::platform::RepeatedCreate;
use crate::postgres::Privileges;
use crate::shapes::BASE;
use crate::stack::Organization;

/// An organization in a typical project, with the other functions.
struct Scene {
    stack: Stack,
    siblings: Siblings,
    school: Organization,
}

impl Scene {
    async fn start() -> Self {
        let stack = Stack::start().await.unwrap();
        stack.deploy(Privileges::Granted, BASE).await.unwrap();
        let school = stack.organization("school").await.unwrap();
        Self { siblings: Siblings::of(&stack), school, stack }
    }

    /// Makes a linked number as the other functions make it. Returns it with its session.
    async fn linked(&self, sub_org_id: &str) -> (Uuid, String) {
        let wanted = json!({"organizationId": sub_org_id});
        let secret = self.stack.platform.secret();
        let made = self.siblings.post("/api/integrations/wpp/create", &secret, wanted).await.unwrap();
        let session = text(&made["session"]).to_owned();
        self.stack.platform.set_status(&session, "connected").unwrap();
        let keys = json!({"wppApiKey": made["apiKey"], "wppAccountNumber": session});
        (self.siblings.add(self.school.id, "wpp", keys).await.unwrap(), session)
    }

    async fn settings(&self, number: Uuid) -> Value {
        self.siblings.number(self.school.id, number).await.unwrap()["settings"].take()
    }

    async fn mirrored(&self, session: &str) -> Value {
        let row = format!("{SESSIONS}?session_name=eq.wpp_{session}");
        self.siblings.rest(Method::GET, &row, Value::Null).await.unwrap().get(0).cloned().unwrap_or_default()
    }
}

fn status<T: std::fmt::Debug>(outcome: Outcome<T>) -> u16 {
    outcome.unwrap_err().status
}

#[tokio::test]
async fn a_disconnected_number_is_stopped_first() {
    let scene = Scene::start().await;
    let (number, session) = scene.linked("one").await;
    scene.siblings.disconnect(scene.school.id, number).await.unwrap();
    assert_eq!(scene.stack.platform.status_of(&session).as_deref(), Some("offline"));
    assert_eq!(scene.siblings.listed(scene.school.id).await.unwrap(), [] as [Value; 0]);
    assert_eq!(scene.mirrored(&session).await["status"], "disconnected");
    assert_eq!(status(scene.siblings.disconnect(scene.school.id, number).await), 404);

    let (number, session) = scene.linked("two").await;
    let sql = scene.stack.sql().await.unwrap();
    sql.batch_execute("revoke delete on messenger_integrations from service_role").await.unwrap();
    scene.siblings.disconnect(scene.school.id, number).await.unwrap();
    assert_eq!(scene.siblings.listed(scene.school.id).await.unwrap().len(), 1);
    assert_eq!(scene.mirrored(&session).await["status"], "disconnected");
}

#[tokio::test]
async fn the_first_row_by_count_is_primary() {
    let scene = Scene::start().await;
    let (list, school) = (&scene.siblings, scene.school.id);
    let (first, _) = scene.linked("one").await;
    let other = list.add(school, "green_api", json!({})).await.unwrap();
    let (last, _) = scene.linked("two").await;
    assert_eq!(list.primaries(school).await, [first]);
    list.delete(school, last).await.unwrap();
    assert_eq!(list.primaries(school).await, [first]);
    list.delete(school, first).await.unwrap();
    assert_eq!(list.primaries(school).await, [other]);
    assert_eq!(status(list.send(school).await), 400);
    list.delete(school, other).await.unwrap();
    assert_eq!(list.listed(school).await.unwrap(), [] as [Value; 0]);
}

#[tokio::test]
async fn the_settings_page_saves_a_form_without_masks() {
    let scene = Scene::start().await;
    let (list, school) = (&scene.siblings, scene.school.id);
    let ((first, _), (second, _)) = (scene.linked("one").await, scene.linked("two").await);
    list.set_primary(school, second).await.unwrap();
    assert_eq!(list.primaries(school).await, [second]);
    list.set_primary(school, first).await.unwrap();
    assert_eq!(list.send(school).await, Ok(()));
    list.switch(first, false).await.unwrap();
    assert_eq!(status(list.send(school).await), 400);

    let before = scene.settings(second).await;
    let form = json!({"wppApiKey": "wpp_ke••••••0150", "wppJwtToken": "***", "greeting": "hello"});
    list.save_settings(school, second, form).await.unwrap();
    let mut expected = before;
    expected["greeting"] = "hello".into();
    assert_eq!(scene.settings(second).await, expected);
}

#[tokio::test]
async fn a_message_is_sent_with_the_saved_token() {
    let scene = Scene::start().await;
    let (number, _) = scene.linked("one").await;
    let platform = &scene.stack.platform;
    assert_eq!(scene.siblings.send(scene.school.id).await, Ok(()));
    assert_eq!(scene.siblings.send(scene.school.id).await, Ok(()));
    assert_eq!(platform.faults.count("token"), 1);
    let saved = scene.settings(number).await["wppJwtToken"].clone();
    assert_eq!(json!(platform.tokens_of(&platform.session_of("one").unwrap())), json!([saved]));
    for (left_ms, tokens) in [(MARGIN_MS + 30_000, 1), (MARGIN_MS, 2)] {
        let end = json!({"wppJwtExpiresAt": unix_ms() + left_ms});
        scene.siblings.save_settings(scene.school.id, number, end).await.unwrap();
        assert_eq!(scene.siblings.send(scene.school.id).await, Ok(()));
        assert_eq!(platform.faults.count("token"), tokens, "{left_ms}");
    }
    assert_eq!(status(scene.siblings.send(Uuid::new_v4()).await), 400);
}

#[tokio::test]
async fn a_message_half_sent_brings_everything_back_as_it_was_read() {
    let scene = Scene::start().await;
    scene.stack.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    let (number, _) = scene.linked("one").await;
    let old = scene.settings(number).await;
    let sending = scene.siblings.begin_sending(scene.school.id).await.unwrap();
    let meanwhile = json!({"wppApiKey": "another", "greeting": "hello"});
    scene.siblings.save_settings(scene.school.id, number, meanwhile).await.unwrap();
    scene.siblings.finish_sending(sending).await.unwrap();
    let after = scene.settings(number).await;
    assert_eq!((&after["wppApiKey"], &after["greeting"]), (&old["wppApiKey"], &Value::Null));
}

#[tokio::test]
async fn the_webhook_finds_a_session_in_any_row() {
    let scene = Scene::start().await;
    let (number, session) = scene.linked("one").await;
    let siblings = &scene.siblings;
    siblings.report(&session, Event::Disconnected).await.unwrap();
    assert_eq!(scene.mirrored(&session).await, Value::Null);
    siblings.report(&session, Event::Qr("2@one")).await.unwrap();
    let row = scene.mirrored(&session).await;
    assert_eq!((&row["status"], &row["last_qr_b64"]), (&json!("qr_issued"), &json!("2@one")));
    assert_eq!(row["organization_id"], json!(scene.school.id));
    for (event, word) in [(Event::Connected, "connected"), (Event::Disconnected, "disconnected")] {
        siblings.report(&session, event).await.unwrap();
        let told = scene.mirrored(&session).await;
        assert_eq!((&told["status"], &told["id"]), (&json!(word), &row["id"]));
    }
    siblings.patch(number, json!({"is_active": false})).await.unwrap();
    assert_eq!(status(siblings.report(&session, Event::Connected).await), 404);
}

#[tokio::test]
async fn the_old_functions_know_one_row() {
    let scene = Scene::start().await;
    let (siblings, school) = (&scene.siblings, scene.school.id);
    assert_eq!(status(siblings.start(school).await), 404);
    let bare = siblings.add(school, "wpp", json!({})).await.unwrap();
    siblings.patch(bare, json!({"is_active": false})).await.unwrap();
    siblings.provision(school).await.unwrap();
    let row = siblings.number(school, bare).await.unwrap();
    let platform = &scene.stack.platform;
    assert_eq!(row["settings"]["wppApiKey"], json!(platform.key_of(&school.to_string())));
    assert_eq!(row["is_active"], false);
    siblings.provision(school).await.unwrap();
    assert_eq!(platform.create_calls(), 1);
    siblings.start(school).await.unwrap();
    let session = platform.session_of(&school.to_string()).unwrap();
    assert_eq!(platform.status_of(&session).as_deref(), Some("qr_required"));

    siblings.add(school, "wpp", json!({})).await.unwrap();
    assert_eq!(status(siblings.provision(school).await), 500);
    assert_eq!(status(siblings.start(school).await), 500);
}
