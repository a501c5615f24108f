use std::collections::BTreeSet;

use super::*;
use crate::config::ConfigError;
use crate::upstream::Failure;

fn platform_error(why: PlatformError) -> Error {
    CallError { call: "status", why }.into()
}

fn database_error(why: StoreError) -> Error {
    CallError { call: "wpp_find_number", why }.into()
}

fn unusable_secret() -> SecretError {
    SecretError::Unusable {
        variable: "SUPABASE_SECRET_ARN",
        problem: ConfigError { variable: "SecretString", problem: "is not a JSON object" },
    }
}

#[test]
fn refused_secret_asks_for_a_new_one() {
    let doubting = every().into_iter().filter(Error::may_need_new_secrets);
    let codes: BTreeSet<_> = doubting.map(|error| error.response().code).collect();
    let expected = ["auth_unavailable", "database_key_rejected", "platform_secret_rejected", "unauthorized"];
    assert_eq!(codes, BTreeSet::from(expected));
    for (caller, doubted) in [
        (AuthError::BadSignature, true),
        (AuthError::UnknownKey, true),
        (AuthError::Missing, false),
        (AuthError::Malformed, false),
        (AuthError::Expired, false),
        (AuthError::WrongIssuer, false),
    ] {
        assert_eq!(Error::Caller(caller).may_need_new_secrets(), doubted, "{caller}");
    }
}

#[test]
fn an_upstreams_failure_names_the_call() {
    let timeout = platform_error(PlatformError::TimedOut);
    assert_eq!(timeout.to_string(), "platform status: timed out");
    assert_eq!(database_error(StoreError::TimedOut).to_string(), "database wpp_find_number: timed out");
}

#[test]
fn outages_are_errors_that_do_not_concern_the_number() {
    let outages = every().into_iter().filter(Error::is_platform_outage);
    let codes: BTreeSet<_> = outages.map(|error| error.response().code).collect();
    let expected = [
        "deadline_exceeded",
        "platform_bad_answer",
        "platform_busy",
        "platform_timeout",
        "platform_unavailable",
    ];
    assert_eq!(codes, BTreeSet::from(expected));
}

/// Returns every error. For an error with a payload, returns one for each answer.
fn every() -> Vec<Error> {
    let fields = [
        say::MALFORMED,
        say::NOT_AN_OBJECT,
        say::FIELD_MISSING,
        say::FIELD_NOT_TEXT,
        say::FIELD_NOT_A_FLAG,
        say::FIELD_NOT_AN_ID,
        say::FIELD_NOT_A_SESSION,
        say::FIELD_NOT_ALONE,
        say::FIELD_CONTRADICTS,
        say::FIELD_UNKNOWN,
    ];
    let after = Some(Duration::from_secs(7));
    let platform = [
        PlatformError::TokenRejected,
        PlatformError::KeyRefused,
        PlatformError::KeyNotActive,
        PlatformError::SecretRefused,
        PlatformError::UnknownSession,
        PlatformError::Busy(after),
        PlatformError::Refused(400),
        PlatformError::NumberRefused(400),
        PlatformError::Unavailable,
        PlatformError::TimedOut,
        PlatformError::BadAnswer,
    ];
    let refused = |status| StoreError::Refused { status, code: "P0001".to_owned() };
    let database = [
        StoreError::Unavailable { retry_after: after },
        StoreError::TimedOut,
        StoreError::KeyRefused,
        StoreError::NotMigrated,
        StoreError::SettingsUnreadable,
        refused(400),
        refused(409),
        StoreError::BadAnswer,
    ];
    let others = [
        Error::Caller(AuthError::KeysUnavailable),
        Error::Caller(AuthError::Missing),
        Error::Caller(AuthError::Expired),
        Error::Caller(AuthError::Malformed),
        Error::Caller(AuthError::TooLong),
        Error::Caller(AuthError::UnknownKey),
        Error::Caller(AuthError::BadSignature),
        Error::InvalidJson("EOF while parsing an object".to_owned()),
        Error::BodyTooLarge,
        Error::MethodNotAllowed(&[Method::POST]),
        Error::NoOrganization,
        Error::NumberNotFound,
        Error::NoCredentials,
        Error::QrNotReady,
        Error::AlreadyConnected,
        Error::QrIsPicture,
        Error::TooManyNumbers(Duration::from_secs(7)),
        Error::CreationInProgress,
        Error::Secret(SecretError::Unavailable {
            variable: "SUPABASE_SECRET_ARN",
            why: Failure::TimedOut.into(),
        }),
        Error::Secret(unusable_secret()),
        Error::DeadlineExceeded,
        Error::Panic,
    ];
    let fields = fields.map(|wrong| Error::bad_request("session", wrong));
    let upstream = platform.map(platform_error).into_iter().chain(database.map(database_error));
    others.into_iter().chain(fields).chain(upstream).collect()
}

