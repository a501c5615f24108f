//! What can go wrong, and what each of the three parties is told: the log the whole cause, the person a sentence and the
//! way on, the frontend a stable code and whether calling again can help.

use std::time::Duration;

use crate::http::auth::AuthError;
use crate::platform::PlatformError;
use crate::secrets_manager::SecretError;
use crate::sentence::{self as say, Language, Sentence};
use crate::store::StoreError;
use crate::token::protocol::{FetchFailure, RefreshError};
use crate::upstream::CallError;

/// For what is under way already.
const SOON: Option<Duration> = Some(Duration::from_secs(2));

/// Why a request has no good answer. `Display` is for the log and never holds a secret or an upstream's text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's token was not accepted.
    #[error("caller refused: {0}")]
    Caller(#[from] AuthError),
    /// A part of the request is not as it must be.
    #[error("bad request: {}", wrong.about(field, Language::English))]
    BadRequest {
        /// The part: mostly a field's name.
        field: &'static str,
        /// What is wrong with it. The value is not told: it may be a secret in the wrong place.
        wrong: Sentence,
    },
    /// The body is not JSON.
    #[error("the body is not valid JSON: {0}")]
    InvalidJson(serde_json::Error),
    /// The body is of another type than JSON.
    #[error("unsupported content type")]
    UnsupportedMediaType,
    /// The body is larger than a request of ours can be.
    #[error("body too large")]
    BodyTooLarge,
    /// The endpoint does not take this method; the ones it takes.
    #[error("method not allowed")]
    MethodNotAllowed(&'static str),
    /// The user belongs to no organisation.
    #[error("the user has no organisation")]
    NoOrganization,
    /// The organisation has no such number.
    #[error("no such number")]
    NumberNotFound,
    /// The idempotency key was used with another request.
    #[error("idempotency key reused with another request")]
    IdempotencyMismatch,
    /// Another request is still creating the number.
    #[error("another request is still creating the number")]
    CreationInProgress,
    /// The platform refuses a number's API key for good.
    #[error("the platform refuses the API key")]
    ApiKeyRejected,
    /// The platform refuses a key so new that it may not be active yet.
    #[error("the platform does not take the new API key yet")]
    ApiKeyNotActive,
    /// The platform rejected a token, and the one that replaced it.
    #[error("the platform rejects a token it has just given")]
    TokenRejected,
    /// The platform does not know a session that we hold.
    #[error("the platform does not know the session")]
    SessionLost,
    /// A call to the platform failed.
    #[error("platform {0}")]
    Platform(#[from] CallError<PlatformError>),
    /// A call to the database failed.
    #[error("database {0}")]
    Database(#[from] CallError<StoreError>),
    /// The function's own keys cannot be had.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// The time for the request ran out.
    #[error("the time for the request ran out")]
    DeadlineExceeded,
    /// The handler panicked.
    #[error("panic")]
    Panic,
}

impl From<RefreshError> for Error {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::TokenRejected => Self::TokenRejected,
            RefreshError::NoToken(FetchFailure::KeyRejected) => Self::ApiKeyRejected,
            RefreshError::NoToken(FetchFailure::KeyNotActive) => Self::ApiKeyNotActive,
            RefreshError::NoToken(FetchFailure::Platform(error)) => Self::Platform(error),
            RefreshError::Gone => Self::NumberNotFound,
            RefreshError::Database(error) => Self::Database(error),
            RefreshError::OutOfTime => Self::DeadlineExceeded,
        }
    }
}

/// What leaves the function for an [`Error`].
#[derive(Debug)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs.
    pub code: &'static str,
    /// Whether the same request can succeed later. Not the status says that: the frontend repeats some of these in vain.
    pub retryable: bool,
    /// Earliest moment at which a repetition makes sense.
    pub retry_after: Option<Duration>,
    what: Sentence,
    field: &'static str,
    way_on: Sentence,
}

impl ErrorResponse {
    /// What passes by itself.
    fn passing(status: u16, code: &'static str, what: Sentence) -> Self {
        Self { retryable: true, ..Self::lasting(status, code, what, say::TRY_AGAIN) }
    }

