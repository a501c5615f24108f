//! What is noted about a request while it is served, for its log line. The notes belong to the request's task, so that concurrent
//! requests in one sandbox do not mix. Outside a request, notes are dropped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use crate::clock::millis;
use crate::deadline::Deadline;

tokio::task_local! {
    static LOG: RequestLog;
}

/// The notes about one request. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestLog(Arc<Mutex<Notes>>);

/// The notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) organization_id: Option<Uuid>,
    /// The session's digest.
    pub(crate) session: Option<String>,
    pub(crate) token: Option<TokenUse>,
    /// Why a refresh was needed.
    pub(crate) token_why: Option<&'static str>,
    /// Why the refresh of this request failed.
    pub(crate) refresh_failure: Option<String>,
    /// Why the function's own secrets could not be read again.
    pub(crate) secret_failure: Option<String>,
    /// Whether there is evidence that a person must replace one of them.
    pub(crate) own_key_rejected: bool,
    /// Why the answer is the last known state.
    pub(crate) stale_because: Option<String>,
    pub(crate) calls: Vec<Call>,
}

/// How a request got its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUse {
    /// The stored token was used, possibly one that another request had just stored.
    Reused,
    /// This request fetched a new one.
    Refreshed,
    /// The stored one is due, could not be replaced yet, and was used once more.
    Kept,
    /// The request got no token.
    Failed,
}

/// One call to an upstream. The usual values are left out of the line: status 200, one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    #[serde(skip_serializing_if = "CallStatus::is_usual")]
    pub(crate) status: CallStatus,
    /// The time of all attempts and the pauses between them.
    pub(crate) ms: i64,
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) attempts: u32,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum CallStatus {
    /// With this HTTP status.
    Http(u16),
    /// Without a complete answer.
    Failed(String),
}

impl CallStatus {
    fn is_usual(&self) -> bool {
        *self == Self::Http(200)
    }
}

fn is_one(attempts: &u32) -> bool {
    *attempts == 1
}

/// A call in progress. It is noted when this is dropped, even if the request gives up on it.
pub(crate) struct CallGuard {
    name: &'static str,
    deadline: Deadline,
    /// The time that the request had left when the call began.
    left_at_start: Duration,
    pub(crate) attempts: u32,
    pub(crate) status: CallStatus,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let ms = millis(self.left_at_start.saturating_sub(self.deadline.remaining()));
        let status = std::mem::replace(&mut self.status, CallStatus::Http(0));
        note(|notes| notes.calls.push(Call { name: self.name, status, ms, attempts: self.attempts }));
    }
}

impl RequestLog {
    /// Runs a part of the request that this log belongs to.
    pub(crate) async fn scope<W: Future>(self, work: W) -> W::Output {
        LOG.scope(self, work).await
    }

    /// Returns the log of the current request, or a new log outside a request.
    pub(crate) fn current() -> Self {
        LOG.try_with(Self::clone).unwrap_or_default()
    }

