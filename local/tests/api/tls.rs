//! The functions over HTTPS, as in production; the other tests use plain HTTP.

use std::fs;

use local::test_app::TestApp;
use local::tls::{Authority, Https};
use serde_json::json;

#[tokio::test]
async fn polls_over_tls_share_one_connection_to_each_upstream() {
    let app = TestApp::start().await;
    let https = Https::before(&app).await.unwrap();
    let create = https.process(&app, "wpp-create").await;
    let made = create.invoke(app.school.post("wpp-create", &json!({})).http_api()).await.answered().unwrap();
    let session = made.expect(200, "qr_issued").text("session").to_owned();
    let before = https.handshakes();
    let qr = https.process(&app, "wpp-qr").await;
    for _ in 0..3 {
        let poll = app.school.post("wpp-qr", &json!({"session": session})).http_api();
        qr.invoke(poll).await.answered().unwrap().expect(200, "qr_issued");
    }
    assert_eq!(https.handshakes() - before, 2);
}

#[tokio::test]
async fn untrusted_server_gets_no_request() {
    let app = TestApp::start().await;
    let https = Https::before(&app).await.unwrap();
    let function = https.process_that_trusts("", &app, "wpp-status").await;
    let answer =
        function.invoke(app.school.post("wpp-status", &json!({})).http_api()).await.answered().unwrap();
    answer.expect(503, "database_unavailable");
    assert_eq!((https.handshakes(), app.calls()), (0, json!({})));
    let logs = function.logs().await;
    assert!(logs.contains(r#""status":"certificate not trusted""#) && !logs.contains("attempts"), "{logs}");
}

#[tokio::test]
async fn one_bad_certificate_rejects_the_whole_file() {
    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let (app, file) = (TestApp::start().await, tempfile::NamedTempFile::new().unwrap());
    let good = Authority::new().unwrap().pem();
    for (text, starts) in [(good.clone(), true), (good + BROKEN, false)] {
        fs::write(&file, text).unwrap();
        let variable = ("UPSTREAM_CA_FILE", file.path().to_str().unwrap());
        let ready = app.process_with("wpp-qr", &[variable]).await.ready().await;
        assert_eq!(ready.is_ok(), starts, "{ready:?}");
    }
}
