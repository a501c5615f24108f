use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::clock::UnixMs;
use crate::error::AuthError;
use crate::http::auth::Caller;
use crate::http::auth::testing::{Answer, NOW, Project, Signer, config, secrets, verifier};

/// The intended limits, written as numbers instead of the code's constants.
const FRESH_FOR: Duration = Duration::from_secs(600);
const REFETCH_INTERVAL: Duration = Duration::from_secs(30);
const FIRST_FETCH_INTERVAL: Duration = Duration::from_secs(1);
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_LIMIT: usize = 64 * 1024;

const MOMENT: Duration = Duration::from_millis(1);

fn later(by: Duration) -> UnixMs {
    NOW.plus(by)
}

impl Project {
    /// Signs a token that outlives every test.
    fn token_of(&self, signer: &Signer) -> String {
        signer.token(&self.claims(json!({"exp": 4_000_000_000_u64})))
    }

    /// Signs a token whose key id the project has never had.
    fn made_up(&self, kid: &str) -> String {
        let header = json!({"alg": "ES256", "kid": kid});
        self.es.token_with(&header, &self.claims(json!({"exp": 4_000_000_000_u64})))
    }

    async fn outcomes(self: &Arc<Self>, tokens: Vec<String>) -> Vec<Result<Caller, AuthError>> {
        let mut calls = JoinSet::new();
        for token in tokens {
            let project = Arc::clone(self);
            calls.spawn(async move { project.verify(&token, NOW).await });
        }
        calls.join_all().await
    }
}

#[tokio::test]
async fn a_known_key_costs_no_call_while_the_set_is_young() {
    let project = Project::start().await;
    let token = project.token_of(&project.es);
    for age in [Duration::ZERO, MOMENT, FRESH_FOR / 2, FRESH_FOR - MOMENT] {
        assert!(project.verify(&token, later(age)).await.is_ok());
        assert_eq!(project.server.fetches(), 1);
    }
    assert!(project.verify(&token, later(FRESH_FOR)).await.is_ok());
    assert_eq!(project.server.fetches(), 2);
}

#[tokio::test]
async fn legacy_tokens_cost_no_call_at_all() {
    let project = Project::start().await;
    assert!(project.verify(&project.token_of(&project.hs), NOW).await.is_ok());
    assert_eq!(project.server.fetches(), 0);
}

#[tokio::test]
async fn a_hundred_first_requests_at_once_fetch_once() {
    let project = Arc::new(Project::start().await);
    let outcomes = project.outcomes(vec![project.token_of(&project.es); 100]).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 100);
    assert_eq!(project.server.fetches(), 1);
}

#[tokio::test]
async fn a_hundred_first_requests_at_once_share_one_failure() {
    let project = Arc::new(Project::start().await);
    project.server.answer(Answer::Reply(500, String::new()));
    let outcomes = project.outcomes(vec![project.token_of(&project.es); 100]).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Err(AuthError::KeysUnavailable)));
    assert_eq!(project.server.fetches(), 1);
}

#[tokio::test]
async fn a_hundred_first_requests_with_an_unknown_key_fetch_once() {
    let project = Arc::new(Project::start().await);
    let outcomes = project.outcomes(vec![project.made_up("unknown"); 100]).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Err(AuthError::UnknownKey)));
    assert_eq!(project.server.fetches(), 1);
}

#[tokio::test]
async fn a_thousand_made_up_key_ids_cost_one_fetch_in_30_s() {
    let project = Project::start().await;
    assert!(project.verify(&project.token_of(&project.es), NOW).await.is_ok());
    for (age, fetches) in [
        (Duration::ZERO, 2),
        (REFETCH_INTERVAL - MOMENT, 2),
        (REFETCH_INTERVAL, 3),
        (REFETCH_INTERVAL * 2 - MOMENT, 3),
        (REFETCH_INTERVAL * 2, 4),
    ] {
        for number in 0..200 {
            let token = project.made_up(&format!("{age:?} {number}"));
            assert_eq!(project.verify(&token, later(age)).await, Err(AuthError::UnknownKey));
        }
        assert_eq!(project.server.fetches(), fetches, "{age:?}");
    }
}

