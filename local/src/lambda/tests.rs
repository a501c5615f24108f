use serde_json::json;

use super::*;
use crate::events::Event;

async fn echo(options: Options) -> Sandbox {
    let binary = binary("examples/echo").unwrap();
    Sandbox::start_with(&binary, &[], options).await.unwrap()
}

fn told(to_do: &str) -> Value {
    Event::get("echo").query("do", to_do).http_api()
}

/// Returns the kernel's letter for the process's state: `S`, `T` and so on.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[tokio::test]
async fn every_shape_of_event_is_answered() {
    let sandbox = echo(Options::default()).await;
    let event = Event::post("echo").json(&json!({"a": 1}));
    for event in [event.clone().http_api(), event.function_url()] {
        let answer = sandbox.invoke(event).await.answered().unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!((&answer.json["method"], &answer.json["body"]), (&json!("POST"), &json!(r#"{"a":1}"#)));
        assert_eq!(answer.raw["statusCode"], 200);
        assert!((28..=30).contains(&answer.json["left_s"].as_u64().unwrap()), "{}", answer.json);
    }
    assert_eq!(sandbox.logs().await.matches("echoed").count(), 2);
}

#[tokio::test]
async fn deadline_is_the_given_one() {
    let sandbox = echo(Options::default()).await;
    let past = sandbox.invoke_by(told(""), 600_000).await.answered().unwrap();
    assert_eq!(past.json["left_s"], 0);
    let future = sandbox.invoke_by(told(""), unix_ms() + 500_000).await.answered().unwrap();
    assert!(future.json["left_s"].as_u64().unwrap() > 400);
}

#[tokio::test]
async fn function_inherits_no_other_environment() {
    let env = [("GIVEN".to_owned(), "1".to_owned())];
    let sandbox = Sandbox::start(&binary("examples/echo").unwrap(), &env).await.unwrap();
    let answer = sandbox.invoke(told("")).await.answered().unwrap();
    let variables = answer.json["variables"].as_array().unwrap();
    let strange: Vec<_> = variables
        .iter()
        .filter_map(Value::as_str)
        .filter(|name| {
            !name.starts_with("AWS_")
                && !["GIVEN", "PATH", "PWD", "_HANDLER", "_X_AMZN_TRACE_ID"].contains(name)
        })
        .collect();
    assert!(variables.contains(&json!("GIVEN")) && strange.is_empty(), "{strange:?}");
}

#[tokio::test]
async fn failure_answer_and_exit_are_distinguished() {
    let sandbox = echo(Options::default()).await;
    let Ended::Failed(report) = sandbox.invoke(told("fail")).await else { panic!("it did not fail") };
    assert_eq!(report["errorMessage"], "failed on request");
    let Ended::Failed(report) = sandbox.invoke(told("panic")).await else { panic!("it did not fail") };
    assert!(report["errorMessage"].as_str().unwrap().contains("panicked on request"), "{report}");
    sandbox.invoke(told("")).await.answered().unwrap();
    let (first, queued) = tokio::join!(sandbox.invoke(told("exit")), sandbox.invoke(told("")));
    assert_eq!((first, queued), (Ended::Died, Ended::Died));
    assert_eq!(sandbox.exit().await.code, Some(3));
    assert_eq!(sandbox.invoke(told("")).await, Ended::Died);
}

#[tokio::test]
async fn invocations_queue_or_run_concurrently() {
    let one = echo(Options::default()).await;
    let (a, b, c) = tokio::join!(one.invoke(told("")), one.invoke(told("")), one.invoke(told("")));
    assert!([a, b, c].into_iter().all(|ended| ended.answered().is_ok()));
    let two = echo(Options { concurrency: 2, ..Options::default() }).await;
    let (a, b) = tokio::join!(two.invoke(told("meet")), two.invoke(told("meet")));
    assert!(a.answered().is_ok() && b.answered().is_ok());
}

#[tokio::test]
async fn a_frozen_function_is_stopped_between_its_invocations() {
    let sandbox = echo(Options { freeze: true, ..Options::default() }).await;
    for _ in 0..3 {
        sandbox.invoke(told("")).await.answered().unwrap();
        assert_eq!(state(sandbox.pid()), Some('T'));
    }
    let pid = sandbox.pid();
    drop(sandbox);
    assert_eq!(state(pid), None);
}

#[tokio::test]
async fn function_that_fails_to_start_reports_why() {
    let env = [("REFUSE_TO_START".to_owned(), "WPP_BASE_URL is missing".to_owned())];
    let sandbox = Sandbox::start(&binary("examples/echo").unwrap(), &env).await.unwrap();
    let error = sandbox.ready().await.unwrap_err().to_string();
    assert!(error.contains("WPP_BASE_URL is missing"), "{error}");
    assert_eq!(sandbox.exit().await.code, Some(1));
    assert_eq!(sandbox.init_error(), None);
    echo(Options::default()).await.ready().await.unwrap();
}

#[tokio::test]
async fn function_is_reached_through_its_watcher() {
    // `env` stands for the watcher: it adds a variable, and then becomes the function.
    let arguments = ["WATCHED=yes".to_owned()];
    let sandbox =
        Sandbox::start_below("env", &arguments, &binary("examples/echo").unwrap(), &[]).await.unwrap();
    let answer = sandbox.invoke(told("")).await.answered().unwrap();
    assert!(answer.json["variables"].as_array().unwrap().contains(&json!("WATCHED")), "{answer:?}");
    let Exit { code, logs } = sandbox.terminate().await;
    assert_eq!((code, state(sandbox.pid())), (None, None));
    assert!(logs.contains("echoed"), "{logs}");
}

#[tokio::test]
async fn killing_a_function_ends_its_invocation() {
    let sandbox = echo(Options { concurrency: 2, ..Options::default() }).await;
    sandbox.ready().await.unwrap();
    let (held, killed) = tokio::join!(sandbox.invoke(told("meet")), sandbox.kill());
    killed.unwrap();
    assert_eq!(held, Ended::Died);
    assert_eq!((sandbox.exit().await.code, state(sandbox.pid())), (None, None));
}

#[test]
fn answers_are_read_in_both_payload_formats() {
    let read = |raw| Answer::read(raw).unwrap();
    let body = json!({"statusCode": 200, "headers": {"A": "1"}, "multiValueHeaders": {"a": ["1", "2"]}, "body": "e30=",
        "isBase64Encoded": true});
    let answer = read(body);
    assert_eq!((answer.headers["a"].as_str(), answer.body.as_str(), answer.json), ("1, 2", "{}", json!({})));
    let empty = read(json!({"statusCode": 204, "headers": {}, "body": null}));
    assert_eq!((empty.status, empty.body.as_str(), empty.json), (204, "", Value::Null));
    assert_eq!(Answer::read(json!({"message": "no status"})), None);
}
