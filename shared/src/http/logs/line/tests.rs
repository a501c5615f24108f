use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::messages as say;
use crate::request_log::CallStatus;
use crate::secrets::SecretError;
use crate::upstream::Failure;

/// As `template.yaml` names the function with the longest name, in a stack that is called `wpp-functions`.
const FUNCTION: &str = "wpp-functions-wpp-status";

fn facts(is_first: bool) -> RequestFacts {
    let began_at = UnixMs(1_795_000_000_000);
    RequestFacts {
        function: FUNCTION.to_owned(),
        request_id: Uuid::from_u128(7).to_string(),
        trace_id: Some("Root=1-5759e988-bd862e3fe1be46a994272793".to_owned()),
        began_at,
        ended_at: UnixMs(began_at.0 + 1_230),
        is_first,
    }
}

fn call(name: &'static str, ms: i64) -> Call {
    Call { name, status: CallStatus::Http(200), ms, attempts: 1 }
}

/// Notes on a request that used the stored token.
fn notes(calls: Vec<Call>) -> Notes {
    Notes {
        organization_id: Some(Uuid::from_u128(u128::MAX)),
        session: Some("e6644332".to_owned()),
        token: Some(TokenUse::Reused),
        calls,
        ..Notes::default()
    }
}

fn platform_error(why: PlatformError) -> Error {
    CallError { call: "auth/token", why }.into()
}

fn database_error(why: StoreError) -> Error {
    CallError { call: "wpp_begin_creation", why }.into()
}

fn json_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_line_has_all_that_was_noted() {
    let failed = CallStatus::Failed("connection failed".to_owned());
    let calls = vec![
        call("wpp_find_number", 12),
        Call { status: failed, attempts: 3, ..call("qr", 38) },
        call("status", 41),
    ];
    let line = Line::text(facts(false), notes(calls), Ok(State::Connected));
    let expected = json!({
        "timestamp": "2026-11-18T11:06:41.230Z",
        "level": "INFO",
        "function": FUNCTION,
        "version": VERSION,
        "request_id": "00000000-0000-0000-0000-000000000007",
        "trace_id": "Root=1-5759e988-bd862e3fe1be46a994272793",
        "organization_id": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "session": "e6644332",
        "outcome": "answered",
        "status": 200,
        "state": "connected",
        "token": "reused",
        "calls": [
            {"name": "wpp_find_number", "ms": 12},
            {"name": "qr", "status": "connection failed", "ms": 38, "attempts": 3},
            {"name": "status", "ms": 41},
        ],
        "_aws": {
            "Timestamp": 1_795_000_001_230_i64,
            "CloudWatchMetrics": [{
                "Namespace": "WppFunctions",
                "Dimensions": [["function"]],
                "Metrics": [{"Name": "Took", "Unit": "Milliseconds"}],
            }],
        },
        "Took": 1230,
    });
    assert_eq!(json_of(&line), expected);
    assert!(!line.to_string().contains('\n'));
}

