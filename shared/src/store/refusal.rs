//! What a database call can fail with, and what PostgREST means by a refusal.

use std::time::Duration;

use lambda_http::http::StatusCode;
use serde::Deserialize;

use crate::upstream::{Failure, Reply};

/// Why the database brought no answer. Carries no text of its own: PostgREST quotes values in its messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    /// No connection, or PostgREST has none to the database.
    #[error("unavailable")]
    Unavailable {
        /// When PostgREST asks to come back.
        retry_after: Option<Duration>,
    },
    /// No whole answer in time.
    #[error("timed out")]
    TimedOut,
    /// 401 or 403: the service key.
    #[error("the service key was refused")]
    KeyRefused,
    /// PGRST202, or 404 without a code: the functions of `migrations/` are not there.
    #[error("a function of the migrations is missing")]
    NotMigrated,
    /// Anything else that PostgREST refuses, with its own code or PostgreSQL's.
    #[error("refused with status {status}, code {code}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code: letters and digits, at most 10.
        code: String,
    },
    /// An answer of another shape than the function's.
    #[error("unreadable answer")]
    BadAnswer,
}

impl StoreError {
    pub(crate) fn public(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        const DOWN: &str = "Our database cannot be reached right now. Please try again in a moment.";
        match self {
            Self::Unavailable { .. } => (S::SERVICE_UNAVAILABLE, "database_unavailable", DOWN),
            Self::TimedOut => (S::GATEWAY_TIMEOUT, "database_timeout", DOWN),
            Self::KeyRefused => (
                S::INTERNAL_SERVER_ERROR,
                "database_key_rejected",
                "This service has no access to its database.",
            ),
            Self::NotMigrated => {
                (S::INTERNAL_SERVER_ERROR, "database_not_migrated", "This service's database is not set up.")
            }
            Self::Refused { .. } | Self::BadAnswer => {
                (S::INTERNAL_SERVER_ERROR, "database_error", "Our database did not do what it should.")
            }
        }
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connection => Self::Unavailable { retry_after: None },
            Failure::TimedOut => Self::TimedOut,
            Failure::TooLarge => Self::BadAnswer,
        }
    }
}

/// What PostgREST means by a refusal: its code first, where it gives one.
pub(super) fn refusal(reply: &Reply) -> StoreError {
    #[derive(Default, Deserialize)]
    struct Refusal {
        #[serde(default)]
        code: Option<String>,
    }
    let unavailable = StoreError::Unavailable { retry_after: reply.retry_after };
    let Refusal { code } = serde_json::from_slice(&reply.body).unwrap_or_default();
    let code: String =
        code.unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(10).collect();
    match (code.as_str(), reply.status.as_u16()) {
        // The pool or the database is away; 40, 53, 55 and 57 are PostgreSQL's own "later", 25006 a standby's.
        ("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003", _) => unavailable,
        (code, _) if ["25006", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class)) => {
            unavailable
        }
        ("PGRST202", _) | ("", 404) => StoreError::NotMigrated,
        (_, 401 | 403) => StoreError::KeyRefused,
        (_, 408) => StoreError::TimedOut,
        // From 520 on, Cloudflare says why it did not reach the project.
        (_, 429 | 500 | 502..=504 | 520..=530) => unavailable,
        (_, status) => StoreError::Refused { status, code },
    }
}
