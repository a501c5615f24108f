//! The line that each request leaves in the log, as an operator reads it.

use futures_util::future::join_all;
use local::FUNCTIONS;
use local::events::Event;
use local::fault_injector::{Fault, Point};
use local::lambda::Options;
use local::platform::RepeatedCreate;
use local::test_app::{Number, TestApp, question};
use serde_json::{Value, json};

/// Returns the lines of a function's requests so far. Panics if a line is not JSON.
async fn lines(app: &TestApp, function: &str) -> Vec<Value> {
    let logs = app.sandbox(function).logs().await;
    let lines =
        logs.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line: &Value| line.get("outcome").is_some()).collect()
}

/// Sends a request about the number. Returns its log line, after checking its status, id and code against the answer.
async fn send(app: &TestApp, function: &str, session: &str) -> Value {
    let answer = app.ask(function, session).await;
    let line = lines(app, function).await.pop().unwrap();
    assert_eq!(
        (&line["status"], &line["request_id"]),
        (&json!(answer.status), &json!(answer.headers["x-request-id"]))
    );
    assert!(answer.status == 200 || line["code"] == answer.json["code"], "{line}");
    line
}

/// Returns a line's values for these names.
fn fields(line: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), line[name].clone())).collect()
}

async fn number(app: &TestApp) -> Number {
    let number = app.number().await;
    app.settle_keys().await;
    app.end_waits().await;
    number
}

#[tokio::test]
async fn each_request_leaves_a_full_line() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    for function in FUNCTIONS {
        let line = send(&app, function, &number.session).await;
        assert_eq!(
            fields(
                &line,
                &["level", "function", "outcome", "state", "stale", "token", "organization_id", "error"]
            ),
            json!({
                "level": "INFO", "function": function, "outcome": "answered", "state": "qr_issued", "stale": null,
                "token": "reused", "organization_id": app.school.id, "error": null,
            }),
        );
        assert_eq!(line["session"].as_str().unwrap().len(), 8, "{line}");
        assert!(line["trace_id"].as_str().unwrap().starts_with("1-"), "{line}");
        assert!(line["calls"].as_array().unwrap().iter().any(|call| call["ms"].is_u64()), "{line}");
        let first = lines(&app, function).await.remove(0);
        assert_eq!(first["cold_start"], 1, "{first}");
        let second = send(&app, function, &number.session).await;
        assert_eq!(second.get("cold_start"), None, "{second}");
    }
}

#[tokio::test]
async fn refreshed_token_is_logged_with_its_reason() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    for function in FUNCTIONS {
        app.set_token_end(&number, -1).await;
        let line = send(&app, function, &number.session).await;
        assert_eq!(
            fields(&line, &["level", "token", "token_why", "TokenRefreshed"]),
            json!({"level": "INFO", "token": "refreshed", "token_why": "expired", "TokenRefreshed": 1}),
        );
        app.settle_tokens().await;
        app.stack.platform.forget_tokens();
        let line = send(&app, function, &number.session).await;
        assert_eq!(
            fields(&line, &["token", "token_why"]),
            json!({"token": "refreshed", "token_why": "rejected"})
        );
    }
}

#[tokio::test]
async fn each_line_names_the_call_that_timed_out() {
    let app = TestApp::start_with(&[("UPSTREAM_TIMEOUT_MS", "2000")], Options::default()).await;
    let number = number(&app).await;
    for function in FUNCTIONS {
        app.end_waits().await;
        app.set_token_end(&number, -1).await;
        app.stack.platform.faults.inject("token", Fault::NoHeaders);
        let line = send(&app, function, &number.session).await;
        assert_eq!(
            fields(&line, &["level", "outcome", "code", "token", "error", "RefreshFailed", "state"]),
            json!({
                "level": "ERROR", "outcome": "failed", "code": "platform_timeout", "token": "failed",
                "error": "platform auth/token: timed out", "RefreshFailed": 1, "state": null,
            }),
        );
        app.stack.platform.faults.clear();
    }
}

#[tokio::test]
async fn unknown_number_is_logged_as_refused() {
    let app = TestApp::start().await;
    number(&app).await;
    for function in FUNCTIONS {
        let line = send(&app, function, "0000000009999").await;
        assert_eq!(
            fields(&line, &["level", "outcome", "status", "code", "error", "state", "token"]),
            json!({
                "level": "INFO", "outcome": "refused", "status": 404, "code": "number_not_found",
                "error": "no such number", "state": null, "token": null,
            }),
        );
    }
}

#[tokio::test]
async fn rejected_api_key_is_logged_as_refused() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.stack.platform.scan(&number.session).unwrap();
    send(&app, "wpp-status", &number.session).await;
    app.stack.platform.revoke_key(&number.key);
    app.stack.platform.behave(|behavior| behavior.repeated_create = RepeatedCreate::NewClient);
    app.set_token_end(&number, -1).await;
    for function in FUNCTIONS {
        app.end_waits().await;
        let line = send(&app, function, &number.session).await;
        assert_eq!(
            fields(&line, &["outcome", "code", "token", "token_why", "OwnKeyRejected", "RefreshFailed"]),
            json!({
                "outcome": "refused", "code": "api_key_rejected", "token": "failed", "token_why": "expired",
                "OwnKeyRejected": null, "RefreshFailed": null,
            }),
        );
    }
}

