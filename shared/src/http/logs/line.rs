//! The one line that a request leaves in the log, with the metrics that CloudWatch reads from it (its embedded metric format).

use std::collections::BTreeMap;
use std::ops::Not;

use serde::Serialize;
use uuid::Uuid;

use crate::VERSION;
use crate::clock::UnixMs;
use crate::error::{AuthError, Error};
use crate::request_log::{Call, Notes, TokenUse};
use crate::store::{State, StoreError};
use crate::upstream::CallError;
use crate::wpp::PlatformError;

/// The namespace of the metrics in CloudWatch.
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
    /// Whether it is only the last known one.
    #[serde(skip_serializing_if = "Not::not")]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<TokenUse>,
    /// Why the saved token would not do: it was due, expired, missing or rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_why: Option<&'static str>,
    /// What went wrong, even if the request was answered all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// In the order in which they ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    calls: Vec<Call>,
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
    /// With a 5xx: the fault of this function, or of an upstream.
    Failed,
}

/// What is counted. Apart from `Took`, `TokenRefreshed` and `SecretFailed`, a request counts once: under the first failure that fits.
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
    /// The database, or the project's sign-in, did not do what it was asked.
    DatabaseFailed,
    /// A user's token is not signed by a key of the project, or does not have the accepted issuer. One such token means nothing. If most
    /// tokens are so, the configuration is wrong.
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
    /// `None` for counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

/// What the function knows of a request.
pub(crate) struct RequestFacts {
    pub(crate) function: String,
    pub(crate) request_id: String,
    pub(crate) trace_id: Option<String>,
    pub(crate) began_at: UnixMs,
    pub(crate) ended_at: UnixMs,
    /// Whether it is the sandbox's first.
    pub(crate) is_first: bool,
}

impl Line {
    /// Returns the text of a request's line. `outcome` is the state in the answer, or the error.
    pub(crate) fn text(facts: RequestFacts, notes: Notes, outcome: Result<State, &Error>) -> String {
        let error = outcome.err();
        let response = error.map(Error::response);
        let status = response.as_ref().map_or(200, |response| response.status);
        let trouble = error.map(ToString::to_string);
        let trouble = trouble.or(notes.stale_because.clone()).or(notes.refresh_failure.clone());
        let troubles: Vec<_> = trouble.into_iter().chain(notes.secret_failure.clone()).collect();
        let (kind, level) = match status {
            500.. => (Outcome::Failed, Level::Error),
            400.. => (Outcome::Refused, Level::Info),
            _ if !troubles.is_empty() => (Outcome::Answered, Level::Warn),
            _ => (Outcome::Answered, Level::Info),
        };
        let failure = failure(&notes, error);
        let refreshed =
            (notes.token == Some(TokenUse::Refreshed) && failure.is_none()).then_some(Metric::TokenRefreshed);
        let is_secret = notes.secret_failure.is_some() || matches!(error, Some(Error::Secret(_)));
        let counted = [failure, refreshed, is_secret.then_some(Metric::SecretFailed)];
        let counted = counted.into_iter().flatten().map(|metric| (metric, 1));
        let took = facts.ended_at.0 - facts.began_at.0;
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
        let line = Self {
            timestamp: facts.ended_at.to_rfc3339(),
            level,
            function: facts.function,
            version: VERSION,
            cold_start: facts.is_first.then_some(1),
            trace_id: facts.trace_id,
            request_id: facts.request_id,
            organization_id: notes.organization_id,
            session: notes.session,
            outcome: kind,
            status,
            code: response.map(|response| response.code),
            state: outcome.ok(),
            stale: notes.stale_because.is_some() && error.is_none(),
            token: notes.token,
            token_why: notes.token_why,
            error: (!troubles.is_empty()).then(|| troubles.join("; ")),
            calls: notes.calls,
            emf: Emf { timestamp: facts.ended_at, cloud_watch_metrics: [directive] },
            metrics,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// Returns the metric for a failed request, or for one that was answered in spite of a failure.
fn failure(notes: &Notes, error: Option<&Error>) -> Option<Metric> {
    use {AuthError as A, PlatformError as P};
    match error {
        _ if notes.own_key_rejected => Some(Metric::OwnKeyRejected),
        Some(Error::Caller(A::BadSignature | A::UnknownKey | A::WrongAlgorithm | A::WrongIssuer)) => {
            Some(Metric::SignInRefused)
        }
        _ if notes.refresh_failure.is_some() => Some(Metric::RefreshFailed),
        // A matter of the number's organization.
        Some(Error::Database(error)) if error.why == StoreError::SettingsUnreadable => None,
        Some(Error::Platform(CallError {
            why: P::KeyRefused | P::KeyNotActive | P::UnknownSession, ..
        })) => None,
        Some(Error::Platform(CallError { why: P::NumberRefused(_), .. })) => Some(Metric::PlatformRefused),
        Some(Error::Platform(_)) => Some(Metric::PlatformFailed),
        Some(Error::Database(_) | Error::Caller(A::KeysUnavailable)) => Some(Metric::DatabaseFailed),
        _ => notes.stale_because.is_some().then_some(Metric::PlatformFailed),
    }
}

#[cfg(test)]
mod tests;
