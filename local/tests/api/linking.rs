//! `wpp-create` after the number has its credentials: waiting for the QR ends in time, and the webhook never delays an answer.

use serde_json::json;

use local::clock::unix_ms;
use local::fault_injector::Fault;
use local::fault_injector::Point::After;
use local::lambda::Options;
use local::test_app::TestApp;

#[tokio::test]
async fn failed_webhook_does_not_delay_the_qr() {
    let app = TestApp::start().await;
    for fault in [Fault::status(500), Fault::Drop, Fault::NoHeaders] {
        let school = app.organization("webhook").await.unwrap();
        app.inject("webhook", fault.clone());
        app.post_as(&school, "wpp-create", json!({})).await.expect(200, "qr_issued");
        app.clear_faults();
        // The next call registers the webhook.
        let again = app.post_as(&school, "wpp-create", json!({})).await;
        let webhook = app.platform.webhook_of(again.text("session"));
        assert_eq!(webhook.unwrap(), format!("{}/functions/v1/wpp-webhook", app.supabase.url()));
    }
}

#[tokio::test]
async fn unreported_state_is_not_saved() {
    let app = TestApp::start_with(&[("QR_WAIT_MS", "1500")], Options::default()).await;
    let number = app.settled_number().await;
    app.link(&number).await;
    // The platform accepts the start, then stops answering.
    app.platform.set_status(&number.session, "offline").unwrap();
    app.inject("start", Fault::Body("{}".to_owned()));
    let hold = app.hold_one("start", After);
    let hang = async {
        hold.reached(1).await;
        app.inject("status", Fault::NoHeaders);
        hold.release();
    };
    let (answer, ()) = tokio::join!(app.create(json!({})), hang);
    assert_eq!(answer.told(), (200, "starting"), "{answer:?}");
    assert_eq!(app.snapshot_row(&number.session).await["status"], "connected");
}

/// Each step has its own timeout, and the wait for the QR begins after them.
#[tokio::test]
async fn slow_start_does_not_shorten_the_qr_wait() {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| (behavior.activate_after, behavior.polls_until_qr) = (2, 2));
    app.inject("webhook", Fault::NoHeaders);
    app.inject("start", Fault::Delay { ms: 4000 });
    let answer = app.create(json!({})).await.expect(200, "qr_issued");
    assert_eq!(app.platform.status_of(answer.text("session")).unwrap(), "qr_required");
    assert_eq!((app.count("token"), app.count("start")), (3, 1));
}

/// A new account has ten sandboxes: ten people who connect at once must not hold all of them for longer than this.
#[tokio::test]
async fn create_waits_three_seconds_for_a_qr() {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| behavior.polls_until_qr = u32::MAX);
    let began = unix_ms();
    app.create(json!({})).await.expect(200, "starting");
    let took = unix_ms() - began;
    assert!((3000..6000).contains(&took), "{took} ms");
}

/// If the session was not started, the answer must not say `starting`.
#[tokio::test]
async fn hanging_platform_before_the_start_is_a_timeout() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1500")], Options::default()).await;
    let number = app.settled_number().await;
    for endpoint in ["status", "start"] {
        app.inject(endpoint, Fault::NoHeaders);
        app.create(json!({})).await.expect(504, "platform_timeout");
        app.clear_faults();
    }
    let answer = app.create(json!({})).await;
    assert_eq!((answer.status, &answer.json["session"]), (200, &json!(number.session)), "{answer:?}");
}

/// If the webhook's URL changes, each number is registered again.
#[tokio::test]
async fn webhook_with_an_old_url_is_pending() {
    let app = TestApp::start().await;
    app.create(json!({})).await;
    app.sql.execute("update wpp_numbers set webhook_url = 'https://old.example'", &[]).await.unwrap();
    assert_eq!(app.post("wpp-status", json!({})).await.json["webhook"], "pending");
    assert_eq!(app.create(json!({})).await.json["webhook"], "registered");
}
