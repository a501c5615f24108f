//! What can happen to a request that needs a new token, by the functions' answers and the calls that they made.

use std::collections::BTreeMap;

use local::clock;
use local::fault_injector::{Fault, Point};
use local::lambda::Options;
use local::platform::FieldValue;
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};

/// A number whose key is old and whose refreshes have nothing to wait for. Its tokens are opaque, so that their lifetime
/// is the usual hour, wherever a test puts their end.
async fn number(app: &TestApp) -> Number {
    app.platform.behave(|behavior| behavior.opaque_tokens = true);
    let number = app.number().await;
    settle(app, &number).await;
    number
}

async fn settle(app: &TestApp, number: &Number) {
    let old = "update wpp_numbers set credentials_saved_at = credentials_saved_at - interval '1 hour' where integration_id = $1";
    app.sql.execute(old, &[&number.id]).await.unwrap();
    app.end_waits().await;
    app.forget_calls();
}

/// A poll, with the `/auth/token` calls that it made.
async fn poll(app: &TestApp, number: &Number) -> (u16, Value, u64) {
    app.forget_calls();
    let answer = app.poll_qr(&number.session).await;
    (answer.status, answer.json, app.count("token"))
}

/// A poll that must bring the QR.
async fn served(app: &TestApp, number: &Number) -> u64 {
    let (status, body, tokens) = poll(app, number).await;
    let qr = app.platform.qr_of(&number.session);
    assert_eq!((status, &body["qr"]), (200, &json!(qr)), "{body}");
    tokens
}

/// A poll that must fail with this code.
async fn refused(app: &TestApp, number: &Number, status: u16, code: &str) -> u64 {
    let (given, body, tokens) = poll(app, number).await;
    assert_eq!((given, &body["code"]), (status, &json!(code)), "{body}");
    tokens
}

#[tokio::test]
async fn a_token_that_is_due_is_replaced_before_the_call() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.set_token_end(&number, 30).await;
    let old = app.settings(&number).await["wppJwtToken"].clone();
    assert_eq!(served(&app, &number).await, 1);
    let requests = app.platform.requests();
    let [.., token, qr] = requests.as_slice() else { panic!("{requests:?}") };
    let new = app.settings(&number).await["wppJwtToken"].clone();
    assert_eq!((token.endpoint, qr.endpoint, json!(qr.bearer)), ("token", "qr", new.clone()));
    assert_ne!(new, old);
    assert_eq!(served(&app, &number).await, 0);
}

/// The token still has half a minute: whatever is wrong, it serves.
#[tokio::test]
async fn a_token_that_is_due_serves_whatever_becomes_of_its_refresh() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.set_token_end(&number, 30).await;
    let old = app.settings(&number).await["wppJwtToken"].clone();
    for fault in [
        Fault::status(429),
        Fault::status(500),
        Fault::status(503),
        Fault::status(403),
        Fault::status(401),
        Fault::Html,
        Fault::Body("{}".to_owned()),
        Fault::SlowHeaders,
        Fault::Drop,
    ] {
        for endpoint in ["token", "rpc/wpp_claim_refresh"] {
            app.end_waits().await;
            let stack = &app.stack;
            let faults = if endpoint == "token" { &stack.platform.faults } else { &stack.supabase.faults };
            faults.inject(endpoint, fault.clone());
            served(&app, &number).await;
            assert_eq!(stack.platform.requests().last().map(|call| json!(call.bearer)), Some(old.clone()));
            assert!(app.calls()[endpoint].as_u64() >= Some(1), "{endpoint}: {fault:?}");
            faults.clear();
        }
    }
}

