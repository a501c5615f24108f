//! Many requests, and many writers, at one row at once.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use futures_util::future::join_all;
use local::gate::Point;
use local::lambda::{Answer, Options};
use local::platform::{AcceptedTokens, RepeatedCreate};
use local::stage::{Line, Stage, until};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_postgres::types::Json;

const CROWD: usize = 25;

async fn stage_for_a_crowd(accepted_tokens: AcceptedTokens) -> (Stage, Line) {
    // Time enough for a busy machine.
    let env = [("REQUEST_BUDGET_MS", "29000"), ("UPSTREAM_TIMEOUT_MS", "29000")];
    let stage = Stage::start_with(&env, Options { concurrency: CROWD, ..Options::default() }).await;
    stage.world.platform.behave(|manners| manners.accepted_tokens = accepted_tokens);
    let line = stage.number().await;
    (stage, line)
}

/// 25 polls for the QR and 25 for the status, none of which goes on before all have read the row.
async fn crowd(stage: &Stage, line: &Line) -> Vec<Answer> {
    let hold = stage.world.supabase.gate.hold("rpc/wpp_find_number", Point::After);
    let qr = join_all((0..CROWD).map(|_| stage.poll_qr(&line.session)));
    let status = join_all((0..CROWD).map(|_| stage.post("wpp-status", json!({"force": true}))));
    let together = async {
        hold.reached(2 * CROWD).await;
        hold.release();
    };
    let (mut answers, status, ()) = tokio::join!(qr, status, together);
    answers.extend(status);
    answers
}

fn assert_served(stage: &Stage, line: &Line, answers: &[Answer]) {
    let qr = json!(stage.world.platform.qr_of(&line.session));
    for answer in answers {
        let field = if answer.json["status"].is_null() { "qr" } else { "qrcode" };
        assert_eq!((answer.status, &answer.json[field]), (200, &qr), "{answer:?}");
    }
}

/// All calls but the claims: how often a sandbox that waits looks again is a matter of time.
fn calls(stage: &Stage) -> Value {
    let mut calls = stage.calls();
    calls.as_object_mut().unwrap().remove("rpc/wpp_claim_refresh");
    calls
}

/// The token in the row is one that the platform takes.
async fn assert_stored_token_is_good(stage: &Stage, line: &Line) {
    let stored = stage.settings(line).await["wppJwtToken"].as_str().unwrap().to_owned();
    assert_eq!(stage.world.platform.tokens_of(&line.session).last(), Some(&stored));
}

#[tokio::test]
async fn fifty_requests_with_an_expired_token_fetch_one() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (stage, line) = stage_for_a_crowd(accepted_tokens).await;
        stage.set_token_end(&line, -3600).await;
        let answers = crowd(&stage, &line).await;
        assert_served(&stage, &line, &answers);
        let expected =
            json!({"rpc/wpp_find_number": 50, "rpc/wpp_save_token": 1, "token": 1, "qr": 50, "status": 25});
        assert_eq!(calls(&stage), expected, "{accepted_tokens:?}");
        assert_stored_token_is_good(&stage, &line).await;
    }
}

/// Every one of them is refused once, and served at the second attempt.
#[tokio::test]
async fn fifty_requests_with_a_refused_token_fetch_one() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (stage, line) = stage_for_a_crowd(accepted_tokens).await;
        stage.world.platform.forget_tokens();
        let answers = crowd(&stage, &line).await;
        assert_served(&stage, &line, &answers);
        let expected =
            json!({"rpc/wpp_find_number": 50, "rpc/wpp_save_token": 1, "token": 1, "qr": 100, "status": 50});
        assert_eq!(calls(&stage), expected, "{accepted_tokens:?}");
        assert_stored_token_is_good(&stage, &line).await;
    }
}

/// Where only the newest token is good, replacing one that serves breaks the calls that are under way with it; each heals.
#[tokio::test]
async fn fifty_requests_with_a_token_that_is_due_are_all_served_and_fetch_one_at_most() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (stage, line) = stage_for_a_crowd(accepted_tokens).await;
        // Farther off than any token lives, and so due.
        stage.set_token_end(&line, 3 * 24 * 3600).await;
        let old = stage.settings(&line).await["wppJwtToken"].clone();
        let answers = crowd(&stage, &line).await;
        assert_served(&stage, &line, &answers);
        assert!(calls(&stage)["token"].as_u64() <= Some(1), "{}", stage.calls());
        // On a busy machine the one who tried may have run out of its second: a later poll replaces the token.
        until(async || {
            stage.end_waits(&line).await;
            assert_served(&stage, &line, &[stage.poll_qr(&line.session).await]);
            stage.settings(&line).await["wppJwtToken"] != old
        })
        .await;
        assert_stored_token_is_good(&stage, &line).await;
    }
}