/// A key signs before the project publishes it, and other keys are requested in between.
#[tokio::test]
async fn a_new_key_is_taken_30_s_after_it_is_shown() {
    let project = Project::start().await;
    let new = Signer::es256("new");
    let token = project.token_of(&new);
    for (age, fetches) in [(Duration::ZERO, 1), (MOMENT, 2)] {
        assert_eq!(project.verify(&token, later(age)).await, Err(AuthError::UnknownKey));
        assert_eq!(project.server.fetches(), fetches, "{age:?}");
    }
    project.server.show(&[project.es.jwk(), new.jwk()]);
    let last = REFETCH_INTERVAL + MOMENT;
    for age in [MOMENT * 2, REFETCH_INTERVAL, last - MOMENT] {
        assert_eq!(project.verify(&project.made_up("another"), later(age)).await, Err(AuthError::UnknownKey));
        assert_eq!(project.verify(&token, later(age)).await, Err(AuthError::UnknownKey), "{age:?}");
    }
    assert!(project.verify(&token, later(last)).await.is_ok());
    assert_eq!(project.server.fetches(), 3);
}

#[tokio::test]
async fn a_404_is_an_empty_set_while_there_are_no_keys() {
    let project = Project::start().await;
    let token = project.token_of(&project.es);
    project.server.answer(Answer::Reply(404, "404 page not found".to_owned()));
    for age in [Duration::ZERO, MOMENT, REFETCH_INTERVAL, REFETCH_INTERVAL * 50] {
        assert_eq!(project.verify(&token, later(age)).await, Err(AuthError::UnknownKey), "{age:?}");
    }
    assert!(project.verify(&project.token_of(&project.hs), NOW).await.is_ok());
    project.server.show(&[project.es.jwk()]);
    assert!(project.verify(&token, later(REFETCH_INTERVAL * 51)).await.is_ok());
}

#[tokio::test]
async fn jwks_404_or_an_empty_set_keeps_the_known_keys() {
    for (status, body) in [(404, r#"{"message":"no Route matched"}"#), (200, r#"{"keys":[]}"#)] {
        let project = Project::start().await;
        let token = project.token_of(&project.es);
        assert!(project.verify(&token, NOW).await.is_ok());
        project.server.answer(Answer::Reply(status, body.to_owned()));
        let day = later(Duration::from_secs(86_400));
        assert!(project.verify(&token, day).await.is_ok());
        assert_eq!(project.server.fetches(), 2);
        assert_eq!(project.verify(&project.made_up("new"), day).await, Err(AuthError::KeysUnavailable));
    }
}

#[tokio::test]
async fn the_largest_set_that_is_read_has_64_kib() {
    for (length, is_read) in [(BODY_LIMIT, true), (BODY_LIMIT + 1, false)] {
        let project = Project::start().await;
        let set = json!({"keys": [project.es.jwk()]}).to_string();
        let padding = " ".repeat(length - set.len());
        project.server.answer(Answer::Reply(200, set + &padding));
        let verdict = project.verify(&project.token_of(&project.es), NOW).await;
        assert_eq!(verdict.is_ok(), is_read, "{length}");
    }
}

#[tokio::test]
async fn new_key_replaces_the_old_after_one_refetch() {
    let project = Arc::new(Project::start().await);
    let old = project.token_of(&project.es);
    assert!(project.verify(&old, NOW).await.is_ok());
    let new = Signer::es256("new");
    project.server.show(&[new.jwk()]);

    let outcomes = project.outcomes(vec![project.token_of(&new); 100]).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 100);
    assert_eq!(project.server.fetches(), 2);
    assert_eq!(project.verify(&old, NOW).await, Err(AuthError::UnknownKey));
    assert_eq!(project.server.fetches(), 2);
}