    /// Returns the notes so far.
    pub(crate) fn notes(&self) -> Notes {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins a call to `name`.
pub(crate) fn call(name: &'static str, deadline: Deadline) -> CallGuard {
    let status = CallStatus::Failed("given up".to_owned());
    CallGuard { name, deadline, left_at_start: deadline.remaining(), attempts: 0, status }
}

/// Notes the organization.
pub(crate) fn organization(id: Uuid) {
    note(|notes| notes.organization_id = Some(id));
}

/// Notes the session by the first 8 digits of its SHA-256: `printf %s SESSION | sha256sum`.
pub(crate) fn session(session: &str) {
    let digest = digest(&SHA256, session.as_bytes());
    let short = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    note(|notes| notes.session = Some(short));
}

/// Notes that the answer is the last known state, and why.
pub(crate) fn stale(because: impl ToString) {
    note(|notes| notes.stale_because = Some(because.to_string()));
}

/// Notes how the request got its token, and why the stored one could not be used. A refresh wins over a reuse.
pub(crate) fn token(used: TokenUse, why: Option<&'static str>) {
    note(|notes| {
        if why.is_some() || notes.token.is_none() {
            (notes.token, notes.token_why) = (Some(used), why);
        }
    });
}

/// Notes that this request's refresh failed.
pub(crate) fn refresh_failed(why: impl ToString) {
    note(|notes| notes.refresh_failure = Some(why.to_string()));
}

/// Notes that the function's own secrets could not be read again; the old ones stay in use.
pub(crate) fn secret_failed(why: impl ToString) {
    note(|notes| notes.secret_failure = Some(why.to_string()));
}

/// Notes that there is evidence that a person must replace one of the function's own secrets.
pub(crate) fn own_key_rejected() {
    note(|notes| notes.own_key_rejected = true);
}

/// Whether a call whose name begins with `prefix` succeeded.
pub(crate) fn is_answered(prefix: &str) -> bool {
    let answered =
        |call: &Call| call.name.starts_with(prefix) && matches!(call.status, CallStatus::Http(200..=299));
    RequestLog::current().lock().calls.iter().any(answered)
}

fn note(change: impl FnOnce(&mut Notes)) {
    let _ = LOG.try_with(|log| change(&mut log.lock()));
}

/// Runs work as a request. Also returns the notes.
#[cfg(test)]
pub(crate) async fn noted<W: Future>(work: W) -> (W::Output, Notes) {
    let log = RequestLog::default();
    (log.clone().scope(work).await, log.notes())
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn deadline() -> Deadline {
        Deadline::within(Duration::from_secs(20))
    }

    #[tokio::test]
    async fn concurrent_requests_have_separate_logs() {
        let work = async |id: usize| {
            for nth in 0..5 {
                let mut call = call("qr", deadline());
                call.attempts = u32::try_from(id * 10 + nth).unwrap();
                tokio::task::yield_now().await;
            }
            id
        };
        for (id, notes) in join_all((0..8).map(|id| noted(work(id)))).await {
            let attempts: Vec<_> = notes.calls.iter().map(|call| call.attempts as usize).collect();
            assert_eq!(attempts, (0..5).map(|nth| id * 10 + nth).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn spawned_task_writes_to_the_given_log() {
        let ((), notes) = noted(async {
            let log = RequestLog::current();
            tokio::spawn(log.scope(async { drop(call("status", deadline())) })).await.unwrap();
        })
        .await;
        assert_eq!(notes.calls[0].name, "status");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_noted_with_its_time() {
        let work = async {
            let mut whole = call("status", deadline());
            whole.attempts = 2;
            whole.status = CallStatus::Http(204);
            tokio::time::sleep(Duration::from_millis(70)).await;
            drop(whole);
            let hangs = async {
                let _call = call("qr", deadline());
                std::future::pending::<()>().await;
            };
            Deadline::within(Duration::from_secs(3)).bound(hangs).await
        };
        let (outcome, notes) = noted(work).await;
        assert!(outcome.is_err());
        let calls: Vec<_> = notes.calls.iter().map(|call| (call.name, call.ms, call.attempts)).collect();
        assert_eq!(calls, [("status", 70, 2), ("qr", 3000, 0)]);
        assert_eq!(notes.calls[0].status, CallStatus::Http(204));
        assert_eq!(notes.calls[1].status, CallStatus::Failed("given up".to_owned()));
    }

    #[tokio::test]
    async fn a_refresh_counts_more_than_a_use_of_its_token() {
        let work = async {
            token(TokenUse::Reused, None);
            token(TokenUse::Refreshed, Some("rejected"));
            token(TokenUse::Reused, None);
        };
        let ((), notes) = noted(work).await;
        assert_eq!((notes.token, notes.token_why), (Some(TokenUse::Refreshed), Some("rejected")));
    }

    #[tokio::test]
    async fn a_session_is_noted_as_sha256sum_writes_it() {
        let ((), notes) = noted(async { session("0000000000004") }).await;
        assert_eq!(notes.session.unwrap(), "e6644332");
    }

    #[test]
    fn outside_a_request_notes_are_dropped() {
        session("4");
        drop(call("secret", deadline()));
        assert!(RequestLog::current().notes().calls.is_empty());
    }
}
