//! `wpp-create`, where all goes well.

use serde_json::{Value, json};

use local::events::Event;
use local::lambda::{Answer, Options};
use local::platform::StartAnswer;
use local::stage::{Line, Stage};

async fn create(stage: &Stage) -> Answer {
    stage.post("wpp-create", json!({})).await
}

/// A number whose key is an old one, as most are.
async fn settled(stage: &Stage) -> Line {
    let line = stage.number().await;
    stage.settle_keys().await;
    line
}

fn masked(key: &str) -> Value {
    json!(format!("{}••••••{}", &key[..6], &key[key.len() - 4..]))
}

#[tokio::test]
async fn a_first_number_is_made_with_one_call_each_and_shows_its_qr() {
    let stage =
        Stage::start_with(&[("WEBHOOK_BASE_URL", "https://hooks.example/")], Options::default()).await;
    let answer = create(&stage).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        stage.calls(),
        json!({
            "rpc/wpp_begin_creation": 1, "create": 1, "rpc/wpp_save_credentials": 1,
            "rpc/wpp_claim_refresh": 1, "token": 1, "rpc/wpp_save_token": 1,
            "webhook": 1, "rpc/wpp_save_webhook": 1, "start": 1, "status": 1, "qr": 1,
            "rpc/wpp_remember_session": 1,
        })
    );

    let organisation = stage.school.id.to_string();
    let session = stage.world.platform.session_of(&organisation).unwrap();
    let key = stage.world.platform.key_of(&organisation).unwrap();
    let qr = json!(stage.world.platform.qr_of(&session).unwrap());
    assert_eq!(answer.json["success"], true);
    assert_eq!(answer.json["session"], json!(session));
    assert_eq!(answer.json["apiKey"], masked(&key));
    assert_eq!(answer.json["status"], "qr_issued");
    assert_eq!(answer.json["qrcode"], qr);
    let webhook = stage.world.platform.webhook_of(&session);
    assert_eq!(webhook.as_deref(), Some("https://hooks.example/functions/v1/wpp-webhook"));
    assert_eq!(stage.mirror(&session).await["last_qr_b64"], qr);
}