/// The right, the token and the saving, before the first call to the platform or after one that was rejected.
#[tokio::test]
async fn a_refresh_costs_three_calls_and_a_rejected_token_its_own() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    let refresh = ["rpc/wpp_find_number", "rpc/wpp_claim_refresh", "rpc/wpp_save_token", "token"];
    for (function, calls) in [("wpp-qr", &["qr"][..]), ("wpp-status", &["status", "qr"])] {
        for rejected in [false, true] {
            if rejected {
                app.platform.forget_tokens();
            } else {
                app.set_token_end(&number, -1).await;
            }
            app.forget_calls();
            let body = json!({"session": number.session, "force": true});
            assert_eq!(app.post(function, body).await.status, 200);
            let mut expected = json!(BTreeMap::from(refresh.map(|endpoint| (endpoint, 1))));
            calls.iter().for_each(|endpoint| expected[*endpoint] = json!(1 + u8::from(rejected)));
            assert_eq!(app.calls(), expected, "{function}, rejected: {rejected}");
        }
    }
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once_and_then_the_answer_is_an_error() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    let old = app.settings(&number).await["wppJwtToken"].clone();
    app.platform.forget_tokens();
    assert_eq!(served(&app, &number).await, 1);
    let expected = json!({"rpc/wpp_find_number": 1, "rpc/wpp_claim_refresh": 1, "rpc/wpp_save_token": 1, "token": 1, "qr": 2});
    assert_eq!(app.calls(), expected);
    assert_ne!(app.settings(&number).await["wppJwtToken"], old);
    assert_eq!(served(&app, &number).await, 0);
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));

    app.inject("qr", Fault::status(401));
    assert_eq!(refused(&app, &number, 502, "token_rejected").await, 1);
    assert_eq!(app.calls(), expected);
}

/// Another sandbox was faster: the row's newer token is taken.
#[tokio::test]
async fn a_rejected_token_that_somebody_has_replaced_costs_no_refresh() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.platform.forget_tokens();
    let hold = app.hold_one("qr", Point::After);
    let slow = async {
        let answer = app.poll_qr(&number.session).await;
        assert_eq!(answer.json["qr"], json!(app.platform.qr_of(&number.session)), "{answer:?}");
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
async fn a_dead_key_is_answered_with_a_hint_and_not_tried_again_until_it_has_cooled_down() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.platform.revoke_key(&number.key);
    app.set_token_end(&number, -1).await;
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 1);
    let (_, body, tokens) = poll(&app, &number).await;
    assert_eq!((&body["code"], tokens), (&json!("api_key_rejected"), 0));
    assert!(body["hint"].as_str().unwrap().contains("connect it again"), "{body}");
    assert_eq!(body["retryable"], false);
    app.end_waits().await;
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 1);
}

/// Within the first minute a refused key may be one that is not active yet; later it is dead.
#[tokio::test]
async fn a_key_that_was_just_created_is_not_called_dead() {
    let app = TestApp::start_with(&[("QR_WAIT_MS", "300")], Options::default()).await;
    app.platform.behave(|behavior| behavior.activate_after = 3);
    let created = app.create(json!({})).await.expect(200, "starting");
    let id = "select integration_id from wpp_creations";
    let number = Number {
        id: app.sql.query_one(id, &[]).await.unwrap().get(0),
        session: created.text("session").to_owned(),
        key: String::new(),
    };
    app.end_waits().await;
    let answer = app.poll_qr(&number.session).await.expect(503, "api_key_not_active");
    assert_eq!(answer.headers["retry-after"], "2");
    settle(&app, &number).await;
    assert_eq!(refused(&app, &number, 409, "api_key_rejected").await, 1);
    settle(&app, &number).await;
    let (status, body, _) = poll(&app, &number).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn a_token_that_cannot_be_saved_serves_and_the_next_request_saves_another() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.set_token_end(&number, -1).await;
    let before = app.settings(&number).await;
    app.inject("rpc/wpp_save_token", Fault::status(500));
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(app.settings(&number).await, before);
    let logs = app.sandbox("wpp-qr").logs().await;
    assert_eq!(logs.matches("SaveFailed").count(), 1, "{logs}");

    app.clear_faults();
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(served(&app, &number).await, 0);
}

/// The work was done and nobody heard of it: repeating it must not do it twice, nor take it for a failure.
#[tokio::test]
async fn a_lost_answer_costs_a_repetition_and_nothing_else() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    for (endpoint, tokens) in [("rpc/wpp_claim_refresh", 1), ("rpc/wpp_save_token", 1), ("token", 2)] {
        app.set_token_end(&number, -1).await;
        let stack = &app.stack;
        let faults = if endpoint == "token" { &stack.platform.faults } else { &stack.supabase.faults };
        faults.inject_times(endpoint, 1, Fault::LostAnswer);
        assert_eq!(served(&app, &number).await, tokens, "{endpoint}");
        assert_eq!(app.calls()[endpoint], 2, "{endpoint}");
        let stored = app.settings(&number).await["wppJwtToken"].clone();
        assert_eq!(app.platform.tokens_of(&number.session).last().map(|token| json!(token)), Some(stored));
    }
    assert_eq!(app.sandbox("wpp-qr").logs().await.matches("WARN").count(), 0);
}

