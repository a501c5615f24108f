//! What can go wrong, and what each of the three parties is told: the log the whole cause, the person a sentence,
//! the frontend a stable code and whether calling again can help.

use std::time::Duration;

use lambda_http::http::StatusCode;

use crate::caller::Refusal;
use crate::hint;
use crate::store::StoreError;
use crate::token::protocol::{FetchFailure, RefreshError};
use crate::wpp::PlatformError;

/// Why a request has no good answer. `Display` is for the log and never holds a secret or an upstream's text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's token was not accepted.
    #[error("caller refused: {0}")]
    Caller(#[from] Refusal),
    /// The request cannot be understood; the text says what is wrong with it, to the person.
    #[error("bad request: {0}")]
    BadRequest(String),
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
    #[error("platform: {0}")]
    Platform(PlatformError),
    /// A call to the database failed.
    #[error("database: {0}")]
    Database(#[from] StoreError),
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
pub struct Public {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    /// A sentence for a person.
    pub sentence: String,
    /// What the person can do about it.
    pub hint: Option<&'static str>,
    /// Earliest moment at which a repetition makes sense.
    pub retry_after: Option<Duration>,
}

impl Public {
    /// What only the person can mend. The frontend shows the sentence alone, so that holds the advice too.
    fn with_advice(code: &'static str, what: &str, hint: &'static str) -> Self {
        let sentence = format!("{what} {hint}");
        Self { status: StatusCode::CONFLICT, code, sentence, hint: Some(hint), retry_after: None }
    }

    /// Whether the same request can succeed later: the statuses that the frontend repeats.
    pub fn retryable(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
    }
}

impl Error {
    /// The one place where an error becomes an answer.
    pub fn public(&self) -> Public {
        use StatusCode as S;
        let (status, code, sentence) = match self {
            Self::Caller(Refusal::KeysUnavailable) => {
                (S::SERVICE_UNAVAILABLE, "auth_unavailable", "Your sign-in cannot be checked right now.")
            }
            Self::Caller(Refusal::Missing) => (S::UNAUTHORIZED, "unauthorized", "Please sign in."),
            Self::Caller(Refusal::Expired) => {
                (S::UNAUTHORIZED, "session_expired", "Your sign-in has expired. Please sign in again.")
            }
            Self::Caller(_) => (S::UNAUTHORIZED, "unauthorized", "Your sign-in was not accepted."),
            Self::BadRequest(what) => (S::BAD_REQUEST, "invalid_request", what.as_str()),
            Self::InvalidJson(_) => (S::BAD_REQUEST, "invalid_json", "The request body is not valid JSON."),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The request body must be JSON.")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large."),
            Self::MethodNotAllowed(_) => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "This address does not take this method.")
            }
            Self::NoOrganization => {
                (S::NOT_FOUND, "organization_not_found", "Your account belongs to no organisation.")
            }
            Self::NumberNotFound => {
                (S::NOT_FOUND, "number_not_found", "Your organisation has no such WhatsApp number.")
            }
            Self::IdempotencyMismatch => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "This Idempotency-Key was used for a different request.",
            ),
            Self::ApiKeyRejected => {
                return Public::with_advice(
                    "api_key_rejected",
                    "WhatsApp no longer accepts this number's key.",
                    hint::RECREATE,
                );
            }
            Self::ApiKeyNotActive => (
                S::SERVICE_UNAVAILABLE,
                "api_key_not_active",
                "WhatsApp is still activating this number. Please try again in a moment.",
            ),
            Self::TokenRejected => {
                (S::BAD_GATEWAY, "token_rejected", "WhatsApp does not accept our access to this number.")
            }
            Self::SessionLost => {
                return Public::with_advice(
                    "session_lost",
                    "WhatsApp no longer knows this number's session.",
                    hint::RECREATE,
                );
            }
            Self::Platform(error) => error.public(),
            Self::Database(error) => error.public(),
            Self::DeadlineExceeded => {
                (S::GATEWAY_TIMEOUT, "deadline_exceeded", "This took too long. Please try again.")
            }
            Self::Panic => (S::INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side."),
        };
        let hint = match self {
            Self::NumberNotFound => Some(hint::CREATE_FIRST),
            _ => None,
        };
        let retry_after = match self {
            Self::Platform(PlatformError::Busy(after)) => *after,
            Self::Database(StoreError::Unavailable { retry_after }) => *retry_after,
            Self::ApiKeyNotActive => Some(Duration::from_secs(2)),
            _ => None,
        };
        Public { status, code, sentence: sentence.to_owned(), hint, retry_after }
    }
}
