//! What can go wrong, and what each of the three parties is told: the log the whole cause, the person a sentence and the
//! way on, the frontend a stable code and whether calling again can help.

use std::time::Duration;

use crate::http::auth_error::{AuthError, KEY_REFETCH_INTERVAL};
use crate::platform::PlatformError;
use crate::secrets::{SERVICE_KEY, SecretError, WPP_SECRET};
use crate::sentence::{self as say, Language, Sentence};
use crate::store::StoreError;
use crate::upstream::CallError;

/// For what is under way already.
const SOON: Option<Duration> = Some(Duration::from_secs(2));

/// Why a request has no good answer. `Display` is for the log and never holds a secret or an upstream's text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    InvalidJson(String),
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
    /// A drawing is wanted of a QR that is not there yet.
    #[error("no QR yet")]
    QrNotReady,
    /// A drawing is wanted of the QR of a number that is linked.
    #[error("no QR: the number is connected")]
    AlreadyConnected,
    /// Half blocks are wanted of a QR that the platform sent as a picture.
    #[error("the QR is a picture")]
    QrIsPicture,
    /// The organization has created too many numbers within an hour; when there is room again.
    #[error("too many new numbers")]
    TooManyNumbers(Duration),
    /// Another request is still creating the number.
    #[error("another request is still creating the number")]
    CreationInProgress,
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
    /// Why a call to the platform failed, if that is what it says.
    pub fn platform(&self) -> Option<PlatformError> {
        if let Self::Platform(error) = self { Some(error.why) } else { None }
    }

    /// Whether it says nothing of what was asked, only that the platform cannot be asked now.
    pub fn is_platform_outage(&self) -> bool {
        use PlatformError::{BadAnswer, Busy, TimedOut, Unavailable};
        matches!(self.platform(), Some(Busy(_) | Unavailable | TimedOut | BadAnswer))
            || *self == Self::DeadlineExceeded
    }

    /// Whether it may come of one of our keys having been replaced.
    pub fn doubts_our_keys(&self) -> bool {
        use AuthError::{BadSignature, KeysUnavailable, UnknownKey};
        let is_callers = matches!(self, Self::Caller(BadSignature | UnknownKey | KeysUnavailable));
        is_callers || self.refused_secret().is_some()
    }

    /// Returns the variable of the secret that a system refuses, if that is what it says.
    pub fn refused_secret(&self) -> Option<&'static str> {
        match self {
            Self::Database(error) if error.why == StoreError::KeyRefused => Some(SERVICE_KEY),
            Self::Platform(error) if error.why == PlatformError::SecretRefused => Some(WPP_SECRET),
            _ => None,
        }
    }

    /// The one place where an error becomes an answer.
    pub fn response(&self) -> ErrorResponse {
        use {AuthError as A, PlatformError as P, StoreError as D};
        let (passing, lasting) = (ErrorResponse::passing, ErrorResponse::lasting);
        match self {
            Self::Caller(A::KeysUnavailable) => passing(503, "auth_unavailable", say::SIGN_IN_UNCHECKED),
            Self::Caller(A::Missing) => lasting(401, "unauthorized", say::NOT_SIGNED_IN, say::SIGN_IN),
            Self::Caller(A::Expired) => {
                lasting(401, "session_expired", say::SIGN_IN_EXPIRED, say::SIGN_IN_AGAIN)
            }
            Self::Caller(A::TooLong) => lasting(431, "token_too_long", say::PROFILE_TOO_LARGE, say::TELL),
            // A new key signs before the project's edge shows it.
            Self::Caller(A::UnknownKey) => {
                passing(401, "unauthorized", say::SIGN_IN_REFUSED).after(Some(KEY_REFETCH_INTERVAL))
            }
            Self::Caller(_) => lasting(401, "unauthorized", say::SIGN_IN_REFUSED, say::SIGN_IN_AGAIN),

            Self::BadRequest { field, wrong } => {
                ErrorResponse { field, ..lasting(400, "invalid_request", *wrong, say::RELOAD) }
            }
            Self::InvalidJson(_) => lasting(400, "invalid_json", say::BROKEN_JSON, say::RELOAD),
            Self::MethodNotAllowed(_) => lasting(405, "method_not_allowed", say::NOT_AVAILABLE, say::RELOAD),
            Self::BodyTooLarge => lasting(413, "body_too_large", say::TOO_LARGE, say::RELOAD),
            Self::UnsupportedMediaType => lasting(415, "unsupported_media_type", say::NOT_JSON, say::RELOAD),

            Self::TooManyNumbers(wait) => {
                passing(429, "too_many_numbers", say::TOO_MANY_NUMBERS).after(Some(*wait))
            }
            Self::NoOrganization => lasting(404, "organization_not_found", say::NO_ORGANIZATION, say::TELL),
            Self::NumberNotFound => lasting(404, "number_not_found", say::NO_SUCH_NUMBER, say::CONNECT),
            Self::QrNotReady => passing(404, "qr_not_ready", say::QR_MISSING).after(SOON),
            Self::AlreadyConnected => lasting(410, "already_connected", say::CONNECTED, say::NOTHING_TO_SCAN),
            Self::QrIsPicture => lasting(406, "qr_is_picture", say::QR_NOT_TEXT, say::SCAN_IN_BROWSER),
            Self::CreationInProgress => passing(503, "creation_in_progress", say::STILL_CREATING).after(SOON),

            Self::Platform(error) => match error.why {
                P::KeyRefused => lasting(409, "api_key_rejected", say::API_KEY_REJECTED, say::RECONNECT),
                P::UnknownSession => lasting(409, "session_lost", say::SESSION_LOST, say::RECONNECT),
                P::KeyNotActive => passing(503, "api_key_not_active", say::NOT_ACTIVE_YET).after(SOON),
                P::TokenRejected => passing(502, "token_rejected", say::TOKEN_REJECTED),
                P::Busy(after) => passing(503, "platform_busy", say::WHATSAPP_BUSY).after(after),
                P::Unavailable => passing(502, "platform_unavailable", say::WHATSAPP_UNREACHABLE),
                P::TimedOut => passing(504, "platform_timeout", say::WHATSAPP_SLOW),
                P::BadAnswer => passing(502, "platform_bad_answer", say::WHATSAPP_UNREADABLE),
                P::SecretRefused => lasting(502, "platform_secret_rejected", say::SERVICE_REFUSED, say::TELL),
                P::NumberRefused(_) => lasting(409, "platform_refused", say::WHATSAPP_REFUSED, say::TELL),
                P::Refused(_) => lasting(502, "platform_refused", say::WHATSAPP_REFUSED, say::TELL),
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
                D::SettingsUnreadable => {
                    lasting(409, "settings_unreadable", say::SETTINGS_UNREADABLE, say::TELL_AND_KEEP)
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
mod tests;
