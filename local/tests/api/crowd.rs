//! Many requests, and many writers, at one row at once.

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
    // Time enough for a busy machine.
    let env = [("REQUEST_BUDGET_MS", "29000"), ("UPSTREAM_TIMEOUT_MS", "29000")];
    let app = TestApp::start_with(&env, Options { concurrency: CROWD, ..Options::default() }).await;
    app.platform.behave(|behavior| behavior.accepted_tokens = accepted_tokens);
    let number = app.number().await;
    (app, number)
}

/// 25 polls for the QR and 25 for the status, none of which goes on before all have read the row.
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

fn assert_served(app: &TestApp, number: &Number, answers: &[Answer]) {
    let qr = json!(app.platform.qr_of(&number.session));
    for answer in answers {
        let field = if answer.json["status"].is_null() { "qr" } else { "qrcode" };
        assert_eq!((answer.status, &answer.json[field]), (200, &qr), "{answer:?}");
    }
}

/// All calls but the claims: how often a waiting sandbox asks again is a matter of time.
fn calls(app: &TestApp) -> Value {
    let mut calls = app.calls();
    calls.as_object_mut().unwrap().remove("rpc/wpp_claim_refresh");
    calls
}

/// The token in the row is one that the platform takes.
async fn assert_stored_token_is_good(app: &TestApp, number: &Number) {
    let stored = app.settings(number).await["wppJwtToken"].as_str().unwrap().to_owned();
    assert_eq!(app.platform.tokens_of(&number.session).last(), Some(&stored));
}

/// Every one of them is refused once, and served at the second attempt.
#[tokio::test]
async fn fifty_requests_with_a_refused_token_fetch_one() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (app, number) = app_for_a_crowd(accepted_tokens).await;
        app.platform.forget_tokens();
        let answers = crowd(&app, &number).await;
        assert_served(&app, &number, &answers);
        let expected =
            json!({"rpc/wpp_find_number": 50, "rpc/wpp_save_token": 1, "token": 1, "qr": 100, "status": 50});
        assert_eq!(calls(&app), expected, "{accepted_tokens:?}");
        assert_stored_token_is_good(&app, &number).await;
    }
}

/// Where only the newest token is good, replacing one that serves breaks the calls that are under way with it; each heals.
#[tokio::test]
async fn fifty_requests_with_a_token_that_is_due_are_all_served_and_fetch_one_at_most() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (app, number) = app_for_a_crowd(accepted_tokens).await;
        // Farther off than any token lives, and so due.
        app.set_token_end(&number, 3 * 24 * 3600).await;
        let old = app.settings(&number).await["wppJwtToken"].clone();
        let answers = crowd(&app, &number).await;
        assert_served(&app, &number, &answers);
        let calls = app.calls();
        assert!(calls["rpc/wpp_claim_refresh"].as_u64() >= Some(1), "nobody has tried: {calls}");
        assert!(calls["token"].as_u64() <= Some(1), "{calls}");
        // On a busy machine the one that tried may have run out of its second: a later poll replaces the token.
        until(async || {
            app.end_waits().await;
            assert_served(&app, &number, &[app.poll_qr(&number.session).await]);
            app.settings(&number).await["wppJwtToken"] != old
        })
        .await;
        assert_stored_token_is_good(&app, &number).await;
    }
}

/// Each writer counts in a key of its own, as the webhook and other siblings do, until the token has rotated ten times.
#[tokio::test]
async fn fifty_writers_of_other_keys_lose_nothing_while_tokens_rotate() {
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
            assert_served(&app, &number, &answers);
        }
        stop.send_replace(true);
    };
    let (counts, ()) = tokio::join!(join_all(writers), rotations);
    let settings = app.settings(&number).await;
    for writer in 0..50 {
        assert_eq!(settings[format!("writer{writer}")], counts[writer % CONNECTIONS], "{writer}");
    }
    assert_eq!(app.platform.tokens_issued(&number.key), 11);
    assert_stored_token_is_good(&app, &number).await;
}

/// A writer has changed the row and not committed yet when the new token comes to be saved.
#[tokio::test]
async fn a_writer_in_the_middle_of_it_and_a_new_token_both_stand() {
    let (app, number) = app_for_a_crowd(AcceptedTokens::Unexpired).await;
    app.set_token_end(&number, -1).await;
    let mut sibling = app.sql().await.unwrap();
    let hold = app.hold_one("token", Point::After);
    let writing = async {
        hold.reached(1).await;
        let writing = sibling.transaction().await.unwrap();
        let greet =
            r#"update messenger_integrations set settings = settings || '{"greeting": "new"}' where id = $1"#;
        writing.execute(greet, &[&number.id]).await.unwrap();
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
    assert_served(&app, &number, &[answer]);
    assert_eq!(app.settings(&number).await["greeting"], "new");
    assert_stored_token_is_good(&app, &number).await;
}

/// A poll has got a token for the old key when `force_recreate` replaces the key, to the end and with a token of its own.
#[tokio::test]
async fn what_a_recreation_saved_stands_against_a_slow_poll_with_the_old_key() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (app, number) = app_for_a_crowd(accepted_tokens).await;
        app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
        app.merge(&number, json!({"greeting": "old", "wppJwtExpiresAt": 1000})).await;
        let hold = app.hold_one("token", Point::After);
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
        let qr = app.platform.qr_of(saved["wppAccountNumber"].as_str().unwrap());
        assert_eq!((poll.status, &poll.json["qr"]), (200, &json!(qr)), "{poll:?}");
        assert_eq!(app.calls()["token"], 2);
    }
}

/// The holder was so slow that its lease ended, and another request did its work.
#[tokio::test]
async fn a_token_that_arrives_after_its_lease_was_taken_over_replaces_nothing() {
    let (app, number) = app_for_a_crowd(AcceptedTokens::Unexpired).await;
    app.set_token_end(&number, -1).await;
    let hold = app.hold_one("rpc/wpp_save_token", Point::Before);
    let takeover = async {
        hold.reached(1).await;
        app.end_waits().await;
        let answer = app.check().await;
        assert_served(&app, &number, &[answer]);
        let saved = app.settings(&number).await;
        hold.release();
        saved
    };
    let (late, saved) = tokio::join!(app.poll_qr(&number.session), takeover);
    assert_served(&app, &number, &[late]);
    assert_eq!(app.settings(&number).await, saved);
    assert_eq!(app.calls()["token"], 2);
}

/// A poll is about to fetch a token for the old key when that is replaced, and dies. What the platform then says of the old
/// key is no reason for a hint to create the number again: it has just been.
#[tokio::test]
async fn a_poll_whose_key_was_replaced_meanwhile_goes_on_with_the_new_one() {
    let (app, number) = app_for_a_crowd(AcceptedTokens::Unexpired).await;
    app.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewKey);
    app.settle_keys().await;
    app.set_token_end(&number, -1).await;
    let hold = app.hold_one("token", Point::Before);
    let recreation = async {
        hold.reached(1).await;
        app.create(json!({"force_recreate": true})).await.expect(200, "qr_issued");
        hold.release();
    };
    let (poll, ()) = tokio::join!(app.poll_qr(&number.session), recreation);
    assert_served(&app, &number, &[poll]);
    assert_stored_token_is_good(&app, &number).await;
}
