//! `wpp-status`: which number it is about, and what it answers about it.

use serde_json::json;

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

#[tokio::test]
async fn last_qr_at_is_when_the_qr_was_first_shown() {
    let (app, number) = TestApp::start_with_number().await;
    app.age_snapshot(5).await;
    let first_seen = app.snapshot_row(&number.session).await["last_qr_at"].clone();
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