#[tokio::test]
async fn the_row_of_a_first_number_is_as_the_sibling_functions_expect_it() {
    let stage = Stage::start().await;
    create(&stage).await;
    let organisation = stage.school.id.to_string();
    let (session, key) =
        (stage.world.platform.session_of(&organisation), stage.world.platform.key_of(&organisation));
    let [row] = &stage.numbers().await[..] else { panic!("not one row") };
    for (column, value) in [
        ("organization_id", json!(organisation)),
        ("messenger_type", json!("whatsapp")),
        ("provider", json!("wpp")),
        ("name", json!("WhatsApp (WPP)")),
        ("is_active", json!(true)),
        ("is_primary", json!(true)),
    ] {
        assert_eq!(row[column], value, "{column}");
    }
    row["webhook_key"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    let settings = row["settings"].as_object().unwrap();
    assert_eq!(settings["wppApiKey"], json!(key));
    assert_eq!(settings["wppAccountNumber"], json!(session));
    assert_eq!(settings["wppJwtToken"], json!(stage.world.platform.tokens_of(&session.unwrap())[0]));
    let left_ms = settings["wppJwtExpiresAt"].as_i64().unwrap() - local::clock::unix_ms();
    assert!((3_500_000..=3_600_000).contains(&left_ms), "{left_ms} ms");
    assert_eq!(settings.len(), 4, "{settings:?}");
}

#[tokio::test]
async fn a_number_that_is_connected_is_answered_and_nothing_else_done() {
    let stage = Stage::start().await;
    let line = settled(&stage).await;
    stage.world.platform.scan(&line.session).unwrap();
    let first = create(&stage).await;
    assert_eq!(first.json["status"], "connected", "{first:?}");
    assert_eq!(first.json["apiKey"], masked(&line.key));
    assert_eq!(first.json.get("qrcode"), None);
    assert_eq!(
        stage.calls(),
        json!({"rpc/wpp_begin_creation": 1, "status": 1, "rpc/wpp_remember_session": 1})
    );
    stage.forget_calls();
    assert_eq!(create(&stage).await.json["session"], json!(line.session));
    assert_eq!(stage.calls(), json!({"rpc/wpp_begin_creation": 1, "status": 1}));
}

#[tokio::test]
async fn a_number_that_is_not_connected_is_started_again_and_shows_its_qr() {
    let stage = Stage::start().await;
    let line = settled(&stage).await;
    stage.world.platform.set_status(&line.session, "offline").unwrap();
    let answer = create(&stage).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    assert_eq!(answer.json["session"], json!(line.session));
    assert_eq!(answer.json["qrcode"], json!(stage.world.platform.qr_of(&line.session).unwrap()));
    let webhook = stage.world.platform.webhook_of(&line.session).unwrap();
    assert_eq!(webhook, format!("{}/functions/v1/wpp-webhook", stage.world.supabase.url()));
    assert_eq!(
        stage.calls(),
        json!({
            "rpc/wpp_begin_creation": 1, "status": 2, "webhook": 1, "start": 1, "qr": 1,
            "rpc/wpp_remember_session": 1,
        })
    );
}

#[tokio::test]
async fn a_start_that_brings_the_qr_or_a_linked_phone_needs_no_further_look() {
    for (answer, looks) in [(StartAnswer::Qr, false), (StartAnswer::State, true)] {
        let stage = Stage::start().await;
        stage.world.platform.behave(|manners| manners.start_answer = answer);
        assert_eq!(create(&stage).await.json["status"], "qr_issued", "{answer:?}");
        assert_eq!(stage.calls().get("qr").is_some(), looks, "{answer:?}");
    }
    let stage = Stage::start().await;
    create(&stage).await;
    let session = stage.world.platform.session_of(&stage.school.id.to_string()).unwrap();
    stage.world.platform.behave(|manners| manners.start_answer = StartAnswer::State);
    stage.world.platform.set_status(&session, "connected").unwrap();
    stage.forget_calls();
    assert_eq!(create(&stage).await.json["status"], "connected");
    assert_eq!(
        stage.calls(),
        json!({"rpc/wpp_begin_creation": 1, "webhook": 1, "start": 1, "rpc/wpp_remember_session": 1})
    );
}

#[tokio::test]
async fn a_session_that_takes_its_time_is_looked_at_until_it_shows_its_qr() {
    let stage = Stage::start().await;
    // A look at the status and one at the QR, at a time.
    stage.world.platform.behave(|manners| manners.looks_until_qr = 2);
    let answer = create(&stage).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    let calls = stage.calls();
    assert_eq!((&calls["start"], &calls["status"], &calls["qr"]), (&json!(1), &json!(2), &json!(2)));
}

/// The original kept the request for 30 s and registered no webhook.
#[tokio::test]
async fn a_session_that_shows_no_qr_in_time_is_starting_and_has_its_webhook() {
    let stage = Stage::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    stage.world.platform.behave(|manners| manners.looks_until_qr = u32::MAX);
    let answer = create(&stage).await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("starting")), "{answer:?}");
    assert_eq!(answer.json.get("qrcode"), None);
    let session = answer.json["session"].as_str().unwrap();
    assert!(stage.world.platform.webhook_of(session).is_some());
    let row = stage.mirror(session).await;
    assert_eq!((&row["status"], &row["last_qr_b64"]), (&json!("pairing"), &Value::Null));
}