/// Others write here too: what cannot be a token is none, and is replaced at once.
#[tokio::test]
async fn a_stored_token_that_makes_no_sense_is_replaced_at_once() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    for nonsense in [json!(7), json!(""), json!(null), json!({"a": 1}), json!(["t"]), json!("with\nbreak")] {
        app.merge(&number, json!({"wppJwtToken": nonsense})).await;
        assert_eq!(served(&app, &number).await, 1, "{nonsense}");
        assert_eq!(app.calls()["rpc/wpp_claim_refresh"], 1, "{nonsense}");
        assert_eq!(served(&app, &number).await, 0, "{nonsense}");
    }
}

/// What `expiresIn` and, where it can be read, `exp` say; and the lifetime in seconds that is stored.
#[tokio::test]
async fn the_stored_expiry_is_bounded_whatever_the_platform_says() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    let said = |value: Value| FieldValue::This(value);
    let cases = [
        (FieldValue::Truth, Some(3600), 3600),
        (FieldValue::Nothing, Some(1800), 1800),
        (FieldValue::Nothing, None, 3600),
        (said(json!(7200)), Some(3600), 3600),
        (said(json!(600)), Some(3600), 600),
        (said(json!("600")), None, 600),
        (said(json!(3_600_000)), None, 3600),
        (said(json!(0)), None, 300),
        (said(json!(0)), Some(3600), 3600),
        (said(json!(-5)), None, 300),
        (said(json!("soon")), Some(900), 900),
        (said(json!([])), None, 300),
        (said(json!(1e300)), None, 86_400),
        (said(json!(1e300)), Some(1_000_000), 86_400),
    ];
    for (expires_in, exp, lifetime) in cases {
        let case = format!("{expires_in:?}, {exp:?}");
        app.platform.behave(|behavior| {
            behavior.opaque_tokens = exp.is_none();
            behavior.token_lifetime_s = exp.unwrap_or(3600);
            behavior.expires_in = expires_in;
        });
        app.merge(&number, json!({"wppJwtToken": null})).await;
        let before = clock::unix_ms();
        served(&app, &number).await;
        let after = clock::unix_ms();
        let end = app.settings(&number).await["wppJwtExpiresAt"].as_i64().unwrap();
        // `exp` is in whole seconds.
        let possible = before + lifetime * 1000 - 1000..=after + lifetime * 1000;
        assert!(possible.contains(&end), "{case}: {end} is not in {possible:?}");
    }
}

#[tokio::test]
async fn a_short_lived_token_serves_more_than_one_request() {
    let app = TestApp::start().await;
    let number = app.number().await;
    app.platform.behave(|behavior| behavior.expires_in = FieldValue::This(json!(50)));
    app.set_token_end(&number, -1).await;
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(served(&app, &number).await, 0);
}

/// The database's clock is the one that counts: here it is ten minutes ahead of the functions' and of the platform's.
#[tokio::test]
async fn a_clock_that_is_minutes_off_costs_one_refresh_at_most() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    let ahead = "create or replace function public.wpp_unix_ms(at timestamptz) returns bigint
        language sql immutable set search_path = '' as
        $$ select floor(extract(epoch from at) * 1000)::bigint + 600000 $$;
        create or replace function public.wpp_now_ms() returns bigint
        language sql volatile set search_path = '' as $$ select public.wpp_unix_ms(clock_timestamp()) $$;";
    app.sql.batch_execute(ahead).await.unwrap();
    // Ended by the database's clock alone.
    app.set_token_end(&number, 300).await;
    assert_eq!(served(&app, &number).await, 1);
    let end = app.settings(&number).await["wppJwtExpiresAt"].as_i64().unwrap();
    assert!(end > clock::unix_ms() + 4_000_000, "counted from another clock: {end}");
    assert_eq!(served(&app, &number).await, 0);
}

/// A platform may hand out the token that it gave before, as long as that is good.
#[tokio::test]
async fn the_same_token_given_again_has_its_end_corrected() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.set_token_end(&number, -1).await;
    let token = app.settings(&number).await["wppJwtToken"].clone();
    let again = json!({"token": token, "expiresIn": 3600}).to_string();
    app.inject("token", Fault::Body(again));
    assert_eq!(served(&app, &number).await, 1);
    assert_eq!(served(&app, &number).await, 0);
    let settings = app.settings(&number).await;
    assert_eq!(settings["wppJwtToken"], token);
    assert!(settings["wppJwtExpiresAt"].as_i64().unwrap() > clock::unix_ms() + 3_000_000, "{settings}");
}
