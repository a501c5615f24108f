//! `wpp-status`: which number it is about, and what it answers about it.

use serde_json::{Value, json};

use local::fault_injector::Point;
use local::test_app::TestApp;

#[tokio::test]
async fn a_number_without_a_phone_costs_three_requests() {
    let (app, number) = TestApp::start_with_number().await;
    let (status, qr) = (app.hold("status", Point::Before), app.hold("qr", Point::Before));
    let (answer, ()) = tokio::join!(app.check(), async {
        status.reached(1).await;
        qr.reached(1).await;
        status.release();
        qr.release();
    });
    let answer = answer.expect(200, "qr_issued");
    assert_eq!(answer.json["qrcode"], app.shown_qr(&number.session));
    assert_eq!(answer.json["account_number"], json!(number.session));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1}));
}

#[tokio::test]
async fn a_connected_number_costs_two_requests() {
    let (app, number) = TestApp::start_with_number().await;
    app.link(&number).await;
    app.forget_calls();
    let answer = app.check().await.expect(200, "connected");
    assert_eq!(answer.json["account_number"], json!(number.session));
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "status": 1}));
}

/// If there were two numbers, the TypeScript version found none, or always answered for the first one.
#[tokio::test]
async fn each_number_is_found_by_each_of_its_names() {
    let app = TestApp::start().await;
    let (first, second) = (app.number().await, app.number().await);
    app.platform.scan(&second.session).unwrap();
    for (number, status) in [(&first, "qr_issued"), (&second, "connected")] {
        for name in [
            json!({"session": number.session}),
            json!({"session_name": number.session}),
            json!({"session_name": format!("wpp_{}", number.session)}),
            json!({"integration_id": number.id.to_string()}),
            json!({"session": "", "session_name": number.session}),
            json!({"session": "", "session_name": null, "integration_id": number.id}),
        ] {
            let mut body = name.clone();
            body["force"] = json!(true);
            let answer = app.post("wpp-status", body).await;
            assert_eq!(answer.json["status"], status, "{name}: {answer:?}");
            assert_eq!(answer.json["account_number"], json!(number.session), "{name}");
        }
    }
}

/// The TypeScript version found a number that is not primary, but did not use it.
#[tokio::test]
async fn without_a_name_the_primary_number_is_meant() {
    let app = TestApp::start().await;
    let (first, second) = (app.number().await, app.number().await);
    let switch = "update messenger_integrations set is_primary = $2, is_active = $3 where id = $1";
    let meant = async |id, is_primary: bool, is_active: bool| {
        app.sql.execute(switch, &[id, &is_primary, &is_active]).await.unwrap();
        app.check().await.json["account_number"].clone()
    };
    assert_eq!(meant(&first.id, true, true).await, json!(first.session));
    let empty = json!({"session": "", "session_name": null, "integration_id": ""});
    assert_eq!(app.post("wpp-status", empty).await.text("account_number"), first.session);
    assert_eq!(meant(&first.id, false, false).await, json!(second.session));
    assert_eq!(meant(&first.id, false, true).await, json!(first.session));
    assert_eq!(meant(&second.id, true, true).await, json!(second.session));
    // Another function has made both primary: the oldest is used.
    assert_eq!(meant(&first.id, true, true).await, json!(first.session));
    let younger =
        "update messenger_integrations set created_at = created_at + interval '1 hour' where id = $1";
    app.sql.execute(younger, &[&first.id]).await.unwrap();
    assert_eq!(meant(&first.id, true, true).await, json!(second.session));
    assert_eq!(meant(&first.id, false, true).await, json!(second.session));
    // A primary number without credentials is not used if there is another one.
    app.merge(&second, json!({"wppApiKey": null})).await;
    assert_eq!(app.check().await.json["account_number"], json!(first.session));
    let named = app.post("wpp-status", json!({"session": second.session})).await.expect(200, "disconnected");
    assert!(named.text("message").contains("not been connected yet"), "{named:?}");
}

#[tokio::test]
async fn an_unknown_word_never_means_connected() {
    let (app, number) = TestApp::start_with_number().await;
    let long = "long".repeat(1000);
    for (word, status) in [
        ("connected", "connected"),
        ("READY", "connected"),
        ("Starting", "qr_pending"),
        ("OFFLINE", "disconnected"),
        ("Disconnected", "disconnected"),
        ("qr_required", "qr_issued"),
        ("passkey_required", "qr_issued"),
        ("Pairing_v3", "qr_issued"),
        ("ПОДКЛЮЧЕНО", "qr_issued"),
        ("connected!", "qr_issued"),
        ("<b>", "qr_issued"),
        (&long, "qr_issued"),
        ("", "qr_issued"),
    ] {
        for in_capitals in [false, true] {
            app.platform.behave(|behavior| behavior.in_capitals = in_capitals);
            app.platform.set_status(&number.session, word).unwrap();
            let answer = app.check().await.expect(200, status).json;
            let shown = if in_capitals { word.to_uppercase() } else { word.to_owned() };
            let shown: String = shown.chars().take(64).collect();
            assert_eq!(answer["platform_status"], if shown.is_empty() { Value::Null } else { json!(shown) });
            assert_eq!(answer.get("qrcode").is_some(), status == "qr_issued", "{word}");
        }
    }
}

#[tokio::test]
async fn last_qr_at_is_when_the_qr_was_first_shown() {
    let (app, number) = TestApp::start_with_number().await;
    app.age_mirror(5).await;
    let first_seen = app.mirror(&number.session).await["last_qr_at"].clone();
    // The row has microseconds, the answer milliseconds.
    let same = "select date_trunc('milliseconds', $1::text::timestamptz) = $2::text::timestamptz";
    for force in [false, true] {
        let answer = app.post("wpp-status", json!({"force": force})).await;
        let time = answer.text("last_qr_at");
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
        let same = app.sql.query_one(same, &[&first_seen.as_str().unwrap(), &time]).await.unwrap();
        assert!(same.get::<_, bool>(0), "{time} is not {first_seen}");
    }
}