/// The rules of the format: each metric that is named is a number in the same object, and each dimension is a text.
#[test]
fn line_has_exactly_the_metrics_it_names() {
    let refreshed = || Notes { token: Some(TokenUse::Refreshed), ..notes(Vec::new()) };
    let failed = || Notes { refresh_failure: Some("timed out".to_owned()), ..notes(Vec::new()) };
    let stale = || Notes { stale_because: Some(String::new()), ..notes(Vec::new()) };
    type Case = (bool, Notes, Result<State, Error>, &'static [&'static str]);
    let unread =
        || Notes { secret_failure: Some("the secret cannot be read".to_owned()), ..notes(Vec::new()) };
    let evident = || Notes { own_key_rejected: true, ..notes(Vec::new()) };
    let key_refused = || Err(database_error(StoreError::KeyRefused));
    let cases: [Case; 13] = [
        (false, unread(), Ok(State::Connected), &["SecretFailed"]),
        (false, unread(), Err(AuthError::BadSignature.into()), &["SecretFailed", "SignInRefused"]),
        (false, unread(), Err(Error::NumberNotFound), &["SecretFailed"]),
        (
            false,
            Notes { token: Some(TokenUse::Refreshed), ..unread() },
            Ok(State::Connected),
            &["SecretFailed", "TokenRefreshed"],
        ),
        (false, evident(), key_refused(), &["OwnKeyRejected"]),
        (
            false,
            Notes { own_key_rejected: true, ..unread() },
            key_refused(),
            &["OwnKeyRejected", "SecretFailed"],
        ),
        (false, Notes { own_key_rejected: true, ..failed() }, key_refused(), &["OwnKeyRejected"]),
        (false, notes(Vec::new()), Ok(State::Connected), &[]),
        (true, refreshed(), Ok(State::Connected), &["TokenRefreshed"]),
        (false, failed(), Ok(State::Connected), &["RefreshFailed"]),
        (false, failed(), Err(platform_error(PlatformError::TimedOut)), &["RefreshFailed"]),
        (false, failed(), key_refused(), &["RefreshFailed"]),
        (false, stale(), Ok(State::Connected), &["PlatformFailed"]),
    ];
    for (is_first, notes, outcome, counted) in cases {
        let line = json_of(&Line::text(facts(is_first), notes, outcome.as_ref().map(|state| *state)));
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert!(line[directive["Dimensions"][0][0].as_str().unwrap()].is_string(), "{line}");
        let named: BTreeSet<_> = directive["Metrics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["Name"].as_str().unwrap())
            .collect();
        assert_eq!(named, counted.iter().copied().chain(["Took"]).collect(), "{line}");
        assert!(counted.iter().all(|metric| line[metric] == 1), "{line}");
        assert_eq!(line.get("cold_start"), is_first.then_some(&json!(1)), "{line}");
        let there = line.as_object().unwrap().keys().filter(|key| key.starts_with(char::is_uppercase));
        assert_eq!(there.map(String::as_str).collect::<BTreeSet<_>>(), named, "{line}");
        let is_bad = |name: &&&str| name.ends_with("ed") && **name != "TokenRefreshed";
        let is_refusal = line["outcome"] == "refused";
        assert_eq!(line["level"] == "INFO", is_refusal || !named.iter().any(|name| is_bad(&name)), "{line}");
    }
}

#[test]
fn failure_counts_under_one_metric() {
    use PlatformError as P;
    for (error, metric) in [
        // Without evidence these are faults like others.
        (database_error(StoreError::KeyRefused), Some(Metric::DatabaseFailed)),
        (platform_error(P::SecretRefused), Some(Metric::PlatformFailed)),
        (platform_error(P::Unavailable), Some(Metric::PlatformFailed)),
        (platform_error(P::TimedOut), Some(Metric::PlatformFailed)),
        (platform_error(P::Busy(None)), Some(Metric::PlatformFailed)),
        (platform_error(P::TokenRejected), Some(Metric::PlatformFailed)),
        (database_error(StoreError::Unavailable { retry_after: None }), Some(Metric::DatabaseFailed)),
        (database_error(StoreError::NotMigrated), Some(Metric::DatabaseFailed)),
        (database_error(StoreError::SettingsUnreadable), None),
        (AuthError::KeysUnavailable.into(), Some(Metric::DatabaseFailed)),
        (AuthError::BadSignature.into(), Some(Metric::SignInRefused)),
        (AuthError::UnknownKey.into(), Some(Metric::SignInRefused)),
        (AuthError::WrongAlgorithm.into(), Some(Metric::SignInRefused)),
        (AuthError::WrongIssuer.into(), Some(Metric::SignInRefused)),
        (AuthError::Expired.into(), None),
        (AuthError::Missing.into(), None),
        (AuthError::WrongRole.into(), None),
        (platform_error(P::KeyRefused), None),
        (platform_error(P::KeyNotActive), None),
        (platform_error(P::UnknownSession), None),
        (platform_error(P::NumberRefused(403)), Some(Metric::PlatformRefused)),
        (platform_error(P::Refused(403)), Some(Metric::PlatformFailed)),
        (Error::DeadlineExceeded, None),
    ] {
        assert_eq!(failure(&notes(Vec::new()), Some(&error)), metric, "{error}");
    }
}

#[test]
fn request_error_is_logged_before_secret_failure() {
    let unread =
        || Notes { secret_failure: Some("the secret cannot be read".to_owned()), ..notes(Vec::new()) };
    let error_of = |notes, outcome: Result<State, Error>| {
        json_of(&Line::text(facts(false), notes, outcome.as_ref().map(|state| *state)))["error"].clone()
    };
    assert_eq!(error_of(unread(), Ok(State::Connected)), "the secret cannot be read");
    assert_eq!(error_of(unread(), Err(Error::NumberNotFound)), "no such number; the secret cannot be read");
    let refused = SecretError::Unavailable { variable: "WPP_SECRET_ARN", why: Failure::TimedOut.into() };
    let line = Line::text(facts(false), notes(Vec::new()), Err(&refused.into()));
    assert_eq!(json_of(&line)["SecretFailed"], 1);
    assert_eq!(json_of(&line)["error"], "the secret that WPP_SECRET_ARN names cannot be read: timed out");
}