    /// What stays until somebody does something about it.
    fn lasting(status: u16, code: &'static str, what: Sentence, way_on: Sentence) -> Self {
        Self { status, code, retryable: false, retry_after: None, what, field: "", way_on }
    }

    fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// All that a person needs, since the frontend shows this alone: what is wrong, and the way on.
    pub fn error(&self, language: Language) -> String {
        format!("{} {}", self.what.about(self.field, language), self.hint(language))
    }

    /// The way on.
    pub fn hint(&self, language: Language) -> &'static str {
        self.way_on.text(language)
    }
}

impl Error {
    /// Whether it says nothing of what was asked, only that the platform cannot be asked now.
    pub fn is_platform_outage(&self) -> bool {
        use PlatformError::{BadAnswer, Busy, TimedOut, Unavailable};
        match self {
            Self::Platform(error) => matches!(error.why, Busy(_) | Unavailable | TimedOut | BadAnswer),
            error => matches!(error, Self::DeadlineExceeded),
        }
    }

    /// Whether it may come of one of our keys having been replaced.
    pub fn doubts_our_keys(&self) -> bool {
        use AuthError::{BadSignature, KeysUnavailable, UnknownKey};
        match self {
            Self::Database(error) => error.why == StoreError::KeyRefused,
            Self::Platform(error) => error.why == PlatformError::SecretRefused,
            Self::Caller(error) => matches!(error, BadSignature | UnknownKey | KeysUnavailable),
            _ => false,
        }
    }

    /// The one place where an error becomes an answer.
    pub fn response(&self) -> ErrorResponse {
        use {AuthError as A, PlatformError as P, StoreError as D};
        let (passing, lasting) = (ErrorResponse::passing, ErrorResponse::lasting);
        match self {
            Self::Caller(A::KeysUnavailable) => passing(503, "auth_unavailable", say::SIGN_IN_UNCHECKED),
            Self::Caller(A::Missing) => lasting(401, "unauthorized", say::NOT_SIGNED_IN, say::SIGN_IN),
            Self::Caller(A::Expired) => lasting(401, "session_expired", say::SIGN_IN_EXPIRED, say::SIGN_IN),
            Self::Caller(_) => lasting(401, "unauthorized", say::SIGN_IN_REFUSED, say::SIGN_IN),

            Self::BadRequest { field, wrong } => {
                ErrorResponse { field, ..lasting(400, "invalid_request", *wrong, say::RELOAD) }
            }
            Self::InvalidJson(_) => lasting(400, "invalid_json", say::BROKEN_JSON, say::RELOAD),
            Self::MethodNotAllowed(_) => lasting(405, "method_not_allowed", say::NOT_AVAILABLE, say::RELOAD),
            Self::BodyTooLarge => lasting(413, "body_too_large", say::TOO_LARGE, say::RELOAD),
            Self::UnsupportedMediaType => lasting(415, "unsupported_media_type", say::NOT_JSON, say::RELOAD),
            Self::IdempotencyMismatch => {
                lasting(422, "idempotency_mismatch", say::USED_DIFFERENTLY, say::RELOAD)
            }

            Self::NoOrganization => lasting(404, "organization_not_found", say::NO_ORGANIZATION, say::TELL),
            Self::NumberNotFound => lasting(404, "number_not_found", say::NO_SUCH_NUMBER, say::CONNECT),
            Self::ApiKeyRejected => lasting(409, "api_key_rejected", say::ACCESS_LOST, say::RECONNECT),
            Self::SessionLost => lasting(409, "session_lost", say::LINK_LOST, say::RECONNECT),
            Self::ApiKeyNotActive => passing(503, "api_key_not_active", say::NOT_ACTIVE_YET).after(SOON),
            Self::CreationInProgress => passing(503, "creation_in_progress", say::STILL_CREATING).after(SOON),

            Self::TokenRejected => passing(502, "token_rejected", say::ACCESS_REFUSED),
            Self::Platform(error) => match error.why {
                P::Busy(after) => passing(503, "platform_busy", say::WHATSAPP_BUSY).after(after),
                P::Unavailable => passing(502, "platform_unavailable", say::WHATSAPP_UNREACHABLE),
                P::TimedOut => passing(504, "platform_timeout", say::WHATSAPP_SLOW),
                P::BadAnswer => passing(502, "platform_bad_answer", say::WHATSAPP_UNREADABLE),
                P::SecretRefused => lasting(502, "platform_secret_rejected", say::SERVICE_REFUSED, say::TELL),
                P::TokenRejected | P::KeyRefused | P::UnknownSession | P::Refused(_) => {
                    lasting(502, "platform_refused", say::WHATSAPP_REFUSED, say::TELL)
                }
            },
            Self::Database(error) => match error.why {
                D::Unavailable { retry_after } => {
                    passing(503, "database_unavailable", say::SERVICE_DOWN).after(retry_after)
                }
                D::TimedOut => passing(504, "database_timeout", say::SERVICE_DOWN),
                D::KeyRefused => lasting(500, "database_key_rejected", say::SERVICE_MISCONFIGURED, say::TELL),
                D::NotMigrated => {
                    lasting(500, "database_not_migrated", say::SERVICE_MISCONFIGURED, say::TELL)
                }
                // A conflict is with another's write, and over with it; what is unreadable comes from a proxy.
                D::Refused { status: 409, .. } | D::BadAnswer => {
                    passing(500, "database_error", say::WENT_WRONG)
                }
                D::Refused { .. } => lasting(500, "database_error", say::WENT_WRONG, say::TELL),
            },

            Self::Secret(SecretError::Unavailable { .. }) => {
                passing(503, "secret_unavailable", say::SERVICE_DOWN)
            }
            Self::Secret(SecretError::Unusable { .. }) => {
                lasting(500, "secret_unusable", say::SERVICE_MISCONFIGURED, say::TELL)
            }
            Self::DeadlineExceeded => passing(504, "deadline_exceeded", say::TOO_SLOW),
            // A mistake of ours makes the same request fail again.
            Self::Panic => lasting(500, "internal_error", say::WENT_WRONG, say::TELL),
        }
    }
}

