//! What a database call can fail with, and what PostgREST means by a refusal.

use std::time::Duration;

use serde::Deserialize;

use crate::upstream::{CallError, Failure, Reply};

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
    /// The service key is not this project's, or its role may not do this.
    #[error("the service key or its rights were refused")]
    KeyRefused,
    /// Something that `migrations/` makes is not there, or is there twice.
    #[error("a function, table or column of the migrations is missing")]
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

/// What a call brought, or which SQL function failed and why.
pub type StoreResult<T> = Result<T, CallError<StoreError>>;

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connection => Self::Unavailable { retry_after: None },
            Failure::TimedOut => Self::TimedOut,
            Failure::TooLarge => Self::BadAnswer,
        }
    }
}

/// What PostgREST 12 to 16 mean by a refusal: by the code, and by the status where that says nothing.
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
    // PostgreSQL's codes have five characters, of which two are a class.
    let class = if code.len() == 5 { &code[..2] } else { "" };
    match (code.as_str(), class, reply.status.as_u16()) {
        // PostgREST has no connection, has not read the schema yet, or has no place in its pool.
        ("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003", ..) => unavailable,
        // A hot standby lets no transaction begin that could write.
        ("0A000", ..) => unavailable,
        // PostgreSQL's own "later": connection, transaction, resources, locks, shutdown, and its own trouble.
        (_, "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX", _) => unavailable,
        // Functions: unknown, ambiguous, dropped since the schema was read; likewise tables and columns.
        ("PGRST202" | "PGRST203" | "42883" | "42725", ..) => StoreError::NotMigrated,
        ("PGRST205" | "42P01" | "42703", ..) | ("", _, 404) => StoreError::NotMigrated,
        // The JWT: no secret to verify it with, not valid, none, wrong claims; then its role: unknown, without rights.
        ("PGRST300" | "PGRST301" | "PGRST302" | "PGRST303", ..) => StoreError::KeyRefused,
        ("22023" | "42501", ..) | (_, _, 401 | 403) => StoreError::KeyRefused,
        // Any other code of PostgreSQL is about what we asked for, whatever status it has.
        (_, class, status) if !class.is_empty() => StoreError::Refused { status, code },
        (_, _, 408) => StoreError::TimedOut,
        // Gateways say in many ways that they did not reach the project: Cloudflare from 520 on, Supabase from 540.
        (_, _, 429 | 500..) => unavailable,
        (_, _, status) => StoreError::Refused { status, code },
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    /// What is meant by a refusal with this status and body.
    fn meaning(status: u16, body: &str) -> StoreError {
        let status = StatusCode::from_u16(status).unwrap();
        refusal(&Reply { status, body: body.into(), retry_after: Some(Duration::from_secs(3)) })
    }

    const LATER: Option<StoreError> =
        Some(StoreError::Unavailable { retry_after: Some(Duration::from_secs(3)) });
    const MIGRATIONS: Option<StoreError> = Some(StoreError::NotMigrated);
    const KEY: Option<StoreError> = Some(StoreError::KeyRefused);
    /// [`StoreError::Refused`], with the status and the code.
    const OTHER: Option<StoreError> = None;

    /// Each code with every status that a version from 12 to 16 gives it.
    #[test]
    fn a_code_means_the_same_with_whatever_status() {
        for (code, statuses, expected) in [
            ("PGRST000", &[503][..], LATER),
            ("PGRST001", &[503], LATER),
            ("PGRST002", &[503], LATER),
            ("PGRST003", &[503, 504], LATER),
            ("0A000", &[400], LATER),
            ("08006", &[503], LATER),
            ("25006", &[400, 405, 500], LATER),
            ("25P04", &[500], LATER),
            ("40001", &[500], LATER),
            ("40P01", &[500], LATER),
            ("53300", &[503], LATER),
            ("53400", &[500], LATER),
            ("55P03", &[500], LATER),
            ("57014", &[500], LATER),
            ("57P01", &[500, 503], LATER),
            ("58030", &[500], LATER),
            ("XX000", &[500], LATER),
            ("PGRST202", &[404], MIGRATIONS),
            ("PGRST203", &[300], MIGRATIONS),
            ("PGRST205", &[404], MIGRATIONS),
            ("42883", &[404], MIGRATIONS),
            ("42725", &[400], MIGRATIONS),
            ("42P01", &[404], MIGRATIONS),
            ("42703", &[400], MIGRATIONS),
            ("PGRST300", &[500], KEY),
            ("PGRST301", &[401], KEY),
            ("PGRST302", &[401], KEY),
            ("PGRST303", &[401], KEY),
            ("22023", &[400, 401], KEY),
            ("42501", &[401, 403], KEY),
            ("0L000", &[403], KEY),
            ("0P000", &[403], KEY),
            ("28000", &[403], KEY),
            ("21000", &[400, 500], OTHER),
            ("22P02", &[400], OTHER),
            ("23503", &[409], OTHER),
            ("23505", &[409], OTHER),
            ("2D000", &[500], OTHER),
            ("38000", &[500], OTHER),
            ("39000", &[500], OTHER),
            ("3B000", &[500], OTHER),
            ("42601", &[400], OTHER),
            ("42P17", &[500], OTHER),
            ("54001", &[500], OTHER),
            ("P0001", &[400], OTHER),
            ("P0002", &[500], OTHER),
            ("PT402", &[402], OTHER),
            ("PGRST102", &[400], OTHER),
            ("PGRST106", &[406], OTHER),
            ("PGRST125", &[404], OTHER),
        ] {
            for &status in statuses {
                let expected =
                    expected.clone().unwrap_or(StoreError::Refused { status, code: code.to_owned() });
                let body = format!(r#"{{"code":"{code}","details":null,"hint":null,"message":"m"}}"#);
                assert_eq!(meaning(status, &body), expected, "{status} {code}");
            }
        }
    }

    #[test]
    fn without_a_code_the_status_decides() {
        for (statuses, expected) in [
            (&[401, 403][..], KEY),
            (&[404], MIGRATIONS),
            (&[408], Some(StoreError::TimedOut)),
            (&[429, 500, 502, 503, 504, 520, 530, 540, 544], LATER),
            (&[300, 307, 400, 402, 405, 409, 499], OTHER),
        ] {
            for &status in statuses {
                let expected =
                    expected.clone().unwrap_or(StoreError::Refused { status, code: String::new() });
                for body in ["", "<html>", "[]", "{}", r#"{"code":null}"#, r#"{"code":7}"#, r#"{"code":"-"}"#]
                {
                    assert_eq!(meaning(status, body), expected, "{status} {body}");
                }
            }
        }
    }

    #[test]
    fn of_a_code_that_is_none_only_ten_letters_and_digits_are_kept() {
        let refused = meaning(400, r#"{"code":"a key: \u00e9 sb_secret_0123"}"#);
        assert_eq!(refused, StoreError::Refused { status: 400, code: "akeysbsecr".to_owned() });
    }
}