/// Reads the table in `docs/api.md`: status, code, and whether retrying can help.
fn documented() -> BTreeSet<(u16, String, bool)> {
    let rows = include_str!("../../../docs/api.md")
        .lines()
        .skip_while(|line| !line.starts_with("| status | code |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (status, retryable) = (cells[0].parse().unwrap(), cells[2] == "yes");
        let codes = cells[1].split('`').skip(1).step_by(2).map(str::to_owned);
        codes.map(move |code| (status, code, retryable)).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn errors_have_the_documented_status_and_code() {
    let answered = |error: Error| {
        let public = error.response();
        (public.status, public.code.to_owned(), public.retryable)
    };
    assert_eq!(every().into_iter().map(answered).collect::<BTreeSet<_>>(), documented());
}

#[test]
fn each_error_ends_with_what_to_do_in_either_language() {
    for public in every().iter().map(Error::response) {
        for language in [Language::English, Language::Russian] {
            let (error, action) = (public.text(language), public.action.text(language));
            assert!(error.ends_with(&format!(". {action}")) && action.ends_with('.'), "{error}");
            assert!(!error.contains(['{', '}']), "{error}");
        }
        assert_ne!(public.text(Language::English), public.text(Language::Russian));
        assert_eq!(
            public.retryable,
            public.text(Language::English).contains("try again "),
            "{}",
            public.code
        );
        assert!(public.retryable || public.retry_after.is_none(), "{}", public.code);
    }
}

#[test]
fn only_a_database_conflict_is_retryable() {
    for (status, passes) in [(400, false), (404, false), (409, true), (422, false), (302, false)] {
        let error = database_error(StoreError::Refused { status, code: String::new() });
        assert_eq!(error.response().retryable, passes, "{status}");
    }
    assert!(database_error(StoreError::BadAnswer).response().retryable);
}

#[test]
fn operator_errors_say_to_contact_support() {
    let told = |error: &Error| error.response().text(Language::English).contains("administrator or support");
    let told: BTreeSet<_> =
        every().iter().filter(|error| told(error)).map(|error| error.response().code).collect();
    let expected = [
        "database_error",
        "database_key_rejected",
        "database_not_migrated",
        "internal_error",
        "organization_not_found",
        "platform_refused",
        "platform_secret_rejected",
        "secret_unusable",
        "token_too_long",
    ];
    assert_eq!(told, BTreeSet::from(expected));
}

#[test]
fn transient_error_says_when_to_retry() {
    let wrong = Error::bad_request("force", say::FIELD_NOT_A_FLAG);
    assert_eq!(wrong.to_string(), "bad request: The field \"force\" must be true or false.");
    assert!(wrong.response().text(Language::Russian).starts_with("Поле «force» должно быть"));
    let after = |error: Error| error.response().retry_after.map(|after| after.as_secs());
    assert_eq!(after(Error::CreationInProgress), Some(2));
    assert_eq!(after(Error::QrNotReady), Some(2));
    assert_eq!(after(Error::Caller(AuthError::UnknownKey)), Some(30));
    assert_eq!(after(platform_error(PlatformError::KeyNotActive)), Some(2));
    assert_eq!(after(platform_error(PlatformError::Busy(Some(Duration::from_secs(7))))), Some(7));
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(after(database_error(StoreError::Unavailable { retry_after })), Some(7));
}
