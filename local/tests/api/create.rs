//! `wpp-create` without failures.

use serde_json::{Value, json};

use local::clock::unix_ms;
use local::lambda::Options;
use local::test_app::TestApp;

/// Returns an API key, masked as in an answer.
pub fn masked(key: &str) -> Value {
    json!(format!("{}••••••{}", &key[..6], &key[key.len() - 4..]))
}

#[tokio::test]
async fn a_first_number_takes_one_call_of_each_kind() {
    let hooks = [("WEBHOOK_BASE_URL", "https://hooks.example/")];
    let app = TestApp::start_with(&hooks, Options::default()).await;
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(
        app.calls(),
        json!({
            "rpc/wpp_begin_creation": 1, "create": 1, "rpc/wpp_save_credentials": 1,
            "rpc/wpp_claim_refresh": 1, "token": 1, "rpc/wpp_save_token": 1,
            "webhook": 1, "rpc/wpp_save_webhook": 1, "start": 1, "status": 1, "qr": 1,
            "rpc/wpp_save_snapshot": 1,
        })
    );

    let organization = app.school.id.to_string();
    let session = app.platform.session_of(&organization).unwrap();
    let key = app.platform.key_of(&organization).unwrap();
    let qr = app.shown_qr(&session);
    assert_eq!(answer.json["success"], true);
    assert_eq!(answer.json["session"], json!(session));
    assert_eq!(answer.json["apiKey"], masked(&key));
    assert_eq!(answer.json["qrcode"], qr);
    let webhook = app.platform.webhook_of(&session);
    assert_eq!(webhook.as_deref(), Some("https://hooks.example/functions/v1/wpp-webhook"));
    assert_eq!(app.snapshot_row(&session).await["last_qr_b64"], qr);

    let [row] = &app.numbers().await[..] else { panic!("not one row") };
    for (column, value) in [
        ("organization_id", json!(organization)),
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
    assert_eq!(settings["wppJwtToken"], json!(app.platform.tokens_of(&session)[0]));
    let left_ms = settings["wppJwtExpiresAt"].as_i64().unwrap() - unix_ms();
    assert!((3_500_000..=3_600_000).contains(&left_ms), "{left_ms} ms");
    assert_eq!(settings.len(), 4, "{settings:?}");
}

#[tokio::test]
async fn a_disconnected_number_is_started_again() {
    let app = TestApp::start().await;
    let number = app.settled_number().await;
    app.platform.set_status(&number.session, "offline").unwrap();
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(answer.json["session"], json!(number.session));
    assert_eq!(answer.json["qrcode"], app.shown_qr(&number.session));
    let webhook = app.platform.webhook_of(&number.session).unwrap();
    assert_eq!(webhook, format!("{}/functions/v1/wpp-webhook", app.supabase.url()));
    assert_eq!(
        app.calls(),
        json!({
            "rpc/wpp_begin_creation": 1, "status": 2, "webhook": 1, "start": 1, "qr": 1,
            "rpc/wpp_save_snapshot": 1,
        })
    );
}

/// The TypeScript version held the request for 30 s and registered no webhook. The wait leaves time to save the snapshot.
#[tokio::test]
async fn a_session_without_a_qr_in_time_is_starting() {
    for (qr_wait_ms, deadline_ms) in [("1500", 30_000), ("8000", 4_000)] {
        let app = TestApp::start_with(&[("QR_WAIT_MS", qr_wait_ms)], Options::default()).await;
        app.platform.behave(|behavior| behavior.polls_until_qr = u32::MAX);
        let event = app.school.post("wpp-create", &json!({})).http_api();
        let answer = app.sandbox("wpp-create").invoke_by(event, unix_ms() + deadline_ms).await;
        let answer = answer.answered().unwrap().expect(200, "starting");
        assert_eq!(answer.json.get("qrcode"), None);
        let session = answer.text("session");
        assert!(app.platform.webhook_of(session).is_some());
        let row = app.snapshot_row(session).await;
        assert_eq!((&row["status"], &row["last_qr_b64"]), (&json!("pairing"), &Value::Null));
    }
}

/// The TypeScript version gave up, and left a client on the platform whose key was lost.
#[tokio::test]
async fn key_active_after_a_second_still_gets_a_qr() {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| behavior.activate_after = 1);
    app.create(json!({})).await.expect(200, "qr_issued");
    let calls = app.calls();
    assert_eq!((&calls["create"], &calls["token"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn key_not_active_in_time_is_reported() {
    // Shorter than the first pause, so that the key is tried once.
    let app = TestApp::start_with(&[("REQUEST_BUDGET_MS", "1500")], Options::default()).await;
    app.platform.behave(|behavior| behavior.activate_after = 2);
    // The retry finds the number already created, and its key still not active.
    for _ in 0..2 {
        let answer = app.create(json!({})).await.expect(503, "api_key_not_active");
        assert_eq!((&answer.json["retryable"], &*answer.headers["retry-after"]), (&json!(true), "2"));
        // After a failure, no token is requested for a second. This test does not wait for that.
        app.end_waits().await;
    }
    let poll = app.post("wpp-status", json!({})).await;
    assert_eq!((poll.status, &poll.json["platform_status"]), (200, &json!("offline")), "{poll:?}");
    let poll = app.poll_qr(poll.text("account_number")).await;
    assert_eq!((poll.status, &poll.json["qr"]), (200, &Value::Null), "{poll:?}");
    app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!((app.numbers().await.len(), app.platform.clients()), (1, 1));
}

#[tokio::test]
async fn a_further_number_has_another_platform_id() {
    let app = TestApp::start().await;
    let (first, second) = (app.number().await, app.number().await);
    assert_ne!(first.session, second.session);
    let rows = app.numbers().await;
    let primary: Vec<_> = rows.iter().map(|row| row["is_primary"].as_bool().unwrap()).collect();
    assert_eq!(primary, [true, false]);
    for (number, row) in [first, second].iter().zip(&rows) {
        assert_eq!(row["id"], json!(number.id.to_string()));
        let sub_org_id = row["settings"]["wppSubOrgId"].as_str().unwrap();
        let (organization, suffix) = sub_org_id.split_once("__wpp__").unwrap();
        assert_eq!(organization, app.school.id.to_string());
        assert!(suffix.len() == 8 && suffix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{suffix}");
        assert_eq!(app.platform.session_of(sub_org_id).as_ref(), Some(&number.session));
    }
}
