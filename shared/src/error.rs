//! The errors. The log gets the whole cause. Users get a sentence that says what is wrong and what to do. Programs get a stable
//! code, and whether retrying can help.

use std::borrow::Cow;
use std::time::Duration;

use crate::secrets::{SERVICE_KEY, SecretError, WPP_SECRET};
use crate::wpp::{ClientError, PlatformError};
use http::Method;

use crate::messages::{self as say, Language, Sentence};
use crate::store::StoreError;
use crate::upstream::CallError;

/// How long to wait for work that is already under way.
const SOON: Option<Duration> = Some(Duration::from_secs(2));

/// Why a request failed. `Display` is for the log, and never contains a secret or an upstream's text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The user's token was not accepted.
    #[error("caller refused: {0}")]
    Caller(#[from] AuthError),
    /// A part of the request is invalid.
    #[error("bad request: {}", wrong.about(field, Language::English))]
    BadRequest {
        /// The part, usually a field's name.
        field: Cow<'static, str>,
        /// What is wrong with it. Does not quote the value, which may be a secret in the wrong field.
        wrong: Sentence,
    },
    /// The body is not JSON.
    #[error("the body is not valid JSON: {0}")]
    InvalidJson(String),
    /// The body is larger than any request of the functions.
    #[error("body too large")]
    BodyTooLarge,
    /// The function does not take this method; it takes these.
    #[error("method not allowed")]
    MethodNotAllowed(&'static [Method]),
    /// The user belongs to no organization.
    #[error("the user has no organization")]
    NoOrganization,
    /// The organization has no such number.
    #[error("no such number")]
    NumberNotFound,
    /// The number has no credentials yet.
    #[error("the number has no credentials yet")]
    NoCredentials,
    /// An image was requested, but there is no QR code yet.
    #[error("no QR yet")]
    QrNotReady,
    /// An image was requested, but the number is connected and has no QR code.
    #[error("no QR: the number is connected")]
    AlreadyConnected,
    /// Text was requested, but the platform sent the QR code as an image.
    #[error("the QR is a picture")]
    QrIsPicture,
    /// The organization has created too many numbers in the last hour. Holds the time until the next one is allowed.
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
    /// The function's own secrets cannot be read.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// The time for the request ran out.
    #[error("the time for the request ran out")]
    DeadlineExceeded,
    /// The handler panicked.
    #[error("panic")]
    Panic,
}

/// The shortest time between two fetches of the keys that verify access tokens, and so the longest time until a new key is accepted.
pub(crate) const KEY_REFETCH_INTERVAL: Duration = Duration::from_secs(30);

/// The check that a caller failed. Its text is for the log, and contains no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization` header, or it is blank.
    #[error("the request has no access token")]
    Missing,
    /// The header is not `Bearer` and one JWT, or a claim is not of its type.
    #[error("the access token cannot be read")]
    Malformed,
    /// The header is longer than the limit for tokens.
    #[error("the access token is too long")]
    TooLong,
    /// The token's algorithm is not that of its key.
    #[error("the algorithm of the access token is not accepted")]
    WrongAlgorithm,
    /// The project has no such key, or has not published it yet.
    #[error("the access token is signed with an unknown key")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature of the access token is wrong")]
    BadSignature,
    /// `aud` is not that of a signed-in user.
    #[error("the audience of the access token is not a signed-in user's")]
    WrongAudience,
    /// The configuration does not name this `iss`.
    #[error("the issuer of the access token is not one that SUPABASE_JWT_ISSUER names")]
    WrongIssuer,
    /// `role` is not that of a signed-in user: it is a service key or an anon key.
    #[error("the role of the access token is not a signed-in user's")]
    WrongRole,
    /// `exp` has passed.
    #[error("the access token has expired")]
    Expired,
    /// `nbf` has not been reached.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// `sub` is not a user's id.
    #[error("the subject of the access token is not a user's id")]
    WrongSubject,
    /// The signing keys cannot be fetched, so the token was not verified.
    #[error("the keys that verify access tokens cannot be fetched")]
    KeysUnavailable,
}

/// The answer to an [`Error`].
#[derive(Debug)]
pub struct ErrorResponse {
    /// The HTTP status.
    pub status: u16,
    /// A stable word for programs.
    pub code: &'static str,
    /// Whether the same request can succeed later. The status alone does not say so.
    pub retryable: bool,
    /// How long to wait before a retry makes sense.
    pub retry_after: Option<Duration>,
    message: Sentence,
    field: Cow<'static, str>,
    action: Sentence,
}