/// What any client can send, what any user can send, and what the rows of one tenant can cause. An alarm that one of these can set off
/// alone would soon be ignored. The exception is `SignInRefusedAlarm`, which goes off only if most requests are refused.
#[test]
fn callers_raise_no_alarm() {
    use AuthError as A;
    use PlatformError as P;
    let template = include_str!("../../../../../template.yaml");
    let is_watched =
        |metric: Metric| template.contains(&format!("MetricName: {}, Dim", json!(metric).as_str().unwrap()));
    assert!(is_watched(Metric::PlatformFailed) && is_watched(Metric::SignInRefused));
    let strangers = [
        A::Missing,
        A::Malformed,
        A::TooLong,
        A::WrongAlgorithm,
        A::UnknownKey,
        A::BadSignature,
        A::WrongAudience,
        A::WrongIssuer,
        A::WrongRole,
        A::Expired,
        A::NotYetValid,
        A::WrongSubject,
    ];
    let wrong = |field: &'static str, wrong| Error::bad_request(field, wrong);
    let users = [
        wrong("event", say::MALFORMED),
        wrong("session", say::FIELD_NOT_A_SESSION),
        Error::MethodNotAllowed(&[Method::POST]),
        Error::InvalidJson("EOF".to_owned()),
        Error::BodyTooLarge,
        Error::NoOrganization,
        Error::NumberNotFound,
        Error::NoCredentials,
        Error::QrNotReady,
        Error::AlreadyConnected,
        Error::QrIsPicture,
        Error::TooManyNumbers(Duration::from_secs(60)),
    ];
    // A key, a session and a token that belong to another number or to no number, and settings that are not an object.
    let tenants = [
        P::KeyRefused,
        P::UnknownSession,
        P::NumberRefused(400),
        P::NumberRefused(403),
        P::NumberRefused(413),
    ];
    let strangers = strangers.map(Error::from).into_iter();
    let tenants =
        tenants.map(platform_error).into_iter().chain([database_error(StoreError::SettingsUnreadable)]);
    for error in strangers.chain(users).chain(tenants) {
        assert!(error.response().status < 500, "{error} counts for ApiErrorsAlarm");
        let rung = failure(&notes(Vec::new()), Some(&error)).filter(|metric| is_watched(*metric));
        assert!(rung.is_none_or(|metric| metric == Metric::SignInRefused), "{error}: {rung:?}");
    }
    // A failure that locks all users out still sets off an alarm.
    for why in [P::Refused(400), P::SecretRefused, P::TokenRejected, P::Unavailable] {
        assert!(failure(&notes(Vec::new()), Some(&platform_error(why))).is_some_and(is_watched), "{why}");
    }
}

/// An alarm on a name that is never emitted would stay silent for ever.
#[test]
fn template_watches_only_existing_metrics() {
    let all = [
        Metric::Took,
        Metric::TokenRefreshed,
        Metric::OwnKeyRejected,
        Metric::SecretFailed,
        Metric::RefreshFailed,
        Metric::PlatformFailed,
        Metric::PlatformRefused,
        Metric::DatabaseFailed,
        Metric::SignInRefused,
    ];
    let ours = all.map(|metric| json!(metric).as_str().unwrap().to_owned());
    let template = include_str!("../../../../../template.yaml");
    for (_, watched) in
        template.match_indices(NAMESPACE).map(|(at, _)| template[at + NAMESPACE.len()..].split_at(0))
    {
        // `Namespace: WppFunctions, MetricName: OwnKeyRejected` of an alarm, `"WppFunctions", "Took"` of a dashboard.
        let name = watched.trim_start_matches(['"', ',', ' ', '\n']).trim_start_matches("MetricName: ");
        let name: String =
            name.trim_start_matches('"').chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(ours.contains(&name), "{name} is none of {ours:?}");
    }
}

#[test]
fn status_decides_the_outcome_and_the_level() {
    let warned = Notes { stale_because: Some("timed out".to_owned()), ..notes(Vec::new()) };
    for (notes, outcome, expected) in [
        (notes(Vec::new()), Ok(State::Connected), ["answered", "INFO"]),
        (warned, Ok(State::Connected), ["answered", "WARN"]),
        (notes(Vec::new()), Err(Error::NumberNotFound), ["refused", "INFO"]),
        (notes(Vec::new()), Err(Error::Panic), ["failed", "ERROR"]),
    ] {
        let line = json_of(&Line::text(facts(false), notes, outcome.as_ref().map(|state| *state)));
        assert_eq!([&line["outcome"], &line["level"]], expected);
    }
}
