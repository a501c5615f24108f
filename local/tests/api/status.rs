//! `wpp-status`: which number it is about, and what it says of it.

use serde_json::{Value, json};

use local::fault_injector::Point;
use local::lambda::Answer;
use local::platform::LetterCase;
use local::test_app::TestApp;

/// What the platform shows for a session now.
fn qr_of(app: &TestApp, session: &str) -> Value {
    app.shown_qr(session)
}

async fn check(app: &TestApp) -> Answer {
    app.check().await
}

#[tokio::test]
async fn a_number_that_needs_a_qr_costs_one_database_request_and_asks_the_platform_side_by_side() {
    let app = TestApp::start().await;
    let number = app.number().await;
    let faults = &app.platform.faults;
    let (status, qr) = (faults.hold("status", Point::Before), faults.hold("qr", Point::Before));
    let (answer, ()) = tokio::join!(check(&app), async {
        status.reached(1).await;
        qr.reached(1).await;
        status.release();
        qr.release();
    });
    assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
    assert_eq!(answer.json["qrcode"], qr_of(&app, &number.session));
    assert_eq!(answer.json["account_number"], json!(number.session));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "status": 1, "qr": 1}));
}

#[tokio::test]
async fn a_connected_number_costs_one_database_and_one_platform_request() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.platform.scan(&number.session).unwrap();
    check(&app).await;
    app.forget_calls();
    let answer = check(&app).await.expect(200, "connected");
    assert_eq!(answer.json["account_number"], json!(number.session));
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "status": 1}));
}

/// The original took two numbers for none, or answered for the first whichever was named.
#[tokio::test]
async fn each_number_of_an_organisation_is_found_by_its_session_its_name_and_its_row() {
    let app = TestApp::start().await;
    let (first, second) = (app.number().await, app.number().await);
    app.platform.scan(&second.session).unwrap();
    for (number, status) in [(&first, "qr_issued"), (&second, "connected")] {
        for name in [
            json!({"session": number.session}),
            json!({"session_name": number.session}),
            json!({"session_name": format!("wpp_{}", number.session)}),
            json!({"integration_id": number.id.to_string()}),
        ] {
            let mut body = name.clone();
            body["force"] = json!(true);
            let answer = app.post("wpp-status", body).await;
            assert_eq!(answer.json["status"], status, "{name}: {answer:?}");
            assert_eq!(answer.json["account_number"], json!(number.session), "{name}");
        }
    }
}

/// The original found one that is not primary and then did not use it.
#[tokio::test]
async fn without_a_name_the_primary_is_meant_and_any_active_number_where_there_is_none() {
    let app = TestApp::start().await;
    let (first, second) = (app.number().await, app.number().await);
    let switch = "update messenger_integrations set is_primary = $2, is_active = $3 where id = $1";
    let meant = async |id, is_primary: bool, is_active: bool| {
        app.sql.execute(switch, &[id, &is_primary, &is_active]).await.unwrap();
        check(&app).await.json
    };
    assert_eq!(meant(&first.id, true, true).await["account_number"], json!(first.session));
    assert_eq!(meant(&first.id, false, false).await["account_number"], json!(second.session));
    assert_eq!(meant(&first.id, false, true).await["account_number"], json!(first.session));
    assert_eq!(meant(&second.id, true, true).await["account_number"], json!(second.session));
    // A primary that has lost its credentials is no number to ask about where there is another.
    app.merge(&second, json!({"wppApiKey": null})).await;
    assert_eq!(check(&app).await.json["account_number"], json!(first.session));
    let named = app.post("wpp-status", json!({"session": second.session})).await.expect(200, "disconnected");
    assert!(named.json["message"].as_str().unwrap().contains("not been connected yet"), "{named:?}");
}

#[tokio::test]
async fn an_empty_name_is_none() {
    let app = TestApp::start().await;
    let (primary, second) = (app.number().await, app.number().await);
    for (body, meant) in [
        (json!({"session": "", "session_name": second.session}), &second),
        (json!({"session": "", "session_name": "", "integration_id": second.id}), &second),
        (json!({"session": "", "session_name": null, "integration_id": ""}), &primary),
    ] {
        let answer = app.post("wpp-status", body.clone()).await;
        assert_eq!(answer.json["account_number"], json!(meant.session), "{body}");
    }
}

#[tokio::test]
async fn an_organisation_without_a_number_is_disconnected_and_the_platform_is_not_asked() {
    let app = TestApp::start().await;
    let answer = check(&app).await.expect(200, "disconnected");
    assert!(answer.json["message"].is_string(), "{answer:?}");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1}));
}

#[tokio::test]
async fn every_status_of_the_platform_is_understood_in_any_letter_case() {
    let app = TestApp::start().await;
    let number = app.number().await;
    for (platform_status, expected) in [
        ("connected", "connected"),
        ("ready", "connected"),
        ("starting", "qr_pending"),
        ("offline", "disconnected"),
        ("disconnected", "disconnected"),
        ("qr_required", "qr_issued"),
        ("passkey_required", "qr_issued"),
        ("never_heard_of", "qr_issued"),
    ] {
        for case in [LetterCase::Lower, LetterCase::Upper, LetterCase::Title] {
            app.platform.behave(|behavior| behavior.status_case = case);
            app.platform.set_status(&number.session, platform_status).unwrap();
            let answer = check(&app).await;
            assert_eq!(answer.json["status"], expected, "{platform_status} {case:?}: {answer:?}");
            assert_eq!(answer.json.get("qrcode").is_some(), expected == "qr_issued", "{platform_status}");
        }
    }
}

#[tokio::test]
async fn a_session_without_a_qr_says_so_in_a_sentence() {
    let app = TestApp::start().await;
    let number = app.number().await;
    for omit_unready_qr in [false, true] {
        app.platform.behave(|behavior| behavior.omit_unready_qr = omit_unready_qr);
        for (platform_status, status) in [("starting", "qr_pending"), ("offline", "disconnected")] {
            app.platform.set_status(&number.session, platform_status).unwrap();
            let answer = check(&app).await.json;
            assert_eq!(answer["status"], status);
            assert!(answer["message"].is_string(), "{answer}");
            assert_eq!((answer.get("qrcode"), answer.get("last_qr_at")), (None, None), "{answer}");
        }
    }
}

#[tokio::test]
async fn the_time_of_a_qr_is_when_it_was_first_shown_and_reads_as_a_browser_writes_it() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.age_mirror(5).await;
    let first_seen = app.mirror(&number.session).await["last_qr_at"].clone();
    // The row has microseconds, the answer milliseconds.
    let same = "select date_trunc('milliseconds', $1::text::timestamptz) = $2::text::timestamptz";
    for force in [false, true] {
        let answer = app.post("wpp-status", json!({"force": force})).await;
        let time = answer.json["last_qr_at"].as_str().unwrap();
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
        let same = app.sql.query_one(same, &[&first_seen.as_str().unwrap(), &time]).await.unwrap();
        assert!(same.get::<_, bool>(0), "{time} is not {first_seen}");
    }
}
