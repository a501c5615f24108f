//! What can happen to a request that needs a new token: the functions' answers, and the calls that they made.

use std::collections::BTreeMap;

use local::clock;
use local::fault_injector::{Fault, Point};
use local::lambda::Options;
use local::platform::FieldValue;
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};

/// Starts an app with a number whose key is old, and whose refreshes do not have to wait. Its tokens are opaque, so their TTL is
/// the default of an hour, whatever expiry a test sets.
async fn start() -> (TestApp, Number) {
    let app = TestApp::start().await;
    app.platform.behave(|behavior| behavior.opaque_tokens = true);
    let number = app.settled_number().await;
    app.end_waits().await;
    (app, number)
}

async fn token(app: &TestApp, number: &Number) -> Value {
    app.settings(number).await["wppJwtToken"].clone()
}

/// Sends a poll that must return the QR. Returns the number of `/auth/token` calls that it made.
async fn served(app: &TestApp, number: &Number) -> u64 {
    app.forget_calls();
    app.assert_served(number, &[app.poll_qr(&number.session).await]);
    app.count("token")
}

/// Sends a poll that must fail with this code. Returns the number of `/auth/token` calls that it made.
async fn refused(app: &TestApp, number: &Number, status: u16, code: &str) -> u64 {
    app.forget_calls();
    app.poll_qr(&number.session).await.expect(status, code);
    app.count("token")
}

/// The token is valid for another half minute: whatever fails, it is used.
#[tokio::test]
async fn a_due_token_is_replaced_before_the_call() {
    let (app, number) = start().await;
    app.set_token_end(&number, 30).await;
    let old = token(&app, &number).await;
    for fault in [
        Fault::status(429),
        Fault::status(500),
        Fault::status(503),
        Fault::status(403),
        Fault::status(401),
        Fault::Html,
        Fault::Body("{}".to_owned()),
        Fault::NoHeaders,
        Fault::Drop,
    ] {
        for endpoint in ["token", "rpc/wpp_claim_refresh"] {
            app.end_waits().await;
            app.inject(endpoint, fault.clone());
            served(&app, &number).await;
            let requests = app.platform.requests();
            let mut qrs = requests.iter().filter(|call| call.endpoint == "qr");
            assert!(qrs.all(|call| json!(call.bearer) == old), "{endpoint}: {fault:?}");
            assert!(app.count(endpoint) >= 1, "{endpoint}: {fault:?}");
            app.clear_faults();
        }
    }
    app.end_waits().await;
    assert_eq!(served(&app, &number).await, 1);
    let requests = app.platform.requests();
    let [.., fetch, qr] = requests.as_slice() else { panic!("{requests:?}") };
    let new = token(&app, &number).await;
    assert_eq!((fetch.endpoint, qr.endpoint, json!(qr.bearer)), ("token", "qr", new.clone()));
    assert_ne!(new, old);
    assert_eq!(served(&app, &number).await, 0);
}

/// The claim, the fetch and the save, before the first call to the platform or after a rejected one.
#[tokio::test]
async fn a_refresh_costs_three_calls() {
    let (app, number) = start().await;
    let refresh = ["rpc/wpp_find_number", "rpc/wpp_claim_refresh", "rpc/wpp_save_token", "token"];
    let expected = |calls: &[&str], times: u64| {
        let calls = calls.iter().map(|endpoint| (*endpoint, times));
        json!(refresh.into_iter().map(|endpoint| (endpoint, 1)).chain(calls).collect::<BTreeMap<_, _>>())
    };
    for (function, calls) in [("wpp-qr", &["qr"][..]), ("wpp-status", &["status", "qr"])] {
        for rejected in [false, true] {
            let old = token(&app, &number).await;
            app.settle_tokens().await;
            if rejected {
                app.platform.forget_tokens();
            } else {
                app.set_token_end(&number, -1).await;
            }
            app.forget_calls();
            assert_eq!(app.ask(function, &number.session).await.status, 200);
            let expected = expected(calls, 1 + u64::from(rejected));
            assert_eq!(app.calls(), expected, "{function}, rejected: {rejected}");
            assert_ne!(token(&app, &number).await, old);
            // The first one may be a prefetch with the old token.
            for _ in 0..2 {
                assert_eq!(served(&app, &number).await, 0);
            }
            assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
        }
    }
    app.settle_tokens().await;
    app.inject("qr", Fault::status(401));
    assert_eq!(refused(&app, &number, 502, "token_rejected").await, 1);
    assert_eq!(app.calls(), expected(&["qr"], 2));
}

