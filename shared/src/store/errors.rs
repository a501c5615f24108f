//! What a database call can fail with, and what PostgREST means by a refusal.

use std::time::Duration;

use serde_json::Value;

use crate::upstream::{CallError, Content, Failure, Reply};

/// The longest code that is taken for PostgREST's own, in bytes: its own have 8.
const CODE_LIMIT: usize = 10;

/// Why the database brought no answer. Carries no text of its own: PostgREST quotes values in its messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StoreError {
    /// No connection, PostgREST has none to the database, or something before PostgREST has answered.
    #[error("unavailable")]
    Unavailable {
        /// When PostgREST asks to come back.
        retry_after: Option<Duration>,
    },
    /// No whole answer in time.
    #[error("timed out")]
    TimedOut,
    /// The service key is not this project's, or its role may not do this.
    #[error("the service key or its rights were refused")]
    KeyRefused,
    /// Something that `migrations/` makes is not there, or is there twice.
    #[error("a function, table or column of the migrations is missing")]
    NotMigrated,
    /// Anything else that PostgREST refuses, with its own code or with PostgreSQL's.
    #[error("refused with status {status}, code {code}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code: upper-case letters and digits, at most 10.
        code: String,
    },
    /// The `settings` of the number's row are no object. Other functions may still use them, so they stay as they are.
    #[error("the number's settings cannot be read")]
    SettingsUnreadable,
    /// An answer of another shape than the function's.
    #[error("unreadable answer")]
    BadAnswer,
}

/// What a call brought, or which SQL function failed and why.
pub type StoreResult<T> = Result<T, CallError<StoreError>>;

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connection | Failure::Untrusted => Self::Unavailable { retry_after: None },
            Failure::TimedOut => Self::TimedOut,
            Failure::TooLarge => Self::BadAnswer,
        }
    }
}

/// What PostgREST says, with the code PGRST303, of a token that the gateway has issued a moment ago: its own clock is behind.
/// It can say so of an `sb_secret_` key, too, which the gateway turns into a token.
const ISSUED_AT_FUTURE: &str = "JWT issued at future";

/// The gateway's refusals of the service key itself: the openings of their `message`.
const KEY_REFUSALS: [&str; 5] = [
    "No API key found in request",
    "Invalid API key",
    "Unregistered API key",
    "Invalid authentication credentials",
    "Legacy API keys are disabled",
];

/// Returns what PostgREST 12 to 16 mean by a refusal, which is JSON with a `code`. The gateway before it refuses the service
/// key in JSON with a `message`. Anything else comes from a proxy that did not reach PostgREST: an outage, whatever its status.
///
/// `key_is_jwt`: PostgREST can refuse a key of the new kind as a role, but not as a token, which it is not.
pub(super) fn refusal(reply: &Reply, key_is_jwt: bool) -> StoreError {
    let unavailable = StoreError::Unavailable { retry_after: reply.retry_after };
    let Content::Object(body) = reply.content() else { return unavailable };
    let text = |field| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let (code, message, status) = (text("code"), text("message"), reply.status.as_u16());
    if !is_postgrests(code) {
        let is_about_key =
            matches!(status, 401 | 403) && KEY_REFUSALS.iter().any(|known| message.starts_with(known));
        return if is_about_key { StoreError::KeyRefused } else { unavailable };
    }
    // PostgreSQL's codes have five characters, of which two are a class.
    let class = if code.len() == 5 { &code[..2] } else { "" };
    match (code, class, status) {
        // PostgREST has no connection, has not read the schema yet, or has no place in its pool.
        ("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003", ..) => unavailable,
        // A hot standby lets no transaction begin that could write.
        ("0A000", ..) => unavailable,
        // PostgreSQL's own "later": connection, transaction, resources, locks, shutdown, and its own trouble.
        (_, "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX", _) => unavailable,
        // Functions: unknown, ambiguous, dropped since the schema was read; likewise tables and columns.
        ("PGRST202" | "PGRST203" | "42883" | "42725", ..) => StoreError::NotMigrated,
        ("PGRST205" | "42P01" | "42703", ..) => StoreError::NotMigrated,
        ("PGRST303", ..) if message == ISSUED_AT_FUTURE => unavailable,
        // The JWT: no secret to verify it with, not valid, none, wrong claims; then its role: unknown, without rights.
        ("PGRST300" | "PGRST301" | "PGRST302" | "PGRST303", ..) if key_is_jwt => StoreError::KeyRefused,
        ("PGRST300" | "PGRST301" | "PGRST302" | "PGRST303", ..) => unavailable,
        ("22023" | "42501", ..) | (_, _, 401 | 403) => StoreError::KeyRefused,
        // Any other code of PostgreSQL is about what we asked for, whatever status it has.
        (_, class, status) if !class.is_empty() => StoreError::Refused { status, code: code.to_owned() },
        (_, _, 500..) => unavailable,
        (_, _, status) => StoreError::Refused { status, code: code.to_owned() },
    }
}

/// Whether the same call succeeds in a moment: the clocks of Supabase's own services have differed.
pub(super) fn is_over_in_a_moment(reply: &Reply) -> bool {
    let Content::Object(body) = reply.content() else { return false };
    body.get("code").is_some_and(|code| code == "PGRST303")
        && body.get("message").is_some_and(|message| message == ISSUED_AT_FUTURE)
}

/// Whether a code is one of PostgREST's own, or PostgreSQL's.
fn is_postgrests(code: &str) -> bool {
    let is_plain = code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let (shortest, longest) = if code.starts_with("PGRST") { (6, CODE_LIMIT) } else { (5, 5) };
    is_plain && (shortest..=longest).contains(&code.len())
}

#[cfg(test)]
mod tests;