/// The original gave up, and left a client on the platform that nobody had the key of.
#[tokio::test]
async fn a_key_that_is_active_only_after_a_second_still_brings_a_qr() {
    let stage = Stage::start().await;
    stage.world.platform.behave(|manners| manners.activate_after = 1);
    let answer = create(&stage).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    let calls = stage.calls();
    assert_eq!((&calls["create"], &calls["token"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn a_key_that_is_not_active_in_time_is_starting_and_the_first_poll_after_heals_it() {
    // Less than the first pause, so that the key is tried once.
    let stage = Stage::start_with(&[("QR_WAIT_MS", "900")], Options::default()).await;
    stage.world.platform.behave(|manners| manners.activate_after = 1);
    let answer = create(&stage).await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("starting")), "{answer:?}");
    let session = answer.json["session"].as_str().unwrap();
    assert_eq!(
        answer.json["apiKey"],
        masked(&stage.world.platform.key_of(&stage.school.id.to_string()).unwrap())
    );

    stage.sql.batch_execute("update wpp_token_leases set retry_at = now()").await.unwrap();
    let poll = stage.poll_qr(session).await;
    assert_eq!((poll.status, &poll.json["qr"]), (200, &Value::Null), "{poll:?}");
    let answer = create(&stage).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    assert_eq!(stage.numbers().await.len(), 1);
}

#[tokio::test]
async fn a_recreation_gives_the_row_new_credentials_and_keeps_the_rest_of_it() {
    let stage = Stage::start().await;
    let line = settled(&stage).await;
    stage.merge(&line, json!({"greeting": "hello"})).await;
    let before = stage.settings(&line).await;
    stage.world.platform.revoke_key(&line.key);
    let answer = stage.post("wpp-create", json!({"force_recreate": true})).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");

    let after = stage.settings(&line).await;
    let key = stage.world.platform.key_of(before["wppSubOrgId"].as_str().unwrap()).unwrap();
    assert_ne!(key, line.key);
    assert_eq!(after["wppApiKey"], json!(key));
    assert_eq!(answer.json["apiKey"], masked(&key));
    assert_ne!(after["wppJwtToken"], before["wppJwtToken"]);
    assert_eq!(after["greeting"], "hello");
    assert_eq!(stage.numbers().await.len(), 1);
    assert_eq!((stage.calls()["create"].clone(), stage.calls()["token"].clone()), (json!(1), json!(1)));
    assert_eq!(stage.poll_qr(&line.session).await.json["qr"], answer.json["qrcode"]);
}

#[tokio::test]
async fn a_further_number_has_an_id_of_its_own_and_is_primary_only_where_there_is_none() {
    let stage = Stage::start().await;
    let (first, second) = (stage.number().await, stage.number().await);
    assert_ne!(first.session, second.session);
    let rows = stage.numbers().await;
    let primary: Vec<_> = rows.iter().map(|row| row["is_primary"].as_bool().unwrap()).collect();
    assert_eq!(primary, [true, false]);
    for (line, row) in [first, second].iter().zip(&rows) {
        assert_eq!(row["id"], json!(line.id.to_string()));
        let sub_org_id = row["settings"]["wppSubOrgId"].as_str().unwrap();
        let (organisation, suffix) = sub_org_id.split_once("__wpp__").unwrap();
        assert_eq!(organisation, stage.school.id.to_string());
        assert!(suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{suffix}");
        assert_eq!(stage.world.platform.session_of(sub_org_id).as_ref(), Some(&line.session));
    }
}

/// The original did not see two numbers, and made a third.
#[tokio::test]
async fn an_organisation_with_two_numbers_is_answered_for_its_primary() {
    let stage = Stage::start().await;
    let (_, second) = (stage.number().await, settled(&stage).await);
    let primary = "update messenger_integrations set is_primary = false where organization_id = $1";
    stage.sql.execute(primary, &[&stage.school.id]).await.unwrap();
    let primary = "update messenger_integrations set is_primary = true where id = $1";
    stage.sql.execute(primary, &[&second.id]).await.unwrap();
    let answer = create(&stage).await;
    assert_eq!(answer.json["session"], json!(second.session), "{answer:?}");
    assert_eq!((stage.numbers().await.len(), stage.world.platform.clients()), (2, 2));
    assert_eq!(stage.calls().get("create"), None);
}

#[tokio::test]
async fn a_request_that_contradicts_itself_is_refused_before_anything_is_asked() {
    let stage = Stage::start().await;
    for body in [json!({"force_recreate": true, "add_new": true}), json!({"add_new": "yes"}), json!([])] {
        let answer = stage.post("wpp-create", body).await;
        assert_eq!((answer.status, &answer.json["code"]), (400, &json!("invalid_request")), "{answer:?}");
    }
    assert_eq!(stage.calls(), json!({}));
}

#[tokio::test]
async fn a_request_without_a_body_is_one_for_the_organisations_number() {
    let stage = Stage::start().await;
    let event = Event::post("wpp-create").bearer(&stage.school.token).v2();
    let answer = stage.invoke("wpp-create", event).await;
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
}
