use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::*;
use crate::record::CallStatus;
use crate::record::trace::Trace;
use crate::secrets::SecretError;
use crate::sentence as say;
use crate::upstream::Failure;

/// As `template.yaml` names the function with the longest name, in a stack that is called `wpp-functions`.
const FUNCTION: &str = "wpp-functions-wpp-status";

fn request(is_first: bool) -> Request {
    let began = UnixMs(1_795_000_000_000);
    Request { function: FUNCTION.to_owned(), began, ended: UnixMs(began.0 + 1_230), is_first }
}

fn call(name: &'static str, ms: i64) -> Call {
    Call { name, status: CallStatus::Http(200), ms, attempts: 1 }
}

/// All that can be noted of a request.
fn record(calls: Vec<Call>) -> Record {
    let xray = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
    Record {
        organization_id: Some(Uuid::from_u128(u128::MAX)),
        session: Some("e6644332".to_owned()),
        token: Some(TokenUse::Reused),
        calls,
        ..Record::new(Uuid::from_u128(7).to_string(), Trace::of(Some(xray), &HeaderMap::new()))
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
fn a_line_says_all_that_was_noted_and_the_slowest_call_first() {
    let failed = CallStatus::Failed("connection failed".to_owned());
    let calls = vec![
        call("wpp_find_number", 12),
        Call { status: failed, attempts: 3, ..call("qr", 38) },
        call("status", 41),
    ];
    let line = Line::text(request(false), Record { source: Some(Source::Live), ..record(calls) }, Ok(200));
    let expected = json!({
        "timestamp": "2026-11-18T11:06:41.230Z",
        "level": "INFO",
        "function": FUNCTION,
        "version": VERSION,
        "request_id": "00000000-0000-0000-0000-000000000007",
        "trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        "organization_id": "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "session": "e6644332",
        "outcome": "answered",
        "status": 200,
        "source": "live",
        "token": "reused",
        "calls": [
            {"name": "status", "ms": 41},
            {"name": "qr", "status": "connection failed", "ms": 38, "attempts": 3},
            {"name": "wpp_find_number", "ms": 12},
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

/// What the rules of the format ask for: each metric that is named is a number beside it, each dimension a text.
#[test]
fn every_metric_that_a_line_names_is_in_it_and_no_other() {
    let refreshed = || Record { token: Some(TokenUse::Refreshed), ..record(Vec::new()) };
    let failed = || Record { refresh_failure: Some("timed out".to_owned()), ..record(Vec::new()) };
    let stale =
        || Record { source: Some(Source::Stale), stale_because: Some(String::new()), ..record(Vec::new()) };
    type Case = (bool, Record, Result<u16, Error>, &'static [&'static str]);
    let unread =
        || Record { secret_failure: Some("the secret cannot be read".to_owned()), ..record(Vec::new()) };
    let evident = || Record { own_key_rejected: true, ..record(Vec::new()) };
    let key_refused = || Err(database_error(StoreError::KeyRefused));
    let cases: [Case; 13] = [
        (false, unread(), Ok(200), &["SecretFailed"]),
        (false, unread(), Err(AuthError::BadSignature.into()), &["SecretFailed", "SignInRefused"]),
        (false, unread(), Err(Error::NumberNotFound), &["SecretFailed"]),
        (
            false,
            Record { token: Some(TokenUse::Refreshed), ..unread() },
            Ok(200),
            &["SecretFailed", "TokenRefreshed"],
        ),
        (false, evident(), key_refused(), &["OwnKeyRejected"]),
        (
            false,
            Record { own_key_rejected: true, ..unread() },
            key_refused(),
            &["OwnKeyRejected", "SecretFailed"],
        ),
        (false, Record { own_key_rejected: true, ..failed() }, key_refused(), &["OwnKeyRejected"]),
        (false, record(Vec::new()), Ok(200), &[]),
        (true, refreshed(), Ok(200), &["TokenRefreshed"]),
        (false, failed(), Ok(200), &["RefreshFailed"]),
        (false, failed(), Err(platform_error(PlatformError::TimedOut)), &["RefreshFailed"]),
        (false, failed(), key_refused(), &["RefreshFailed"]),
        (false, stale(), Ok(200), &["PlatformFailed"]),
    ];
    for (is_first, record, outcome, counted) in cases {
        let line = json_of(&Line::text(request(is_first), record, outcome.as_ref().map(|status| *status)));
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
fn a_failure_counts_under_what_somebody_has_to_do_about_it() {
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
        assert_eq!(failure(&record(Vec::new()), Some(&error)), metric, "{error}");
    }
}

#[test]
fn a_secret_failure_stands_behind_the_error_of_the_request() {
    let unread =
        || Record { secret_failure: Some("the secret cannot be read".to_owned()), ..record(Vec::new()) };
    let error_of = |record, outcome: Result<u16, Error>| {
        json_of(&Line::text(request(false), record, outcome.as_ref().map(|status| *status)))["error"].clone()
    };
    assert_eq!(error_of(unread(), Ok(200)), "the secret cannot be read");
    assert_eq!(error_of(unread(), Err(Error::NumberNotFound)), "no such number; the secret cannot be read");
    let refused = SecretError::Unavailable { variable: "WPP_SECRET_ARN", why: Failure::TimedOut.into() };
    let line = Line::text(request(false), record(Vec::new()), Err(&refused.into()));
    assert_eq!(json_of(&line)["SecretFailed"], 1);
    assert_eq!(json_of(&line)["error"], "the secret that WPP_SECRET_ARN names cannot be read: timed out");
}

/// Whatever a request may meet, with many calls and in the longest words that there are for it.
#[test]
fn no_line_is_longer_than_700_bytes_and_the_quickest_calls_are_left_out_first() {
    let calls = || {
        let failed = CallStatus::Failed("connection failed".to_owned());
        let slow = Call { status: failed, attempts: 3, ..call("auth/token", 10_000) };
        let polls = (0..8).map(|nth| call("qr", 400 + nth));
        let database =
            ["wpp_begin_creation", "wpp_claim_refresh", "wpp_release_refresh", "wpp_release_creation"];
        polls.chain(database.map(|name| call(name, 30))).chain([slow]).collect::<Vec<_>>()
    };
    let noted = |token, source, failure: Option<&str>| Record {
        token: Some(token),
        token_why: Some("rejected"),
        source,
        refresh_failure: failure.map(str::to_owned),
        ..record(calls())
    };
    let timed_out = Some("platform auth/token: timed out");
    let stale = Record {
        stale_because: timed_out.map(str::to_owned),
        ..noted(TokenUse::Refreshed, Some(Source::Stale), None)
    };
    let untouched = || Record { token: None, ..record(calls()) };
    let refused = StoreError::Refused { status: 400, code: "PGRST202".to_owned() };
    let cases: [(Record, Result<u16, Error>); 7] = [
        (noted(TokenUse::Refreshed, Some(Source::Live), None), Ok(200)),
        (noted(TokenUse::Unsaved, Some(Source::Live), timed_out), Ok(200)),
        (stale, Ok(200)),
        (noted(TokenUse::Failed, None, timed_out), Err(platform_error(PlatformError::TimedOut))),
        (noted(TokenUse::Failed, None, timed_out), Err(database_error(refused))),
        (untouched(), Err(platform_error(PlatformError::SecretRefused))),
        (untouched(), Err(database_error(StoreError::NotMigrated))),
    ];
    for (record, outcome) in cases {
        for is_first in [false, true] {
            let text = Line::text(request(is_first), record.clone(), outcome.as_ref().map(|status| *status));
            let line = json_of(&text);
            assert!(text.len() <= LIMIT, "{} bytes: {text}", text.len());
            let kept = line["calls"].as_array().map_or(0, Vec::len);
            let left_out = usize::try_from(line["more_calls"].as_u64().unwrap()).unwrap();
            assert_eq!(kept + left_out, calls().len(), "{text}");
            assert!(kept == 0 || line["calls"][0]["name"] == "auth/token", "{text}");
            // What is left of an error names the call.
            let error = line["error"].as_str();
            assert!(error.is_none_or(|error| error.contains(": ")), "{text}");
        }
    }
}

/// Of a warm poll, nothing is left out.
#[test]
fn the_line_of_a_poll_has_all_its_calls() {
    let calls = || vec![call("wpp_find_number", 1_000), call("status", 1_000), call("qr", 1_000)];
    let line = Line::text(request(false), Record { source: Some(Source::Live), ..record(calls()) }, Ok(200));
    assert_eq!(json_of(&line)["calls"].as_array().unwrap().len(), 3);
}

/// What anybody can send, what any user can, and what the rows of one tenant can bring about. An alarm that one of them rings
/// alone would soon be ignored; but for `SignInRefusedAlarm`, which wants most requests to be so.
#[test]
fn a_stranger_rings_no_alarm() {
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
    let wrong = |field, wrong| Error::BadRequest { field, wrong };
    let users = [
        wrong("event", say::NOT_HTTP),
        wrong("session", say::FIELD_NOT_A_NAME),
        Error::MethodNotAllowed("POST"),
        Error::InvalidJson("EOF".to_owned()),
        Error::UnsupportedMediaType,
        Error::BodyTooLarge,
        Error::NoOrganization,
        Error::NumberNotFound,
        Error::QrNotReady,
        Error::AlreadyConnected,
        Error::QrIsPicture,
        Error::TooManyNumbers(Duration::from_secs(60)),
    ];
    // A key, a session and a token of another's, or of nobody's, and settings that are no object.
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
        let rung = failure(&record(Vec::new()), Some(&error)).filter(|metric| is_watched(*metric));
        assert!(rung.is_none_or(|metric| metric == Metric::SignInRefused), "{error}: {rung:?}");
    }
    // What locks everybody out still pages.
    for why in [P::Refused(400), P::SecretRefused, P::TokenRejected, P::Unavailable] {
        assert!(failure(&record(Vec::new()), Some(&platform_error(why))).is_some_and(is_watched), "{why}");
    }
}

/// An alarm on a name that is never emitted would stay silent for ever.
#[test]
fn every_metric_that_the_template_watches_is_one_of_ours() {
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