impl ErrorResponse {
    /// Makes an error that goes away without help.
    fn transient(status: u16, code: &'static str, message: Sentence) -> Self {
        Self { retryable: true, ..Self::permanent(status, code, message, say::TRY_AGAIN) }
    }

    /// Makes an error that stays until a person acts.
    fn permanent(status: u16, code: &'static str, message: Sentence, action: Sentence) -> Self {
        Self { status, code, retryable: false, retry_after: None, message, field: "".into(), action }
    }

    fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// Returns what is wrong and what to do. The frontend shows only this.
    pub fn text(&self, language: Language) -> String {
        format!("{} {}", self.message.about(&self.field, language), self.action.text(language))
    }
}

impl From<ClientError<CallError<StoreError>>> for Error {
    fn from(error: ClientError<CallError<StoreError>>) -> Self {
        match error {
            ClientError::Platform(error) => Self::Platform(error),
            ClientError::Store(error) => Self::Database(error),
            ClientError::NumberGone => Self::NumberNotFound,
            ClientError::OutOfTime => Self::DeadlineExceeded,
            ClientError::TooManySteps => {
                Self::Database(CallError { call: "wpp_claim_refresh", why: StoreError::BadAnswer })
            }
        }
    }
}

impl Error {
    /// Makes the error for a request in which this part is invalid.
    pub fn bad_request(field: impl Into<Cow<'static, str>>, wrong: Sentence) -> Self {
        Self::BadRequest { field: field.into(), wrong }
    }

    /// Makes the error for a request that lacks a required field.
    pub fn missing_field(field: &'static str) -> Self {
        Self::bad_request(field, say::FIELD_MISSING)
    }

    /// Returns why a call to the platform failed, if one did.
    pub fn platform(&self) -> Option<PlatformError> {
        if let Self::Platform(error) = self { Some(error.why) } else { None }
    }

    /// Whether the platform cannot be asked now.
    pub fn is_platform_outage(&self) -> bool {
        use PlatformError::{BadAnswer, Busy, TimedOut, Unavailable};
        matches!(self.platform(), Some(Busy(_) | Unavailable | TimedOut | BadAnswer))
            || *self == Self::DeadlineExceeded
    }

    /// Whether a secret of the function may have been replaced.
    pub(crate) fn may_need_new_secrets(&self) -> bool {
        use AuthError::{BadSignature, KeysUnavailable, UnknownKey};
        let is_callers = matches!(self, Self::Caller(BadSignature | UnknownKey | KeysUnavailable));
        is_callers || self.refused_secret().is_some()
    }