#[tokio::test]
async fn first_refused_secret_counts_as_platform_failed() {
    let app = TestApp::start_with(&[("WPP_SECRET", "another")], Options::default()).await;
    app.post("wpp-create", json!({})).await;
    let line = lines(&app, "wpp-create").await.pop().unwrap();
    assert_eq!(
        fields(&line, &["level", "code", "OwnKeyRejected", "PlatformFailed", "organization_id"]),
        json!({
            "level": "ERROR", "code": "platform_secret_rejected", "OwnKeyRejected": null, "PlatformFailed": 1,
            "organization_id": app.school.id,
        }),
    );
}

#[tokio::test]
async fn outage_is_counted_despite_a_stale_answer() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.stack.platform.scan(&number.session).unwrap();
    send(&app, "wpp-status", &number.session).await;
    let ask = async || {
        app.post("wpp-status", json!({"session": number.session})).await;
        lines(&app, "wpp-status").await.pop().unwrap()
    };
    let names = ["level", "stale", "error", "token", "PlatformFailed"];
    assert_eq!(
        fields(&ask().await, &names),
        json!({"level": "INFO", "stale": null, "error": null, "token": null, "PlatformFailed": null}),
    );
    app.age_snapshot(60).await;
    app.stack.platform.faults.inject("status", Fault::status(500));
    let stale = fields(&ask().await, &names);
    let error = "platform status: unavailable";
    assert_eq!(
        stale,
        json!({"level": "WARN", "stale": true, "error": error, "token": "reused", "PlatformFailed": 1}),
    );
}

/// Eight requests at once in each sandbox, for two organizations with one expired token each.
#[tokio::test]
async fn concurrent_requests_have_separate_lines() {
    const AT_ONCE: usize = 8;
    let env = [("REQUEST_BUDGET_MS", "29000"), ("UPSTREAM_TIMEOUT_MS", "29000")];
    let app = TestApp::start_with(&env, Options { concurrency: AT_ONCE, ..Options::default() }).await;
    let own = number(&app).await;
    let other_organization = app.stack.organization("others").await.unwrap();
    let created = app.post_as(&other_organization, "wpp-create", json!({})).await;
    let other_session = created.json["session"].as_str().unwrap().to_owned();
    let callers = [(&app.school, &own.session), (&other_organization, &other_session)];
    app.settle_keys().await;
    for function in FUNCTIONS {
        let expire = "update wpp_token_leases set held_until = now(), retry_at = now();
            update messenger_integrations set settings = settings || '{\"wppJwtExpiresAt\": 1}'";
        app.sql.batch_execute(expire).await.unwrap();
        app.forget_calls();
        let before = lines(&app, function).await.len();
        let first = if function == "wpp-create" { "rpc/wpp_begin_creation" } else { "rpc/wpp_find_number" };
        let hold = app.stack.supabase.faults.hold(first, Point::After);
        let requests = join_all((0..AT_ONCE).map(|nth| {
            let (organization, session) = callers[nth % 2];
            let event = Event::post(function).bearer(&organization.token);
            app.invoke(function, event.json(&question(function, session)).http_api())
        }));
        let together = async {
            hold.reached(AT_ONCE).await;
            hold.release();
        };
        let (answers, ()) = tokio::join!(requests, together);
        assert_eq!(app.calls()["token"], 2, "{}", app.calls());

        let lines = lines(&app, function).await.split_off(before);
        assert_eq!(lines.len(), AT_ONCE);
        for (nth, answer) in answers.iter().enumerate() {
            let (organization, session) = callers[nth % 2];
            let qr = json!(app.stack.platform.qr_of(session));
            let field = if function == "wpp-qr" { "qr" } else { "qrcode" };
            assert_eq!((answer.status, &answer.json[field]), (200, &qr), "{answer:?}");
            let mine: Vec<_> =
                lines.iter().filter(|line| line["request_id"] == answer.headers["x-request-id"]).collect();
            let [line] = mine[..] else { panic!("{mine:?}") };
            assert_eq!(line["organization_id"], json!(organization.id), "{line}");
            assert_eq!(line["token_why"], "expired", "{line}");
            let token_calls =
                line["calls"].as_array().unwrap().iter().filter(|call| call["name"] == "auth/token");
            assert!(token_calls.count() <= usize::from(line["token"] == "refreshed"), "{line}");
        }
        let how = |used: &str| lines.iter().filter(|line| line["token"] == used).count();
        assert_eq!((how("refreshed"), how("reused")), (2, AT_ONCE - 2), "{lines:?}");
        let traces: std::collections::BTreeSet<_> =
            lines.iter().map(|line| line["trace_id"].to_string()).collect();
        assert_eq!(traces.len(), AT_ONCE);
    }
}

#[tokio::test]
async fn warning_has_the_id_of_its_request() {
    let app = TestApp::start().await;
    let number = number(&app).await;
    app.stack.platform.scan(&number.session).unwrap();
    app.stack.supabase.faults.inject_times("rpc/wpp_save_snapshot", 1, Fault::status(500));
    let line = send(&app, "wpp-status", &number.session).await;
    let logs = app.sandbox("wpp-status").logs().await;
    let warning = logs.lines().find(|line| line.contains("could not be saved")).unwrap();
    let warning: Value = serde_json::from_str(warning).unwrap();
    assert_eq!(
        fields(&warning, &["level", "message"]),
        json!({"level": "WARN", "message": "the state of a session could not be saved"}),
    );
    assert_eq!(warning["span"]["requestId"], line["request_id"]);
}