/// Another sandbox was faster: the row's newer token is used.
#[tokio::test]
async fn rejected_token_already_replaced_needs_no_refresh() {
    let (app, number) = start().await;
    app.platform.forget_tokens();
    let hold = app.hold_one("qr", Point::After);
    let slow = async {
        app.assert_served(&number, &[app.poll_qr(&number.session).await]);
    };
    let fast = async {
        hold.reached(1).await;
        app.check().await.expect(200, "qr_issued");
        hold.release();
    };
    tokio::join!(slow, fast);
    let calls = app.calls();
    assert_eq!((&calls["token"], &calls["rpc/wpp_claim_refresh"]), (&json!(1), &json!(2)), "{calls}");
}

#[tokio::test]
async fn rejected_key_is_not_retried_during_its_cooldown() {
    let (app, number) = start().await;
    app.platform.revoke_key(&number.key);
    app.set_token_end(&number, -1).await;
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 1);
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 0);
    let answer = app.poll_qr(&number.session).await;
    assert!(answer.text("error").contains("connect it again"), "{answer:?}");
    assert_eq!(answer.json["retryable"], false);
    app.end_waits().await;
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 1);
}

/// In its first minute, a refused key may not be active yet; later it is dead.
#[tokio::test]
async fn new_key_is_not_reported_as_rejected() {
    // Shorter than the pause before the second try.
    let app = TestApp::start_with(&[("REQUEST_BUDGET_MS", "1500")], Options::default()).await;
    app.platform.behave(|behavior| behavior.activate_after = 3);
    app.create(json!({})).await.expect(503, "api_key_not_active");
    let number = app.number_of(&app.platform.session_of(&app.school.id.to_string()).unwrap()).await;
    app.end_waits().await;
    let answer = app.poll_qr(&number.session).await.expect(503, "api_key_not_active");
    assert_eq!(answer.headers["retry-after"], "2");
    app.settle_keys().await;
    app.end_waits().await;
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 1);
    app.end_waits().await;
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

#[tokio::test]
async fn a_token_that_cannot_be_saved_is_used_once() {
    let (app, number) = start().await;
    app.set_token_end(&number, -1).await;
    let before = app.settings(&number).await;
    app.inject("rpc/wpp_save_token", Fault::status(500));
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(app.settings(&number).await, before);
    let logs = app.sandbox("wpp-qr").logs().await;
    let line: Value = serde_json::from_str(logs.lines().last().unwrap()).unwrap();
    assert_eq!((&line["token"], &line["level"]), (&json!("refreshed"), &json!("WARN")), "{line}");
    assert_eq!((&line["RefreshFailed"], line.get("TokenRefreshed")), (&json!(1), None), "{line}");

    app.clear_faults();
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(served(&app, &number).await, 0);
}

/// The work was done, but its answer was lost. A repeated call must not do it twice, and must not count it as a failure.
#[tokio::test]
async fn lost_answer_costs_only_a_retry() {
    let (app, number) = start().await;
    for (endpoint, tokens) in [("rpc/wpp_claim_refresh", 1), ("rpc/wpp_save_token", 1), ("token", 2)] {
        app.set_token_end(&number, -1).await;
        app.inject_times(endpoint, 1, Fault::LostAnswer);
        assert_eq!(served(&app, &number).await, tokens, "{endpoint}");
        assert_eq!(app.calls()[endpoint], 2, "{endpoint}");
        app.assert_stored_token_is_good(&number).await;
    }
    assert_eq!(app.sandbox("wpp-qr").logs().await.matches("WARN").count(), 0);
}

