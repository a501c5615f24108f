//! One deadline for a request, and limits on every call: whatever an upstream does, an answer of ours comes first.

use local::clock::unix_ms;
use local::events::Event;
use local::fault_injector::{Fault, FaultInjector, Point};
use local::lambda::{Answer, Options};
use local::test_app::{Number, TestApp};
use serde_json::{Value, json};

fn poll(app: &TestApp, number: &Number) -> Value {
    Event::get("wpp-qr").bearer(&app.school.token).query("session", &number.session).v2()
}

async fn poll_by(app: &TestApp, number: &Number, deadline_unix_ms: i64) -> Answer {
    let event = poll(app, number);
    app.sandbox("wpp-qr").invoke_by(event, deadline_unix_ms).await.answered().unwrap()
}

/// The most memory that the process ever held, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn the_invocations_deadline_ends_a_call_that_its_own_timeout_would_not() {
    let (app, number) = TestApp::start_with_number().await;
    let endpoints: [(&FaultInjector, &str); 2] =
        [(&app.platform.faults, "qr"), (&app.supabase.faults, "rpc/wpp_find_number")];
    for (faults, endpoint) in endpoints {
        for fault in [Fault::SlowHeaders, Fault::SlowBody] {
            faults.inject(endpoint, fault);
            let answer = poll_by(&app, &number, unix_ms() + 900).await;
            faults.clear();
            assert_eq!(
                (answer.status, &answer.json["retryable"]),
                (504, &json!(true)),
                "{endpoint}: {answer:?}"
            );
        }
    }
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

#[tokio::test]
async fn an_invocation_that_has_no_time_left_is_answered_all_the_same() {
    let (app, number) = TestApp::start_with_number().await;
    let hold = app.hold("rpc/wpp_find_number", Point::Before);
    let answer = poll_by(&app, &number, unix_ms() + 400).await;
    assert_eq!((answer.status, &answer.json["retryable"]), (504, &json!(true)), "{answer:?}");
    hold.release();
}

#[tokio::test]
async fn a_deadline_in_the_past_means_that_it_is_not_known() {
    let (app, number) = TestApp::start_with_number().await;
    // What `cargo lambda watch` sends: ten minutes after 1970.
    for deadline in [600_000, 0, unix_ms() - 1000] {
        assert_eq!(poll_by(&app, &number, deadline).await.status, 200, "{deadline}");
    }
}

#[tokio::test]
async fn many_slow_calls_share_the_budget_of_one_request() {
    let app = TestApp::start_with(&[("REQUEST_BUDGET_MS", "3000")], Options::default()).await;
    let number = app.number().await;
    app.platform.faults.inject("*", Fault::Delay { ms: 2000 });
    app.platform.forget_tokens();
    // The refused call, the token and the call once more: none is too slow by itself.
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(app.platform.faults.count("*"), 2);
}

#[tokio::test]
async fn a_call_that_timed_out_is_not_made_again() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1500")], Options::default()).await;
    let number = app.number().await;
    for fault in [Fault::SlowHeaders, Fault::SlowBody] {
        app.forget_calls();
        app.inject("qr", fault);
        assert_eq!(app.poll_qr(&number.session).await.json["code"], "platform_timeout");
        assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
    }
    app.clear_faults();

    app.forget_calls();
    let school = app.organisation("school").await.unwrap();
    app.inject("create", Fault::SlowHeaders);
    let created = app.post_as(&school, "wpp-create", json!({})).await;
    assert_eq!(created.json["code"], "platform_timeout", "{created:?}");
    assert_eq!(app.calls()["create"], 1);

    // Nor does it take the time of the call that comes after it.
    app.set_token_end(&number, -3600).await;
    app.inject("rpc/wpp_save_token", Fault::SlowHeaders);
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.json["qr"], app.shown_qr(&number.session), "{answer:?}");
    assert_eq!(app.calls()["rpc/wpp_save_token"], 1);
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_and_not_kept() {
    let (app, number) = TestApp::start_with_number().await;
    let pid = app.sandbox("wpp-qr").pid();
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
    let before = peak_memory(pid);
    app.inject("qr", Fault::Huge { bytes: 50 << 20 });
    app.inject_times("rpc/wpp_find_number", 1, Fault::Huge { bytes: 50 << 20 });
    for code in ["database_error", "platform_bad_answer", "platform_bad_answer"] {
        assert_eq!(app.poll_qr(&number.session).await.json["code"], code);
    }
    let growth = peak_memory(pid) - before;
    assert!(growth < 8 << 20, "{growth} bytes more");
}

#[tokio::test]
async fn a_redirect_is_not_followed_not_even_to_the_right_place() {
    let (app, number) = TestApp::start_with_number().await;
    let itself = format!("{}/api/accounts/{}/qr", app.platform.url(), number.session);
    app.inject_times("qr", 1, Fault::Redirect(itself));
    assert_eq!(app.poll_qr(&number.session).await.json["code"], "platform_bad_answer");
    assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}));
}

#[tokio::test]
async fn a_thawed_sandbox_never_shows_its_dead_connections() {
    let app = TestApp::start_with(&[], Options { freeze: true, ..Options::default() }).await;
    let number = app.number().await;
    for _ in 0..5 {
        assert_eq!(app.poll_qr(&number.session).await.status, 200);
        let both = app.check().await;
        assert_eq!(both.status, 200, "{both:?}");
        app.platform.server.disconnect();
        app.supabase.server.disconnect();
    }
    app.forget_calls();
    let created = app.create(json!({"force_recreate": true})).await;
    assert_eq!(created.status, 200, "{created:?}");
    assert_eq!(app.count("create"), 1);
}

#[tokio::test]
async fn a_moment_of_trouble_is_bridged_and_a_refusal_is_taken_at_its_word() {
    let (app, number) = TestApp::start_with_number().await;
    for fault in [
        Fault::status(502),
        Fault::status(503),
        Fault::status(504),
        Fault::Drop,
        Fault::LostAnswer,
        Fault::Truncated,
    ] {
        for (faults, endpoint) in
            [(&app.platform.faults, "qr"), (&app.supabase.faults, "rpc/wpp_find_number")]
        {
            app.forget_calls();
            faults.inject_times(endpoint, 2, fault.clone());
            assert_eq!(app.poll_qr(&number.session).await.status, 200, "{endpoint} {fault:?}");
            assert_eq!(faults.count(endpoint), 3, "{endpoint} {fault:?}");
        }
    }
    for refusal in [400, 403, 409, 429, 500] {
        app.forget_calls();
        app.inject_times("qr", 1, Fault::status(refusal));
        assert!(app.poll_qr(&number.session).await.status > 500);
        assert_eq!(app.calls(), json!({"rpc/wpp_find_number": 1, "qr": 1}), "{refusal}");
    }
}
