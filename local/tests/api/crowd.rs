//! Many requests and writers use one row at the same time.

use futures_util::future::join_all;
use local::fault_injector::Point;
use local::lambda::{Answer, Options};
use local::platform::{AcceptedTokens, RepeatedCreate};
use local::test_app::{Number, TestApp, until};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_postgres::types::Json;

const CROWD: usize = 25;

async fn app_for_a_crowd(accepted_tokens: AcceptedTokens) -> (TestApp, Number) {
    // Enough time for a busy machine.
    let env = [("REQUEST_BUDGET_MS", "29000"), ("UPSTREAM_TIMEOUT_MS", "29000")];
    let app = TestApp::start_with(&env, Options { concurrency: CROWD, ..Options::default() }).await;
    app.platform.behave(|behavior| behavior.accepted_tokens = accepted_tokens);
    let number = app.number().await;
    (app, number)
}

/// Sends 25 polls for the QR and 25 for the status. None of them continues before all have read the row.
async fn crowd(app: &TestApp, number: &Number) -> Vec<Answer> {
    let hold = app.hold("rpc/wpp_find_number", Point::After);
    let qr = join_all((0..CROWD).map(|_| app.poll_qr(&number.session)));
    let status = join_all((0..CROWD).map(|_| app.check()));
    let together = async {
        hold.reached(2 * CROWD).await;
        hold.release();
    };
    let (mut answers, status, ()) = tokio::join!(qr, status, together);
    answers.extend(status);
    answers
}

/// Returns all calls except the claims: how often a waiting sandbox claims again depends on timing.
fn calls(app: &TestApp) -> Value {
    let mut calls = app.calls();
    calls.as_object_mut().unwrap().remove("rpc/wpp_claim_refresh");
    calls
}

/// Each request is refused once, and succeeds at the second attempt.
#[tokio::test]
async fn fifty_requests_with_a_refused_token_fetch_one() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (app, number) = app_for_a_crowd(accepted_tokens).await;
        app.platform.forget_tokens();
        let answers = crowd(&app, &number).await;
        app.assert_served(&number, &answers);
        let expected =
            json!({"rpc/wpp_find_number": 50, "rpc/wpp_save_token": 1, "token": 1, "qr": 100, "status": 50});
        assert_eq!(calls(&app), expected, "{accepted_tokens:?}");
        app.assert_stored_token_is_good(&number).await;
    }
}

/// If only the newest token is valid, replacing a usable one breaks the calls that are using it. Each of them recovers.
#[tokio::test]
async fn fifty_requests_with_a_due_token_fetch_at_most_one() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (app, number) = app_for_a_crowd(accepted_tokens).await;
        // Later than any token can expire, so it is due.
        app.set_token_end(&number, 3 * 24 * 3600).await;
        let old = app.settings(&number).await["wppJwtToken"].clone();
        let answers = crowd(&app, &number).await;
        app.assert_served(&number, &answers);
        let calls = app.calls();
        assert!(calls["rpc/wpp_claim_refresh"].as_u64() >= Some(1), "no request has tried: {calls}");
        assert!(calls["token"].as_u64() <= Some(1), "{calls}");
        // On a busy machine the poll that tried may have run out of its second. Then a later poll replaces the token.
        until(async || {
            app.end_waits().await;
            app.assert_served(&number, &[app.poll_qr(&number.session).await]);
            app.settings(&number).await["wppJwtToken"] != old
        })
        .await;
        app.assert_stored_token_is_good(&number).await;
    }
}

/// Each writer counts in its own settings field, like `wpp-webhook` and the other functions, until the token has been replaced ten times.
#[tokio::test]
async fn refresh_loses_no_concurrent_settings_write() {
    const CONNECTIONS: usize = 10;
    let (app, number) = app_for_a_crowd(AcceptedTokens::Unexpired).await;
    let stop = watch::Sender::new(false);
    let connections = join_all((0..CONNECTIONS).map(|_| app.sql())).await;
    let writers = connections.into_iter().enumerate().map(|(nth, sql)| {
        let (stop, id) = (stop.subscribe(), number.id);
        async move {
            let sql = sql.unwrap();
            let merge = "update messenger_integrations set settings = settings || $2 where id = $1";
            let mut count = 0;
            while count == 0 || !*stop.borrow() {
                count += 1;
                for writer in (nth..50).step_by(CONNECTIONS) {
                    let keys = json!({format!("writer{writer}"): count});
                    assert_eq!(sql.execute(merge, &[&id, &Json(keys)]).await.unwrap(), 1);
                }
            }
            count
        }
    });
    let rotations = async {
        for _ in 0..10 {
            app.set_token_end(&number, -1).await;
            let answers = join_all((0..5).map(|_| app.poll_qr(&number.session))).await;
            app.assert_served(&number, &answers);
        }
        stop.send_replace(true);
    };
    let (counts, ()) = tokio::join!(join_all(writers), rotations);
    let settings = app.settings(&number).await;
    for writer in 0..50 {
        assert_eq!(settings[format!("writer{writer}")], counts[writer % CONNECTIONS], "{writer}");
    }
    assert_eq!(app.platform.tokens_issued(&number.key), 11);
    app.assert_stored_token_is_good(&number).await;
}

