//! The one line that a request leaves in the log, with the metrics that CloudWatch reads from it (its embedded metric format).

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::VERSION;
use crate::clock::UnixMs;
use crate::error::Error;
use crate::http::auth::AuthError;
use crate::platform::PlatformError;
use crate::record::{Call, Record, Source, TokenUse};
use crate::store::{State, StoreError};
use crate::upstream::CallError;

/// No line is longer, in bytes: each costs money to keep, and to search.
const LIMIT: usize = 700;

/// Where the metrics are found in CloudWatch.
const NAMESPACE: &str = "WppFunctions";

/// One request, as the log has it. What does not apply is left out.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    /// When it was answered.
    timestamp: Option<String>,
    level: Level,
    /// The function's own name, which differs from stack to stack.
    function: String,
    version: &'static str,
    /// 1 for the first request of a sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    cold_start: Option<u8>,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<Uuid>,
    /// The first 8 digits of the session's SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    outcome: Outcome,
    status: u16,
    /// Of a refusal or a failure, as the caller was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// The number's state, as it was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenUse>,
    /// Why the saved token would not do: it was due, expired, missing or rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_why: Option<&'static str>,
    /// What went wrong, also where the request was answered all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The slowest first. Those that would make the line too long are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Call>,
    /// How many were left out.
    #[serde(skip_serializing_if = "is_none")]
    more_calls: usize,
    #[serde(rename = "_aws")]
    emf: Emf,
    #[serde(flatten)]
    metrics: BTreeMap<Metric, i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Level {
    Info,
    /// Answered, though not everything went well.
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Answered,
    /// With a 4xx: the caller's trouble.
    Refused,
    /// With a 5xx: ours, or an upstream's.
    Failed,
}