#[cfg(test)]
mod tests {
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
        SecretError::Unusable { variable: "SUPABASE_SECRET_ARN", problem: ConfigError::not_json() }
    }

    #[test]
    fn a_key_is_doubted_where_an_upstream_or_a_signature_does() {
        let doubting = every().into_iter().filter(Error::doubts_our_keys);
        let codes: BTreeSet<_> = doubting.map(|error| error.response().code).collect();
        let expected =
            ["auth_unavailable", "database_key_rejected", "platform_secret_rejected", "unauthorized"];
        assert_eq!(codes, BTreeSet::from(expected));
        for (caller, doubted) in [
            (AuthError::BadSignature, true),
            (AuthError::UnknownKey, true),
            (AuthError::Missing, false),
            (AuthError::Malformed, false),
            (AuthError::Expired, false),
            (AuthError::WrongIssuer, false),
        ] {
            assert_eq!(Error::Caller(caller).doubts_our_keys(), doubted, "{caller}");
        }
    }

    #[test]
    fn an_upstreams_failure_names_the_call() {
        let timeout = platform_error(PlatformError::TimedOut);
        assert_eq!(timeout.to_string(), "platform status: timed out");
        assert_eq!(database_error(StoreError::TimedOut).to_string(), "database wpp_find_number: timed out");
    }

    #[test]
    fn an_outage_is_what_says_nothing_of_the_number() {
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

    /// Every error; of those that carry something, one for each answer.
    fn every() -> Vec<Error> {
        let fields = [
            say::NOT_HTTP,
            say::NOT_AN_OBJECT,
            say::FIELD_MISSING,
            say::FIELD_NOT_TEXT,
            say::FIELD_NOT_A_FLAG,
            say::FIELD_NOT_AN_ID,
            say::FIELD_NOT_A_NAME,
            say::FIELD_NOT_ALONE,
            say::HEADER_NOT_A_KEY,
        ];
        let after = Some(Duration::from_secs(7));
        let platform = [
            PlatformError::TokenRejected,
            PlatformError::KeyRefused,
            PlatformError::SecretRefused,
            PlatformError::UnknownSession,
            PlatformError::Busy(after),
            PlatformError::Refused(400),
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
            refused(400),
            refused(409),
            StoreError::BadAnswer,
        ];
        let others = [
            Error::Caller(AuthError::KeysUnavailable),
            Error::Caller(AuthError::Missing),
            Error::Caller(AuthError::Expired),
            Error::Caller(AuthError::Malformed),
            Error::Caller(AuthError::BadSignature),
            Error::InvalidJson(serde_json::from_str::<()>("{").unwrap_err()),
            Error::UnsupportedMediaType,
            Error::BodyTooLarge,
            Error::MethodNotAllowed("POST"),
            Error::NoOrganization,
            Error::NumberNotFound,
            Error::IdempotencyMismatch,
            Error::CreationInProgress,
            Error::ApiKeyRejected,
            Error::ApiKeyNotActive,
            Error::TokenRejected,
            Error::SessionLost,
            Error::Secret(SecretError::Unavailable {
                variable: "SUPABASE_SECRET_ARN",
                why: Failure::TimedOut.into(),
            }),
            Error::Secret(unusable_secret()),
            Error::DeadlineExceeded,
            Error::Panic,
        ];
        let fields = fields.map(|wrong| Error::BadRequest { field: "session", wrong });
        let upstream = platform.map(platform_error).into_iter().chain(database.map(database_error));
        others.into_iter().chain(fields).chain(upstream).collect()
    }

    /// The README's table: status, code, whether it is worth repeating.
    fn documented() -> BTreeSet<(u16, String, bool)> {
        let rows =
            include_str!("../../README.md").lines().skip_while(|line| !line.starts_with("| status | code |"));
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
    fn each_error_has_the_status_and_the_code_that_the_readme_says() {
        let said = |error: Error| {
            let public = error.response();
            (public.status, public.code.to_owned(), public.retryable)
        };
        assert_eq!(every().into_iter().map(said).collect::<BTreeSet<_>>(), documented());
    }

    #[test]
    fn each_error_says_what_is_wrong_and_the_way_on_in_either_language() {
        for public in every().iter().map(Error::response) {
            for language in [Language::English, Language::Russian] {
                let (error, hint) = (public.error(language), public.hint(language));
                assert!(error.ends_with(&format!(". {hint}")) && hint.ends_with('.'), "{error}");
                assert!(!error.contains(['{', '}']), "{error}");
            }
            assert_ne!(public.error(Language::English), public.error(Language::Russian));
            let is_to_be_repeated = public.hint(Language::English).contains("try again in a moment");
            assert_eq!(public.retryable, is_to_be_repeated, "{}", public.code);
            assert!(public.retryable || public.retry_after.is_none(), "{}", public.code);
        }
    }

    #[test]
    fn of_a_databases_refusals_a_conflict_alone_passes() {
        for (status, passes) in [(400, false), (404, false), (409, true), (422, false), (302, false)] {
            let error = database_error(StoreError::Refused { status, code: String::new() });
            assert_eq!(error.response().retryable, passes, "{status}");
        }
        assert!(database_error(StoreError::BadAnswer).response().retryable);
    }

    #[test]
    fn what_only_an_operator_can_mend_says_whom_to_tell() {
        let told =
            |error: &Error| error.response().hint(Language::English).contains("administrator or support");
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
        ];
        assert_eq!(told, BTreeSet::from(expected));
    }

    #[test]
    fn a_field_is_named_and_what_passes_on_its_own_says_when() {
        let wrong = Error::BadRequest { field: "force", wrong: say::FIELD_NOT_A_FLAG };
        assert_eq!(wrong.to_string(), "bad request: The field \"force\" must be true or false.");
        assert!(wrong.response().error(Language::Russian).starts_with("Поле «force» должно быть"));
        let after = |error: Error| error.response().retry_after.map(|after| after.as_secs());
        assert_eq!(after(Error::CreationInProgress), Some(2));
        assert_eq!(after(Error::ApiKeyNotActive), Some(2));
        assert_eq!(after(platform_error(PlatformError::Busy(Some(Duration::from_secs(7))))), Some(7));
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(after(database_error(StoreError::Unavailable { retry_after })), Some(7));
    }
}