/// Each writer counts in a key of its own, as the webhook and other siblings do, until the token has rotated ten times.
#[tokio::test]
async fn fifty_writers_of_other_keys_lose_nothing_while_tokens_rotate() {
    const CONNECTIONS: usize = 10;
    let (stage, line) = stage_for_a_crowd(AcceptedTokens::Unexpired).await;
    let stop = watch::Sender::new(false);
    let connections = join_all((0..CONNECTIONS).map(|_| stage.world.sql())).await;
    let writers = connections.into_iter().enumerate().map(|(nth, sql)| {
        let (stop, id) = (stop.subscribe(), line.id);
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
            stage.set_token_end(&line, -1).await;
            let answers = join_all((0..5).map(|_| stage.poll_qr(&line.session))).await;
            assert_served(&stage, &line, &answers);
        }
        stop.send_replace(true);
    };
    let (counts, ()) = tokio::join!(join_all(writers), rotations);
    let settings = stage.settings(&line).await;
    for writer in 0..50 {
        assert_eq!(settings[format!("writer{writer}")], counts[writer % CONNECTIONS], "{writer}");
    }
    assert_eq!(stage.world.platform.tokens_issued(&line.key), 11);
    assert_stored_token_is_good(&stage, &line).await;
}

/// A writer has changed the row and not committed yet when the new token comes to be saved.
#[tokio::test]
async fn a_writer_in_the_middle_of_it_and_a_new_token_both_stand() {
    let (stage, line) = stage_for_a_crowd(AcceptedTokens::Unexpired).await;
    stage.set_token_end(&line, -1).await;
    let mut sibling = stage.world.sql().await.unwrap();
    let hold = stage.world.platform.gate.hold_one("token", Point::After);
    let writing = async {
        hold.reached(1).await;
        let writing = sibling.transaction().await.unwrap();
        let greet =
            r#"update messenger_integrations set settings = settings || '{"greeting": "new"}' where id = $1"#;
        writing.execute(greet, &[&line.id]).await.unwrap();
        hold.release();
        until(async || {
            let waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock')";
            stage.sql.query_one(waiting, &[]).await.unwrap().get(0)
        })
        .await;
        writing.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(stage.poll_qr(&line.session), writing);
    assert_served(&stage, &line, &[answer]);
    assert_eq!(stage.settings(&line).await["greeting"], "new");
    assert_stored_token_is_good(&stage, &line).await;
}

/// A poll has got a token for the old key when `force_recreate` replaces the key, to the end and with a token of its own.
#[tokio::test]
async fn what_a_recreation_saved_stands_against_a_slow_poll_with_the_old_key() {
    for accepted_tokens in [AcceptedTokens::Unexpired, AcceptedTokens::Newest] {
        let (stage, line) = stage_for_a_crowd(accepted_tokens).await;
        stage.world.platform.behave(|manners| manners.repeated_create = RepeatedCreate::NewKey);
        stage.merge(&line, json!({"greeting": "old", "wppJwtExpiresAt": 1000})).await;
        let hold = stage.world.platform.gate.hold_one("token", Point::After);
        let recreation = async {
            hold.reached(1).await;
            let answer = stage.post("wpp-create", json!({"force_recreate": true})).await;
            assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
            stage.merge(&line, json!({"greeting": "new"})).await;
            let saved = stage.settings(&line).await;
            hold.release();
            saved
        };
        let (poll, saved) = tokio::join!(stage.poll_qr(&line.session), recreation);
        assert_ne!(saved["wppApiKey"], json!(line.key));
        assert_eq!(stage.settings(&line).await, saved, "{accepted_tokens:?}");
        let qr = stage.world.platform.qr_of(saved["wppAccountNumber"].as_str().unwrap());
        assert_eq!((poll.status, &poll.json["qr"]), (200, &json!(qr)), "{poll:?}");
        assert_eq!(stage.calls()["token"], 2);
    }
}

/// The holder was so slow that its lease ended, and another request did its work.
#[tokio::test]
async fn a_token_that_arrives_after_its_lease_was_taken_over_replaces_nothing() {
    let (stage, line) = stage_for_a_crowd(AcceptedTokens::Unexpired).await;
    stage.set_token_end(&line, -1).await;
    let hold = stage.world.supabase.gate.hold_one("rpc/wpp_save_token", Point::Before);
    let takeover = async {
        hold.reached(1).await;
        stage.end_waits(&line).await;
        let answer = stage.post("wpp-status", json!({"force": true})).await;
        assert_served(&stage, &line, &[answer]);
        let saved = stage.settings(&line).await;
        hold.release();
        saved
    };
    let (late, saved) = tokio::join!(stage.poll_qr(&line.session), takeover);
    assert_served(&stage, &line, &[late]);
    assert_eq!(stage.settings(&line).await, saved);
    assert_eq!(stage.calls()["token"], 2);
}

/// A poll is about to fetch a token for the old key when that is replaced, and dies. What the platform then says of the old
/// key is no reason to tell anybody to create the number again: it has just been.
#[tokio::test]
async fn a_poll_whose_key_was_replaced_meanwhile_goes_on_with_the_new_one() {
    let (stage, line) = stage_for_a_crowd(AcceptedTokens::Unexpired).await;
    stage.world.platform.behave(|manners| manners.repeated_create = RepeatedCreate::NewKey);
    stage.settle_keys().await;
    stage.set_token_end(&line, -1).await;
    let hold = stage.world.platform.gate.hold_one("token", Point::Before);
    let recreation = async {
        hold.reached(1).await;
        let answer = stage.post("wpp-create", json!({"force_recreate": true})).await;
        assert_eq!(answer.json["status"], "qr_issued", "{answer:?}");
        hold.release();
    };
    let (poll, ()) = tokio::join!(stage.poll_qr(&line.session), recreation);
    assert_served(&stage, &line, &[poll]);
    assert_stored_token_is_good(&stage, &line).await;
}
