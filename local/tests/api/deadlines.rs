//! One deadline per request, and limits on every call: whatever an upstream does, the functions answer in time.

use local::clock::unix_ms;
use local::fault_injector::Fault;
use local::lambda::Options;
use local::test_app::TestApp;
use serde_json::json;

/// Returns the peak memory of the process, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn the_invocations_deadline_ends_a_call() {
    let (app, number) = TestApp::start_with_number().await;
    for (endpoint, fault, left_ms) in [
        ("qr", Fault::NoHeaders, 900),
        ("qr", Fault::StalledBody, 900),
        ("rpc/wpp_find_number", Fault::NoHeaders, 900),
        ("rpc/wpp_find_number", Fault::StalledBody, 900),
        // No time is left after the margin for the answer.
        ("rpc/wpp_find_number", Fault::NoHeaders, 400),
    ] {
        app.inject(endpoint, fault);
        let event = app.school.post("wpp-qr", &json!({"session": number.session})).http_api();
        let ended = app.sandbox("wpp-qr").invoke_by(event, unix_ms() + left_ms).await;
        app.clear_faults();
        let answer = ended.answered().unwrap();
        assert_eq!((answer.status, &answer.json["retryable"]), (504, &json!(true)), "{endpoint}: {answer:?}");
    }
    assert_eq!(app.poll_qr(&number.session).await.status, 200);
}

#[tokio::test]
async fn many_slow_calls_share_the_budget_of_one_request() {
    let app = TestApp::start_with(&[("REQUEST_BUDGET_MS", "3000")], Options::default()).await;
    let number = app.number().await;
    app.platform.faults.inject("*", Fault::Delay { ms: 2000 });
    app.platform.forget_tokens();
    // A call that is refused, a new token, the call again: each takes 2 s, which the budget allows; the three together do not fit.
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.status, 504, "{answer:?}");
    assert_eq!(app.platform.faults.count("*"), 2);
}

#[tokio::test]
async fn a_call_that_timed_out_is_not_made_again() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "1500")], Options::default()).await;
    let number = app.number().await;
    let school = app.organization("school").await.unwrap();
    app.inject("create", Fault::NoHeaders);
    let created = app.post_as(&school, "wpp-create", json!({})).await;
    assert_eq!(created.json["code"], "platform_timeout", "{created:?}");
    assert_eq!(app.calls()["create"], 1);

    // A save that times out leaves enough time for the QR call.
    app.set_token_end(&number, -3600).await;
    app.inject("rpc/wpp_save_token", Fault::NoHeaders);
    let answer = app.poll_qr(&number.session).await;
    assert_eq!(answer.json["qr"], app.shown_qr(&number.session), "{answer:?}");
    assert_eq!(app.calls()["rpc/wpp_save_token"], 1);
}

#[tokio::test]
async fn oversized_answer_is_cut_off() {
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
async fn thawed_sandbox_hides_its_dead_connections() {
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
