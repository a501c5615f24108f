//! The one line that a request leaves in the log, with the metrics that CloudWatch reads from it (its embedded metric format).

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::error::Error;
use crate::record::{Call, Record, Source, TokenUse};

/// No line is longer, in bytes: each costs money to keep, and to search.
const LIMIT: usize = 700;

/// What was built: `git describe` at a build for deployment, else the crate's version.
const VERSION: &str = match option_env!("WPP_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

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

/// What is counted. Beside the first two, a request counts once: under the first failure that fits, else as a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Metric {
    /// Milliseconds from the event to the answer.
    Took,
    /// The first request of a sandbox.
    ColdStart,
    /// A token was fetched and saved.
    TokenRefreshed,
    /// A key of our own is not taken: the database's or the platform's. A number's API key that the platform no longer takes
    /// does not count: its organisation connects the number again, and nobody here can do that.
    OwnKeyRejected,
    /// A secret cannot be read, or is not as it must be.
    SecretFailed,
    /// A refresh that this request made brought no token, or one that could not be saved.
    RefreshFailed,
    /// The platform did not do what it was asked, or only the last known state could be answered.
    PlatformFailed,
    /// Nor did the database, or the project's sign-in.
    DatabaseFailed,
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
    /// Of a request that was answered with this status, or with this error.
    pub(crate) fn new(request: Request, record: Record, outcome: Result<u16, &Error>) -> Self {
        let public = outcome.err().map(Error::response);
        let (status, code) =
            (public.as_ref().map(|public| public.status), public.as_ref().map(|public| public.code));
        let status = status.or(outcome.ok()).unwrap_or_default();
        let error = outcome.err().map(ToString::to_string);
        let trouble = record.stale_because.as_ref().or(record.refresh_failure.as_ref()).cloned();
        let (outcome, level) = match status {
            500.. => (Outcome::Failed, Level::Error),
            400.. => (Outcome::Refused, Level::Info),
            _ if trouble.is_some() => (Outcome::Answered, Level::Warn),
            _ => (Outcome::Answered, Level::Info),
        };
        let took = request.ended.0 - request.began.0;
        let refreshed = (record.token == Some(TokenUse::Refreshed)).then_some(Metric::TokenRefreshed);
        let counted = [request.is_first.then_some(Metric::ColdStart), failure(&record, code).or(refreshed)];
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
            trace_id: record.trace.id().map(str::to_owned),
            request_id: record.request_id,
            organization_id: record.organization_id,
            session: record.session,
            outcome,
            status,
            code,
            source: record.source,
            token: record.token,
            token_why: record.token_why,
            error: error.or(trouble),
            calls,
            more_calls: 0,
            emf: Emf { timestamp: request.ended, cloud_watch_metrics: [directive] },
            metrics,
        }
        .cut()
    }

    /// Leaves out what makes the line too long: the quickest calls, and then the error's last words.
    fn cut(mut self) -> Self {
        while let Some(excess) = self.to_string().len().checked_sub(LIMIT + 1) {
            if self.calls.pop().is_some() {
                self.more_calls += 1;
                continue;
            }
            let Some(error) = self.error.as_mut().filter(|error| !error.is_empty()) else { break };
            let kept = error.chars().count().saturating_sub(excess + 1);
            *error = error.chars().take(kept).collect();
        }
        self
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Under which a failed request counts, or one that was answered in spite of a failure.
fn failure(record: &Record, code: Option<&str>) -> Option<Metric> {
    match code.unwrap_or_default() {
        "database_key_rejected" | "platform_secret_rejected" => Some(Metric::OwnKeyRejected),
        "secret_unavailable" | "secret_unusable" => Some(Metric::SecretFailed),
        _ if record.refresh_failure.is_some() => Some(Metric::RefreshFailed),
        "token_rejected" => Some(Metric::PlatformFailed),
        code if code.starts_with("platform_") || record.source == Some(Source::Stale) => {
            Some(Metric::PlatformFailed)
        }
        code if code.starts_with("database_") || code == "auth_unavailable" => Some(Metric::DatabaseFailed),
        _ => None,
    }
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