    /// Returns the variable of the secret that a system refuses; `None` for any other error.
    pub(crate) fn refused_secret(&self) -> Option<&'static str> {
        match self {
            Self::Database(error) if error.why == StoreError::KeyRefused => Some(SERVICE_KEY),
            Self::Platform(error) if error.why == PlatformError::SecretRefused => Some(WPP_SECRET),
            _ => None,
        }
    }

    /// Turns the error into an answer. This is the only place that does.
    pub fn response(&self) -> ErrorResponse {
        use {AuthError as A, PlatformError as P, StoreError as D};
        let (transient, permanent) = (ErrorResponse::transient, ErrorResponse::permanent);
        match self {
            Self::Caller(A::KeysUnavailable) => transient(503, "auth_unavailable", say::SIGN_IN_UNCHECKED),
            Self::Caller(A::Missing) => permanent(401, "unauthorized", say::NOT_SIGNED_IN, say::SIGN_IN),
            Self::Caller(A::Expired) => {
                permanent(401, "sign_in_expired", say::SIGN_IN_EXPIRED, say::SIGN_IN_AGAIN)
            }
            Self::Caller(A::TooLong) => {
                permanent(431, "token_too_long", say::PROFILE_TOO_LARGE, say::CONTACT_SUPPORT)
            }
            // A new key may sign tokens before the project publishes it.
            Self::Caller(A::UnknownKey) => {
                transient(401, "unauthorized", say::SIGN_IN_REFUSED).after(Some(KEY_REFETCH_INTERVAL))
            }
            Self::Caller(_) => permanent(401, "unauthorized", say::SIGN_IN_REFUSED, say::SIGN_IN_AGAIN),

            Self::BadRequest { field, wrong } => ErrorResponse {
                field: field.clone(),
                ..permanent(400, "invalid_request", *wrong, say::RELOAD)
            },
            Self::InvalidJson(_) => permanent(400, "invalid_json", say::BROKEN_JSON, say::RELOAD),
            Self::MethodNotAllowed(_) => {
                permanent(405, "method_not_allowed", say::NOT_AVAILABLE, say::RELOAD)
            }
            Self::BodyTooLarge => permanent(413, "body_too_large", say::TOO_LARGE, say::RELOAD),

            Self::TooManyNumbers(wait) => ErrorResponse {
                action: say::TRY_AGAIN_LATER,
                ..transient(429, "too_many_numbers", say::TOO_MANY_NUMBERS).after(Some(*wait))
            },
            Self::NoOrganization => {
                permanent(404, "organization_not_found", say::NO_ORGANIZATION, say::CONTACT_SUPPORT)
            }
            Self::NumberNotFound => permanent(404, "number_not_found", say::NO_SUCH_NUMBER, say::CONNECT),
            Self::NoCredentials => {
                permanent(404, "number_not_found", say::NOT_CONNECTED_YET, say::CONNECT_FIRST)
            }
            Self::QrNotReady => transient(404, "qr_not_ready", say::QR_MISSING).after(SOON),
            Self::AlreadyConnected => {
                permanent(410, "already_connected", say::CONNECTED, say::NOTHING_TO_SCAN)
            }
            Self::QrIsPicture => permanent(406, "qr_is_picture", say::QR_NOT_TEXT, say::SCAN_IN_BROWSER),
            Self::CreationInProgress => {
                transient(503, "creation_in_progress", say::STILL_CREATING).after(SOON)
            }

            Self::Platform(error) => match error.why {
                P::KeyRefused => permanent(409, "api_key_rejected", say::API_KEY_REJECTED, say::RECONNECT),
                P::UnknownSession => permanent(409, "session_lost", say::SESSION_LOST, say::RECONNECT),
                P::KeyNotActive => transient(503, "api_key_not_active", say::NOT_ACTIVE_YET).after(SOON),
                P::TokenRejected => transient(502, "token_rejected", say::TOKEN_REJECTED),
                P::Busy(after) => transient(503, "platform_busy", say::WHATSAPP_BUSY).after(after),
                P::Unavailable => transient(502, "platform_unavailable", say::WHATSAPP_UNREACHABLE),
                P::TimedOut => transient(504, "platform_timeout", say::WHATSAPP_SLOW),
                P::BadAnswer => transient(502, "platform_bad_answer", say::WHATSAPP_UNREADABLE),
                P::SecretRefused => {
                    permanent(502, "platform_secret_rejected", say::SERVICE_REFUSED, say::CONTACT_SUPPORT)
                }
                P::NumberRefused(_) => {
                    permanent(409, "platform_refused", say::WHATSAPP_REFUSED, say::CONTACT_SUPPORT)
                }
                P::Refused(_) => {
                    permanent(502, "platform_refused", say::WHATSAPP_REFUSED, say::CONTACT_SUPPORT)
                }
            },
            Self::Database(error) => match error.why {
                D::Unavailable { retry_after } => {
                    transient(503, "database_unavailable", say::SERVICE_DOWN).after(retry_after)
                }
                D::TimedOut => transient(504, "database_timeout", say::SERVICE_DOWN),
                D::KeyRefused => {
                    permanent(500, "database_key_rejected", say::SERVICE_MISCONFIGURED, say::CONTACT_SUPPORT)
                }
                D::NotMigrated => {
                    permanent(500, "database_not_migrated", say::SERVICE_MISCONFIGURED, say::CONTACT_SUPPORT)
                }
                D::SettingsUnreadable => permanent(
                    409,
                    "settings_unreadable",
                    say::SETTINGS_UNREADABLE,
                    say::CONTACT_SUPPORT_AND_KEEP,
                ),
                // A conflict with another write ends with that write; an unreadable answer comes from a proxy.
                D::Refused { status: 409, .. } | D::BadAnswer => {
                    transient(500, "database_error", say::WENT_WRONG)
                }
                D::Refused { .. } => permanent(500, "database_error", say::WENT_WRONG, say::CONTACT_SUPPORT),
            },

            Self::Secret(SecretError::Unavailable { .. }) => {
                transient(503, "secret_unavailable", say::SERVICE_DOWN)
            }
            Self::Secret(SecretError::Unusable { .. }) => {
                permanent(500, "secret_unusable", say::SERVICE_MISCONFIGURED, say::CONTACT_SUPPORT)
            }
            Self::DeadlineExceeded => transient(504, "deadline_exceeded", say::TOO_SLOW),
            // A bug makes the same request fail again.
            Self::Panic => permanent(500, "internal_error", say::WENT_WRONG, say::CONTACT_SUPPORT),
        }
    }
}

#[cfg(test)]
mod tests;
