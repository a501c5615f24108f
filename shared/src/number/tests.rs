//! A number's calls to a server that acts as both the database and the platform.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::messages::Language;
use crate::number::advice::Freshness;
use crate::number::creation::{ensure_credentials, repair_credentials};
use crate::number::session::{NumberSession, Webhook};
use crate::number::snapshot::{KnownState, State};
use crate::request_log::noted;
use crate::secrets::NeededSecrets;
use crate::store::{CreateMode, Number, NumberSelector};
use crate::testing::Server;
use crate::wpp::api::PlatformError;
use crate::{App, Function};

const NOW: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

struct Stage {
    server: Server,
    app: Arc<App>,
}

impl Stage {
    /// Sets up a stage that refuses every call without a scripted answer with a 400.
    async fn new() -> Self {
        let server = Server::start("").await;
        server.says_to("", 400, "{}");
        let source = |name: &str| match name {
            "WPP_BASE_URL" | "SUPABASE_URL" => Some(server.url.clone()),
            "SUPABASE_SERVICE_ROLE_KEY" | "WPP_SECRET" => Some("sb_secret_x".to_owned()),
            _ => None,
        };
        let function = Function::read(source, NeededSecrets::Supabase).unwrap();
        let app = function.app(UnixMs(NOW), within(20_000)).await.unwrap();
        Self { server, app }
    }

    fn says(&self, path: &str, body: Value) {
        self.server.says_to(path, 200, &body.to_string());
    }

    /// Returns the last part of each path that was called, in order.
    fn calls(&self) -> Vec<String> {
        let path =
            |request: String| request.split(' ').nth(1).unwrap().rsplit('/').next().unwrap().to_owned();
        self.server.heard().into_iter().map(path).collect()
    }

    fn session(&self, number: Value) -> NumberSession<'_> {
        NumberSession::open(&self.app, self::number(number), UnixMs(NOW), within(20_000)).unwrap()
    }

    async fn ensure(&self, mode: CreateMode, ms: u64) -> Result<(Number, UnixMs), Error> {
        ensure_credentials(&self.app, Uuid::nil(), within(ms), mode, NumberSelector::default()).await
    }
}

fn within(ms: u64) -> Deadline {
    Deadline::within(Duration::from_millis(ms))
}

fn number(value: Value) -> Number {
    serde_json::from_value(value).unwrap()
}

/// Returns a number with a valid token, with credentials of this age and with this snapshot.
fn row(age: i64, stored: Value) -> Value {
    json!({
        "integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "webhook_url": null, "snapshot": stored,
        "settings": {"wppApiKey": "k", "wppAccountNumber": "4", "wppJwtToken": "t", "wppJwtExpiresAt": NOW + HOUR},
        "credentials_saved_at_ms": NOW - age, "newly_connected": false, "is_readable": true, "ignored": [],
    })
}

fn stored(status: &str, qr: Option<&str>) -> Value {
    json!({"status": status, "qr": qr, "qr_at_ms": 5, "at_ms": NOW})
}

fn begun(number: Value) -> Value {
    json!({
        "now_ms": NOW, "outcome": "begun", "creation": Uuid::nil(), "organization_id": Uuid::nil(),
        "platform_id": "o", "number": number, "is_usable": true,
    })
}

#[tokio::test]
async fn existing_number_makes_no_platform_call() {
    let stage = Stage::new().await;
    let there = json!({"now_ms": NOW, "outcome": "existing", "number": row(HOUR, Value::Null)});
    stage.says("wpp_begin_creation", there);
    let (number, now) = stage.ensure(CreateMode::Ensure, 20_000).await.unwrap();
    assert_eq!((now, number.settings.session.as_deref()), (UnixMs(NOW), Some("4")));
    assert_eq!(stage.calls(), ["wpp_begin_creation"]);
}

#[tokio::test]
async fn log_names_the_organization_and_the_reason_of_a_stale_answer() {
    let stage = Stage::new().await;
    let found = async {
        let session = stage.session(row(HOUR, Value::Null));
        session.note_stale(&Error::NumberNotFound);
    };
    let (_, notes) = noted(found).await;
    assert_eq!((notes.organization_id, notes.session.is_some()), (Some(Uuid::nil()), true));
    assert_eq!(notes.stale_because.as_deref(), Some("no such number"));
}

#[tokio::test]
async fn a_creation_asks_the_platform_and_saves() {
    let stage = Stage::new().await;
    stage.says("wpp_begin_creation", begun(Value::Null));
    stage.says("wpp/create", json!({"apiKey": "k", "session": "4"}));
    stage.says("wpp_save_credentials", json!({"outcome": "saved", "number": row(0, Value::Null)}));
    stage.ensure(CreateMode::AddNew, 20_000).await.unwrap();
    assert_eq!(stage.calls(), ["wpp_begin_creation", "create", "wpp_save_credentials"]);
}