#[tokio::test]
async fn old_key_set_serves_during_an_outage() {
    let project = Project::start().await;
    let token = project.token_of(&project.es);
    assert!(project.verify(&token, NOW).await.is_ok());
    project.server.answer(Answer::Reply(500, "down".to_owned()));
    let hour = Duration::from_secs(3600);
    for (age, fetches) in [
        (hour, 2),
        (hour, 2),
        (hour + REFETCH_INTERVAL - MOMENT, 2),
        (hour + REFETCH_INTERVAL, 3),
        (hour * 24, 4),
    ] {
        assert!(project.verify(&token, later(age)).await.is_ok());
        assert_eq!(project.server.fetches(), fetches, "{age:?}");
    }
    project.server.show(&[project.es.jwk()]);
    let after = hour * 24 + REFETCH_INTERVAL;
    for age in [after, after + FRESH_FOR - MOMENT] {
        assert!(project.verify(&token, later(age)).await.is_ok());
        assert_eq!(project.server.fetches(), 5, "{age:?}");
    }
}

#[tokio::test]
async fn an_outage_without_keys_is_a_503_within_a_second() {
    let project = Project::start().await;
    let token = project.token_of(&project.es);
    let mut now = NOW;
    for (status, body) in [
        (500, ""),
        (401, r#"{"message": "No API key found in request"}"#),
        (403, "<!DOCTYPE html>"),
        (201, r#"{"keys": []}"#),
        (302, ""),
        (307, ""),
        (204, ""),
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (200, r#"{"keys": {}}"#),
        (200, r#"{"keys": [}"#),
    ] {
        project.server.answer(Answer::Reply(status, body.to_owned()));
        let fetches = project.server.fetches();
        // A request within a second gets the same answer without a fetch.
        for at in [now, now, now.plus(FIRST_FETCH_INTERVAL - MOMENT)] {
            let verdict = project.verify(&token, at).await;
            assert_eq!(verdict, Err(AuthError::KeysUnavailable), "{status}");
        }
        assert_eq!(project.server.fetches(), fetches + 1, "{status}");
        now = now.plus(FIRST_FETCH_INTERVAL);
    }
    project.server.show(&[project.es.jwk()]);
    assert!(project.verify(&token, now).await.is_ok());
    // The set is known, so a missing key causes a fetch at once.
    assert_eq!(project.verify(&project.made_up("another"), now).await, Err(AuthError::UnknownKey));
    assert_eq!(project.server.fetches(), 15);
}

/// The keys may have been rotated while they cannot be fetched. A user must not be refused because of that.
#[tokio::test]
async fn failed_jwks_makes_keys_unavailable() {
    let project = Project::start().await;
    assert!(project.verify(&project.token_of(&project.es), NOW).await.is_ok());
    project.server.answer(Answer::Reply(500, String::new()));
    let new = Signer::es256("new");
    let (token, hour) = (project.token_of(&new), later(Duration::from_secs(3600)));
    for now in [hour, hour, hour.plus(MOMENT)] {
        assert_eq!(project.verify(&token, now).await, Err(AuthError::KeysUnavailable));
    }
    assert_eq!(project.server.fetches(), 2);
    project.server.show(&[new.jwk()]);
    assert!(project.verify(&token, hour.plus(REFETCH_INTERVAL)).await.is_ok());
}

#[tokio::test]
async fn a_refused_connection_leaves_the_keys_unavailable() {
    let project = Project::start().await;
    let closed = "http://127.0.0.1:1";
    let config = config(closed);
    let verifier = verifier(&config, &secrets());
    let header = format!("Bearer {}", project.token_of(&project.es));
    assert_eq!(verifier.verify(Some(&header), NOW).await, Err(AuthError::KeysUnavailable));
}

#[tokio::test(start_paused = true)]
async fn silent_server_times_out_after_5_s() {
    let project = Project::start().await;
    project.server.answer(Answer::Silence);
    let token = project.token_of(&project.es);
    let early = tokio::time::timeout(FETCH_TIMEOUT - MOMENT, project.verify(&token, NOW)).await;
    assert!(early.is_err());
    let late = tokio::time::timeout(FETCH_TIMEOUT + MOMENT, project.verify(&token, NOW)).await;
    assert_eq!(late, Ok(Err(AuthError::KeysUnavailable)));
}

#[tokio::test]
async fn a_known_key_does_not_wait_for_an_unknown_one() {
    let project = Arc::new(Project::start().await);
    let known = project.token_of(&project.es);
    assert!(project.verify(&known, NOW).await.is_ok());
    project.server.answer(Answer::Silence);
    let (waiting, unknown) = (Arc::clone(&project), project.made_up("unknown"));
    let waiter = tokio::spawn(async move { waiting.verify(&unknown, NOW).await });
    project.server.has_seen(2).await;
    for now in [NOW, later(FRESH_FOR), later(FRESH_FOR + REFETCH_INTERVAL)] {
        let verdict = tokio::time::timeout(FETCH_TIMEOUT / 10, project.verify(&known, now)).await;
        assert!(matches!(verdict, Ok(Ok(_))), "{now:?}");
    }
    assert!(!waiter.is_finished());
    waiter.abort();
}

#[tokio::test]
async fn an_abandoned_request_leaves_the_fetch_to_the_next() {
    let project = Project::start().await;
    let token = project.token_of(&project.es);
    project.server.answer(Answer::Silence);
    tokio::select! {
        _ = project.verify(&token, NOW) => panic!("the server is silent"),
        () = project.server.has_seen(1) => {}
    }
    project.server.show(&[project.es.jwk()]);
    assert!(project.verify(&token, NOW).await.is_ok());
}

#[tokio::test]
async fn closed_connection_is_retried_once() {
    let project = Project::start().await;
    project.server.answer(Answer::HangUpOnce(vec![project.es.jwk()]));
    assert!(project.verify(&project.token_of(&project.es), NOW).await.is_ok());
    assert_eq!(project.server.fetches(), 2);
}

#[tokio::test]
async fn clock_set_back_far_refetches_the_key_set() {
    let project = Project::start().await;
    let token = project.token_of(&project.es);
    assert!(project.verify(&token, NOW).await.is_ok());
    let second = Duration::from_secs(1);
    for number in 0..10 {
        let back = NOW.minus(second * number);
        assert!(project.verify(&token, back).await.is_ok());
        assert!(project.verify(&project.made_up(&format!("{number}")), back).await.is_err());
    }
    assert_eq!(project.server.fetches(), 2);
    let long_ago = NOW.minus(Duration::from_secs(365 * 86_400));
    assert!(project.verify(&token, long_ago).await.is_ok());
    assert_eq!(project.server.fetches(), 3);
}

#[tokio::test]
async fn a_token_without_key_id_needs_a_set_of_one_fitting_key() {
    let project = Project::start().await;
    let nameless = Signer::rs256("rs").named(None);
    assert!(project.verify(&project.token_of(&nameless), NOW).await.is_ok());

    project.server.show(&[Signer::es256("a").jwk(), Signer::es256("b").jwk()]);
    let _ = project.verify(&project.made_up("c"), NOW).await;
    let header = json!({"alg": "ES256"});
    let token = project.es.token_with(&header, &project.claims(json!({})));
    assert_eq!(project.verify(&token, NOW).await, Err(AuthError::UnknownKey));
    assert_eq!(project.verify(&project.token_of(&nameless), NOW).await, Err(AuthError::UnknownKey));
    assert_eq!(project.server.fetches(), 2);
}

#[tokio::test]
async fn keys_with_one_id_differ_by_algorithm() {
    let project = Project::start().await;
    let (es, rs) = (Signer::es256("same"), Signer::rs256("same"));
    project.server.show(&[es.jwk(), rs.jwk()]);
    for signer in [&es, &rs] {
        assert!(project.verify(&project.token_of(signer), NOW).await.is_ok());
    }
}