/// What is counted. Beside the first three, a request counts once: under the first failure that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Metric {
    /// Milliseconds from the event to the answer.
    Took,
    /// A token was fetched and saved.
    TokenRefreshed,
    /// A secret cannot be read, or is not as it must be. Secrets that were read before may still have served the request.
    SecretFailed,
    /// The database or the platform refuses a secret of the function, and there is evidence that a person has to replace it. A
    /// number's API key is not one: only its organization can connect the number again.
    OwnKeyRejected,
    /// A refresh that this request made brought no token, or one that could not be saved.
    RefreshFailed,
    /// The platform did not do what it was asked, or only the last known state could be answered.
    PlatformFailed,
    /// The platform refused a call that was made for one number. The others may be fine, so no alarm watches it.
    PlatformRefused,
    /// Nor did the database, or the project's sign-in.
    DatabaseFailed,
    /// A user's token is not signed by a key that we have, or not by the issuer that we take. One such token means nothing;
    /// where most are so, it is our configuration.
    SignInRefused,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Emf {
    timestamp: UnixMs,
    cloud_watch_metrics: [Directive; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive {
    namespace: &'static str,
    dimensions: [[&'static str; 1]; 1],
    metrics: Vec<Definition>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition {
    name: Metric,
    /// Nothing for what is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

/// What the sandbox knows of a request.
pub(crate) struct Request {
    pub(crate) function: String,
    pub(crate) began: UnixMs,
    pub(crate) ended: UnixMs,
    /// Whether it is the sandbox's first.
    pub(crate) is_first: bool,
}

impl Line {
    /// The text of the line of a request that was answered with this status, or with this error.
    pub(crate) fn text(request: Request, record: Record, outcome: Result<u16, &Error>) -> String {
        let failed = outcome.err();
        let (status, code) = match failed.map(Error::response) {
            Some(public) => (public.status, Some(public.code)),
            None => (outcome.unwrap_or_default(), None),
        };
        let trouble = failed.map(ToString::to_string);
        let trouble = trouble.or(record.stale_because.clone()).or(record.refresh_failure.clone());
        let troubles: Vec<_> = trouble.into_iter().chain(record.secret_failure.clone()).collect();
        let (outcome, level) = match status {
            500.. => (Outcome::Failed, Level::Error),
            400.. => (Outcome::Refused, Level::Info),
            _ if !troubles.is_empty() => (Outcome::Answered, Level::Warn),
            _ => (Outcome::Answered, Level::Info),
        };
        let took = request.ended.0 - request.began.0;
        let failure = failure(&record, failed);
        let refreshed = (record.token == Some(TokenUse::Refreshed) && failure.is_none())
            .then_some(Metric::TokenRefreshed);
        let is_secret = record.secret_failure.is_some() || matches!(failed, Some(Error::Secret(_)));
        let counted = [failure, refreshed, is_secret.then_some(Metric::SecretFailed)];
        let counted = counted.into_iter().flatten().map(|metric| (metric, 1));
        let metrics: BTreeMap<_, _> = counted.chain([(Metric::Took, took)]).collect();
        let definition = |name: &Metric| Definition {
            name: *name,
            unit: (*name == Metric::Took).then_some("Milliseconds"),
        };
        let directive = Directive {
            namespace: NAMESPACE,
            dimensions: [["function"]],
            metrics: metrics.keys().map(definition).collect(),
        };
        let mut calls = record.calls;
        calls.sort_by_key(|call| std::cmp::Reverse(call.ms));
        Self {
            timestamp: request.ended.to_rfc3339(),
            level,
            function: request.function,
            version: VERSION,
            cold_start: request.is_first.then_some(1),
            trace_id: record.trace.id().map(str::to_owned),
            request_id: record.request_id,
            organization_id: record.organization_id,
            session: record.session,
            outcome,
            status,
            code,
            state: record.state,
            source: record.source,
            token: record.token,
            token_why: record.token_why,
            error: (!troubles.is_empty()).then(|| troubles.join("; ")),
            calls,
            more_calls: 0,
            emf: Emf { timestamp: request.ended, cloud_watch_metrics: [directive] },
            metrics,
        }
        .cut()
    }

    /// As JSON, without what makes it too long: the quickest calls, and then the error's last words.
    fn cut(mut self) -> String {
        loop {
            let text = serde_json::to_string(&self).unwrap_or_default();
            let Some(excess) = text.len().checked_sub(LIMIT + 1) else { return text };
            if self.calls.pop().is_some() {
                self.more_calls += 1;
                continue;
            }
            let Some(error) = self.error.as_mut().filter(|error| !error.is_empty()) else { return text };
            let kept = error.chars().count().saturating_sub(excess + 1);
            *error = error.chars().take(kept).collect();
        }
    }
}

/// Under which a failed request counts, or one that was answered in spite of a failure.
fn failure(record: &Record, error: Option<&Error>) -> Option<Metric> {
    use {AuthError as A, PlatformError as P};
    match error {
        _ if record.own_key_rejected => Some(Metric::OwnKeyRejected),
        Some(Error::Caller(A::BadSignature | A::UnknownKey | A::WrongAlgorithm | A::WrongIssuer)) => {
            Some(Metric::SignInRefused)
        }
        _ if record.refresh_failure.is_some() => Some(Metric::RefreshFailed),
        // A matter of the number's organization.
        Some(Error::Database(error)) if error.why == StoreError::SettingsUnreadable => None,
        Some(Error::Platform(CallError {
            why: P::KeyRefused | P::KeyNotActive | P::UnknownSession, ..
        })) => None,
        Some(Error::Platform(CallError { why: P::NumberRefused(_), .. })) => Some(Metric::PlatformRefused),
        Some(Error::Platform(_)) => Some(Metric::PlatformFailed),
        Some(Error::Database(_) | Error::Caller(A::KeysUnavailable)) => Some(Metric::DatabaseFailed),
        _ => (record.source == Some(Source::Stale)).then_some(Metric::PlatformFailed),
    }
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