#[tokio::test]
async fn a_failed_creation_is_released() {
    for (path, status, body, failed) in [
        ("wpp/create", 500, "", "platform create: unavailable"),
        ("wpp/create", 408, "", "platform create: timed out"),
        ("wpp_save_credentials", 408, "", "database wpp_save_credentials: unavailable"),
        ("wpp_save_credentials", 200, r#"{"outcome":"gone"}"#, "no such number"),
    ] {
        let stage = Stage::new().await;
        stage.says("wpp_begin_creation", begun(Value::Null));
        stage.says("wpp/create", json!({"apiKey": "k", "session": "4"}));
        stage.server.says_to(path, status, body);
        let error = stage.ensure(CreateMode::Ensure, 20_000).await.unwrap_err();
        assert_eq!(error.to_string(), failed);
        assert_eq!(stage.calls().last().unwrap(), "wpp_release_creation", "{failed}");
    }
}

#[tokio::test]
async fn working_credentials_outlive_a_failed_recreation() {
    for (mode, is_answered) in [(CreateMode::Ensure, true), (CreateMode::ForceRecreate, false)] {
        let stage = Stage::new().await;
        stage.says("wpp_begin_creation", begun(row(HOUR, Value::Null)));
        stage.server.says_to("wpp/create", 500, "");
        assert_eq!(stage.ensure(mode, 20_000).await.is_ok(), is_answered, "{mode:?}");
    }
}

#[tokio::test]
async fn outage_does_not_replace_a_key() {
    let stage = Stage::new().await;
    stage.says("wpp_begin_creation", begun(row(HOUR, Value::Null)));
    stage.says("wpp/create", json!({"apiKey": "k", "session": "4"}));
    stage.server.says_to("auth/token", 500, "");
    let error = stage.ensure(CreateMode::ForceRecreate, 20_000).await.unwrap_err();
    assert_eq!(error.to_string(), "platform auth/token: unavailable");
    assert!(!stage.calls().contains(&"wpp_assign_platform_id".to_owned()));
}

#[tokio::test]
async fn answer_names_its_session() {
    let stage = Stage::new().await;
    let mut session = stage.session(row(HOUR, Value::Null));
    let answer = session.describe(&KnownState::starting(), Freshness::Live, Language::English);
    assert_eq!(json!(answer)["session"], "4");
}

#[tokio::test]
async fn rejected_key_is_replaced_under_a_new_platform_id() {
    let (tried, replaced) =
        (["create", "token"].as_slice(), ["create", "token", "wpp_assign_platform_id", "create"].as_slice());
    for (age, given, token, between) in [
        (HOUR, "k", (200, r#"{"token":"t"}"#), tried),
        (HOUR, "k", (403, ""), replaced),
        (HOUR, "new", (403, ""), &["create"]),
        // A new key may not be active yet.
        (0, "k", (403, ""), &["create"]),
    ] {
        let stage = Stage::new().await;
        stage.says("wpp_begin_creation", begun(row(age, Value::Null)));
        stage.says("wpp/create", json!({"apiKey": given, "session": "4"}));
        stage.server.says_to("auth/token", token.0, token.1);
        stage.says("wpp_assign_platform_id", json!({"outcome": "assigned", "platform_id": "o__wpp__1"}));
        stage.says("wpp_save_credentials", json!({"outcome": "saved", "number": row(0, Value::Null)}));
        stage.ensure(CreateMode::ForceRecreate, 20_000).await.unwrap();
        let calls = stage.calls();
        assert_eq!(calls[1..calls.len() - 1], *between, "{age} {given}");
    }
}

#[tokio::test]
async fn waiting_request_gives_up_in_time_to_answer() {
    let stage = Stage::new().await;
    stage.says(
        "wpp_begin_creation",
        json!({"now_ms": NOW, "outcome": "busy", "creation": Uuid::from_u128(7), "wait_ms": 10}),
    );
    let waited = stage.ensure(CreateMode::Ensure, 700).await;
    assert!(matches!(waited, Err(Error::CreationInProgress)), "{waited:?}");
    let heard = stage.server.heard();
    assert!(!heard[0].contains("p_waited_for") && heard[1].contains("p_waited_for"), "{heard:?}");
}

#[tokio::test]
async fn refused_creation_answers_its_code() {
    for (outcome, code, retry_after) in [
        (json!({"outcome": "unknown"}), "number_not_found", None),
        (json!({"outcome": "no_organization"}), "organization_not_found", None),
        (json!({"outcome": "unreadable"}), "settings_unreadable", None),
        (json!({"outcome": "too_many", "wait_ms": 60_000}), "too_many_numbers", Some(60)),
    ] {
        let stage = Stage::new().await;
        let mut answer = outcome.clone();
        answer["now_ms"] = json!(NOW);
        stage.says("wpp_begin_creation", answer);
        let refused = stage.ensure(CreateMode::Ensure, 20_000).await.unwrap_err().response();
        assert_eq!((refused.code, refused.retry_after.map(|after| after.as_secs())), (code, retry_after));
        assert_eq!(stage.calls(), ["wpp_begin_creation"]);
    }
}

#[tokio::test]
async fn repair_names_the_number_and_its_rejected_key() {
    let stage = Stage::new().await;
    stage.says(
        "wpp_begin_creation",
        json!({"now_ms": NOW, "outcome": "existing", "number": row(0, Value::Null)}),
    );
    let number = number(row(HOUR, Value::Null));
    repair_credentials(&stage.app, Uuid::nil(), within(20_000), &number).await.unwrap();
    let heard = stage.server.heard().remove(0);
    assert!(heard.contains(r#""mode":"repair""#) && heard.contains(r#""rejected_key":"k""#), "{heard}");
}

/// The database decides whether a linked phone could be lost. The number's key stays refused.
#[tokio::test]
async fn failed_repair_is_a_refused_key() {
    let unchanged = json!({"now_ms": NOW, "outcome": "existing", "number": row(HOUR, Value::Null)});
    for (begun, saved, assigned) in [
        (unchanged, json!({}), json!({})),
        (begun(row(HOUR, Value::Null)), json!({"outcome": "kept"}), json!({"outcome": "kept"})),
        (begun(row(HOUR, Value::Null)), json!({"outcome": "rejected"}), json!({"outcome": "kept"})),
    ] {
        let stage = Stage::new().await;
        stage.says("wpp_begin_creation", begun);
        stage.says("wpp/create", json!({"apiKey": "new", "session": "5"}));
        stage.says("wpp_save_credentials", saved);
        stage.says("wpp_assign_platform_id", assigned);
        let number = number(row(HOUR, Value::Null));
        let refused = repair_credentials(&stage.app, Uuid::nil(), within(20_000), &number).await;
        assert_eq!(refused.unwrap_err().response().code, "api_key_rejected");
    }
}

#[tokio::test]
async fn a_new_id_beyond_the_limit_is_too_many_numbers() {
    let stage = Stage::new().await;
    stage.says("wpp_begin_creation", begun(row(HOUR, Value::Null)));
    stage.says("wpp/create", json!({"apiKey": "k", "session": "4"}));
    stage.server.says_to("auth/token", 403, "");
    stage.says("wpp_assign_platform_id", json!({"outcome": "too_many", "wait_ms": 1000}));
    let refused = stage.ensure(CreateMode::ForceRecreate, 20_000).await;
    assert_eq!(refused.unwrap_err(), Error::TooManyNumbers(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_poll_asks_for_the_qr_unless_connected_before() {
    let both = ["qr", "status"].as_slice();
    for (known, word, qr, calls, state) in [
        (stored("connected", None), "connected", (400, "{}"), ["status"].as_slice(), State::Connected),
        (stored("connected", None), "starting", (200, r#"{"qr":"2@"}"#), both, State::QrIssued),
        (stored("connected", None), "offline", (200, r#"{"qr":"2@"}"#), &["status"], State::Disconnected),
        (Value::Null, "starting", (200, r#"{"qr":"2@"}"#), both, State::QrIssued),
        (Value::Null, "starting", (404, r#"{"error":"x"}"#), both, State::QrPending),
        (Value::Null, "starting", (404, "<html>"), both, State::QrPending),
        (Value::Null, "connected", (500, ""), both, State::Connected),
    ] {
        let stage = Stage::new().await;
        stage.says("/status", json!({"status": word}));
        stage.server.says_to("/qr", qr.0, qr.1);
        let view = stage.session(row(HOUR, known)).poll().await.unwrap();
        let mut called = stage.calls();
        called.sort();
        assert_eq!(
            (view.state, called.as_slice()),
            (state, calls.iter().map(|call| call.to_string()).collect::<Vec<_>>().as_slice()),
            "{word}"
        );
    }
}

#[tokio::test]
async fn failure_of_a_needed_qr_is_an_error() {
    for (word, qr, expected) in [
        ("starting", 500, "platform qr: unavailable"),
        ("starting", 401, "no such number"),
        ("connected", 401, "no such number"),
    ] {
        let stage = Stage::new().await;
        stage.says("/status", json!({"status": word}));
        stage.server.says_to("/qr", qr, "");
        stage.says("wpp_claim_refresh", json!({"now_ms": NOW, "outcome": "gone"}));
        let failed = stage.session(row(HOUR, Value::Null)).poll().await.err().unwrap();
        assert_eq!(failed.to_string(), expected, "{word}");
    }
}

#[tokio::test]
async fn an_unknown_session_is_lost_unless_it_shows_a_qr() {
    for known in [Value::Null, stored("connected", None)] {
        for (status, body, state) in [
            (404, r#"{"error":"x"}"#, None),
            (404, "", None),
            (500, "", None),
            (200, r#"{"qr":null}"#, None),
            (200, r#"{"qr":"2@"}"#, Some(State::QrIssued)),
        ] {
            let stage = Stage::new().await;
            stage.server.says_to("/status", 404, r#"{"error":"x"}"#);
            stage.server.says_to("/qr", status, body);
            let seen = stage.session(row(HOUR, known.clone())).poll().await;
            match state {
                Some(state) => assert_eq!(seen.ok().map(|view| view.state), Some(state), "{known}"),
                None => {
                    let why = seen.err().and_then(|error| error.platform());
                    assert_eq!(why, Some(PlatformError::UnknownSession), "{known} {status} {body}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_saved_if_it_changes_or_a_link_is_new() {
    let qr_issued = || KnownState::qr_issued("2@".to_owned());
    let connected = || KnownState { state: State::Connected, qr: None, ..qr_issued() };
    let news = |mut number: Value| {
        number["newly_connected"] = json!(true);
        number
    };
    let same = stored("qr_issued", Some("2@"));
    let old = json!({"status": "connected", "qr": null, "qr_at_ms": 5, "at_ms": NOW - HOUR});
    for (known, mut view, answer, is_written, state, qr_at) in [
        (row(HOUR, same.clone()), qr_issued(), (400, json!({})), false, State::QrIssued, Some(5)),
        (
            row(HOUR, stored("qr_issued", Some("1@"))),
            qr_issued(),
            (200, same.clone()),
            true,
            State::QrIssued,
            Some(5),
        ),
        (row(HOUR, stored("pairing", Some("2@"))), qr_issued(), (200, same), true, State::QrIssued, Some(5)),
        (row(HOUR, Value::Null), qr_issued(), (200, stored("connected", None)), true, State::Connected, None),
        (row(HOUR, Value::Null), qr_issued(), (200, Value::Null), true, State::QrIssued, Some(NOW)),
        (row(HOUR, Value::Null), qr_issued(), (400, json!({})), true, State::QrIssued, Some(NOW)),
        (
            row(HOUR, stored("connected", None)),
            connected(),
            (400, json!({})),
            false,
            State::Connected,
            Some(5),
        ),
        (row(HOUR, old), connected(), (400, json!({})), true, State::Connected, None),
        (
            news(row(HOUR, stored("connected", None))),
            connected(),
            (400, json!({})),
            true,
            State::Connected,
            None,
        ),
        (
            news(row(HOUR, stored("qr_issued", Some("2@")))),
            qr_issued(),
            (400, json!({})),
            false,
            State::QrIssued,
            Some(5),
        ),
    ] {
        let stage = Stage::new().await;
        stage.server.says_to("wpp_save_snapshot", answer.0, &answer.1.to_string());
        stage.session(known.clone()).save_snapshot(&mut view).await;
        assert_eq!((view.state, view.qr_at.map(|at| at.0)), (state, qr_at), "{known}");
        assert_eq!(!stage.calls().is_empty(), is_written, "{known}");
    }
}

#[tokio::test]
async fn one_request_retries_a_pending_webhook() {
    for (claimed, calls, webhook) in [
        (json!(true), ["wpp_claim_webhook", "webhook", "wpp_save_webhook"].as_slice(), Webhook::Registered),
        (json!(false), &["wpp_claim_webhook"], Webhook::Pending),
        (json!("nonsense"), &["wpp_claim_webhook"], Webhook::Pending),
    ] {
        let stage = Stage::new().await;
        stage.says("wpp_claim_webhook", claimed);
        stage.says("/webhook", json!({}));
        stage.says("wpp_save_webhook", Value::Null);
        let mut session = stage.session(row(HOUR, Value::Null));
        session.retry_webhook().await;
        assert_eq!(session.webhook(), webhook);
        assert_eq!(stage.calls(), calls);
        session.retry_webhook().await;
        assert_eq!(stage.calls().is_empty(), webhook == Webhook::Registered);
    }
}