/// Others write here too. A value that cannot be a token counts as a missing token, and is replaced at once.
#[tokio::test]
async fn invalid_stored_token_is_replaced_at_once() {
    let (app, number) = start().await;
    for nonsense in [json!(7), json!(""), json!(null), json!({"a": 1}), json!(["t"]), json!("with\nbreak")] {
        app.merge(&number, json!({"wppJwtToken": nonsense})).await;
        assert_eq!(served(&app, &number).await, 1, "{nonsense}");
        assert_eq!(app.calls()["rpc/wpp_claim_refresh"], 1, "{nonsense}");
        assert_eq!(served(&app, &number).await, 0, "{nonsense}");
    }
}

/// The expiry comes from `expiresIn` and, if it can be read, `exp`.
#[tokio::test]
async fn a_new_token_is_stored_with_its_expiry() {
    let (app, number) = start().await;
    for (expires_in, exp, lifetime) in [
        (FieldValue::This(json!(50)), Some(3600), 50),
        (FieldValue::Nothing, Some(1800), 1800),
        (FieldValue::Truth, None, 3600),
    ] {
        app.platform.behave(|behavior| {
            behavior.opaque_tokens = exp.is_none();
            behavior.token_lifetime_s = exp.unwrap_or(3600);
            behavior.expires_in = expires_in;
        });
        app.set_token_end(&number, -1).await;
        let before = clock::unix_ms();
        assert_eq!(served(&app, &number).await, 1);
        let after = clock::unix_ms();
        let end = app.settings(&number).await["wppJwtExpiresAt"].as_i64().unwrap();
        // `exp` is in whole seconds.
        let possible = before + lifetime * 1000 - 1000..=after + lifetime * 1000;
        assert!(possible.contains(&end), "{lifetime} s: {end} is not in {possible:?}");
        assert_eq!(served(&app, &number).await, 0);
    }
}

/// The database's clock counts: here it is ten minutes ahead of the clocks of the functions and the platform.
#[tokio::test]
async fn clock_off_by_minutes_costs_at_most_one_refresh() {
    let (app, number) = start().await;
    let ahead = "create or replace function wpp_internal.unix_ms(at timestamptz) returns bigint
        language sql immutable set search_path = '' as
        $$ select floor(extract(epoch from at) * 1000)::bigint + 600000 $$;
        create or replace function wpp_internal.now_ms() returns bigint
        language sql volatile set search_path = '' as $$ select wpp_internal.unix_ms(clock_timestamp()) $$;";
    app.sql.batch_execute(ahead).await.unwrap();
    // Expired only by the database's clock.
    app.set_token_end(&number, 300).await;
    assert_eq!(served(&app, &number).await, 1);
    let end = app.settings(&number).await["wppJwtExpiresAt"].as_i64().unwrap();
    assert!(end > clock::unix_ms() + 4_000_000, "counted from another clock: {end}");
    assert_eq!(served(&app, &number).await, 0);
}

/// A platform may return the previous token again while it is valid.
#[tokio::test]
async fn same_token_returned_again_gets_a_new_expiry() {
    let (app, number) = start().await;
    app.set_token_end(&number, -1).await;
    let token = token(&app, &number).await;
    let again = json!({"token": token, "expiresIn": 3600}).to_string();
    app.inject("token", Fault::Body(again));
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(served(&app, &number).await, 0);
    let settings = app.settings(&number).await;
    assert_eq!(settings["wppJwtToken"], token);
    assert!(settings["wppJwtExpiresAt"].as_i64().unwrap() > clock::unix_ms() + 3_000_000, "{settings}");
}