/// A writer has changed the row, but not committed, when the new token is saved. The TypeScript version wrote back all of
/// `settings` as it had read them.
#[tokio::test]
async fn write_during_a_refresh_keeps_both_values() {
    let (app, number) = app_for_a_crowd(AcceptedTokens::Unexpired).await;
    app.merge(&number, json!({"greeting": "old"})).await;
    app.set_token_end(&number, -1).await;
    let before = app.settings(&number).await;
    let mut sibling = app.sql().await.unwrap();
    let hold = app.hold_one("token", Point::After);
    let writing = async {
        hold.reached(1).await;
        let writing = sibling.transaction().await.unwrap();
        let merge = "update messenger_integrations set settings = settings || $2 where id = $1";
        let keys = json!({"greeting": "new", "added": 1});
        writing.execute(merge, &[&number.id, &Json(keys)]).await.unwrap();
        hold.release();
        until(async || {
            let waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock'
                and datname = current_database())";
            app.sql.query_one(waiting, &[]).await.unwrap().get(0)
        })
        .await;
        writing.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(app.poll_qr(&number.session), writing);
    app.assert_served(&number, &[answer]);
    let mut after = app.settings(&number).await;
    assert_ne!(after["wppJwtToken"], before["wppJwtToken"]);
    assert_eq!((&after["greeting"], &after["added"]), (&json!("new"), &json!(1)));
    for key in ["greeting", "wppJwtToken", "wppJwtExpiresAt"] {
        after[key] = before[key].clone();
    }
    after.as_object_mut().unwrap().remove("added");
    assert_eq!(after, before);
    app.assert_stored_token_is_good(&number).await;
}

/// A poll has fetched a token for the old API key, or is about to. Then `force_recreate` replaces the key, and fetches a token for
/// the new one. The platform's answer about the old key must not lead to advice to recreate the number.
#[tokio::test]
async fn a_slow_poll_does_not_undo_a_recreation() {
    for (accepted_tokens, point) in [
        (AcceptedTokens::Unexpired, Point::After),
        (AcceptedTokens::Newest, Point::After),
        (AcceptedTokens::Unexpired, Point::Before),
    ] {
        let (app, number) = app_for_a_crowd(accepted_tokens).await;
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
        app.settle_keys().await;
        app.merge(&number, json!({"greeting": "old", "wppJwtExpiresAt": 1000})).await;
        let hold = app.hold_one("token", point);
        let recreation = async {
            hold.reached(1).await;
            app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
            app.merge(&number, json!({"greeting": "new"})).await;
            let saved = app.settings(&number).await;
            hold.release();
            saved
        };
        let (poll, saved) = tokio::join!(app.poll_qr(&number.session), recreation);
        assert_ne!(saved["wppApiKey"], json!(number.key));
        assert_eq!(app.settings(&number).await, saved, "{accepted_tokens:?}");
        assert_eq!(saved["wppAccountNumber"], json!(number.session));
        app.assert_served(&number, &[poll]);
        app.assert_stored_token_is_good(&number).await;
        assert_eq!(app.calls()["token"], 2);
    }
}

/// The holder was so slow that its lease ended, and another request refreshed the token.
#[tokio::test]
async fn a_late_token_replaces_nothing() {
    let (app, number) = app_for_a_crowd(AcceptedTokens::Unexpired).await;
    app.set_token_end(&number, -1).await;
    let hold = app.hold_one("rpc/wpp_save_token", Point::Before);
    let takeover = async {
        hold.reached(1).await;
        app.end_waits().await;
        let answer = app.check().await;
        app.assert_served(&number, &[answer]);
        let saved = app.settings(&number).await;
        hold.release();
        saved
    };
    let (late, saved) = tokio::join!(app.poll_qr(&number.session), takeover);
    app.assert_served(&number, &[late]);
    assert_eq!(app.settings(&number).await, saved);
    assert_eq!(app.calls()["token"], 2);
}
