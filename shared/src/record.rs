//! What is noted of a request while it is worked on, for its line in the log and for those whom it calls. It belongs to the
//! request's task, so that requests which a sandbox works on at once do not mix. Where there is no request, nothing is noted.

pub(crate) mod trace;

use std::cell::RefCell;
use std::time::Duration;

use http::HeaderMap;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use uuid::Uuid;

use crate::clock::millis;
use crate::deadline::Deadline;
use crate::store::State;
use trace::Trace;

tokio::task_local! {
    static RECORD: RefCell<Record>;
}

/// The notes on one request.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub(crate) request_id: String,
    pub(crate) trace: Trace,
    pub(crate) organization_id: Option<Uuid>,
    /// The session's digest.
    pub(crate) session: Option<String>,
    /// As it was answered.
    pub(crate) state: Option<State>,
    pub(crate) source: Option<Source>,
    pub(crate) token: Option<TokenUse>,
    pub(crate) token_why: Option<&'static str>,
    /// Why the refresh failed that this request made.
    pub(crate) refresh_failure: Option<String>,
    /// Why the function's own secrets could not be read again.
    pub(crate) secret_failure: Option<String>,
    /// Whether there is evidence that a person has to replace one of them.
    pub(crate) own_key_rejected: bool,
    /// Why the answer is not what the platform says now.
    pub(crate) stale_because: Option<String>,
    pub(crate) calls: Vec<Call>,
}

/// Where an answer's state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The platform was asked.
    Live,
    /// It was seen moments ago, and the platform not asked.
    Remembered,
    /// The platform could not be asked; it is the last known state.
    Stale,
}

/// How a request came by its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUse {
    /// The saved one was used as it was.
    Reused,
    /// A new one was fetched and saved.
    Refreshed,
    /// A new one was fetched and used, and could not be saved.
    Unsaved,
    /// Another request has fetched it meanwhile.
    Waited,
    /// One was fetched in vain: another request had saved its own before, which was used.
    Lost,
    /// The saved one ends soon and could not be replaced yet; it was used once more.
    Kept,
    /// There is none: the platform does not take the number's API key.
    Refused,
    /// There is none, for another reason.
    Failed,
}

/// One call to an upstream. What is left out of the log's line is as usual: status 200, one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    #[serde(skip_serializing_if = "CallStatus::is_usual")]
    pub(crate) status: CallStatus,
    /// With all attempts and the pauses between them.
    pub(crate) ms: i64,
    #[serde(skip_serializing_if = "is_one")]
    pub(crate) attempts: u32,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum CallStatus {
    /// With this answer.
    Http(u16),
    /// Without a whole one.
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

/// A call that is under way. It is noted when this is dropped, and so also where the request gives it up.
pub(crate) struct Underway {
    name: &'static str,
    deadline: Deadline,
    had: Duration,
    pub(crate) attempts: u32,
    pub(crate) status: CallStatus,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let ms = millis(self.had.saturating_sub(self.deadline.remaining()));
        let status = std::mem::replace(&mut self.status, CallStatus::Http(0));
        note(|record| record.calls.push(Call { name: self.name, status, ms, attempts: self.attempts }));
    }
}

impl Record {
    pub(crate) fn new(request_id: String, trace: Trace) -> Self {
        Self { request_id, trace, ..Self::default() }
    }

    /// Does a request's work, and answers what was noted on the way too.
    pub(crate) async fn keep<W: Future>(self, work: W) -> (W::Output, Self) {
        let kept = async {
            let output = work.await;
            (output, RECORD.with(RefCell::take))
        };
        RECORD.scope(RefCell::new(self), kept).await
    }
}

/// A call to `name` that begins now.
pub(crate) fn call(name: &'static str, deadline: Deadline) -> Underway {
    let status = CallStatus::Failed("given up".to_owned());
    Underway { name, deadline, had: deadline.remaining(), attempts: 0, status }
}

/// Whose request it is.
pub fn organization(id: Uuid) {
    note(|record| record.organization_id = Some(id));
}

/// Which session it is about. The log has the first 8 digits of its SHA-256: `printf %s SESSION | sha256sum`.
pub fn session(session: &str) {
    let digest = digest(&SHA256, session.as_bytes());
    let short = digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    note(|record| record.session = Some(short));
}

/// The number's state as it is answered, and where that comes from.
pub fn state(state: State, source: Source) {
    note(|record| (record.state, record.source) = (Some(state), Some(source)));
}

/// That the answer is the last known state, and why.
pub fn stale(because: impl ToString) {
    note(|record| record.stale_because = Some(because.to_string()));
}

/// How the request came by its token, and why the saved one would not do. Of several calls, a refresh is what counts.
pub(crate) fn token(used: TokenUse, why: Option<&'static str>) {
    note(|record| {
        if used != TokenUse::Reused || record.token.is_none() {
            (record.token, record.token_why) = (Some(used), why);
        }
    });
}

/// That a refresh which this request made has failed.
pub(crate) fn refresh_failed(why: impl ToString) {
    note(|record| record.refresh_failure = Some(why.to_string()));
}

/// Notes that the function's own secrets could not be read again; the old ones are still used.
pub(crate) fn secret_failed(why: impl ToString) {
    note(|record| record.secret_failure = Some(why.to_string()));
}

/// Notes evidence that a person has to replace one of the function's own secrets.
pub(crate) fn own_key_rejected() {
    note(|record| record.own_key_rejected = true);
}

/// Returns whether a call whose name begins with this was answered with a 2xx.
pub(crate) fn is_answered(name: &str) -> bool {
    let is_it =
        |call: &Call| matches!(call.status, CallStatus::Http(200..=299)) && call.name.starts_with(name);
    read(|record| record.calls.iter().any(is_it)).unwrap_or(false)
}

/// The request's id, where there is a request.
pub(crate) fn request_id() -> Option<String> {
    read(|record| record.request_id.clone())
}

/// The headers that carry the request's trace on.
pub(crate) fn trace_headers() -> HeaderMap {
    read(|record| record.trace.headers()).unwrap_or_default()
}

fn note(change: impl FnOnce(&mut Record)) {
    // No request: nothing to note.
    let _ = RECORD.try_with(|record| change(&mut record.borrow_mut()));
}

fn read<T>(what: impl FnOnce(&Record) -> T) -> Option<T> {
    RECORD.try_with(|record| record.try_borrow().ok().map(|record| what(&record))).ok().flatten()
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    fn record(id: usize) -> Record {
        Record::new(id.to_string(), Trace::default())
    }

    fn deadline() -> Deadline {
        Deadline::within(Duration::from_secs(20))
    }

    #[tokio::test]
    async fn requests_that_are_worked_on_at_once_do_not_mix() {
        let work = async |id: usize| {
            for nth in 0..5 {
                let mut call = call("qr", deadline());
                call.attempts = u32::try_from(id * 10 + nth).unwrap();
                tokio::task::yield_now().await;
                session(&id.to_string());
                assert_eq!(request_id(), Some(id.to_string()));
            }
            id
        };
        let kept = join_all((0..8).map(|id| record(id).keep(work(id)))).await;
        for (id, record) in kept {
            let attempts: Vec<_> = record.calls.iter().map(|call| call.attempts as usize).collect();
            assert_eq!(attempts, (0..5).map(|nth| id * 10 + nth).collect::<Vec<_>>());
            assert_eq!(record.request_id, id.to_string());
        }
        assert_eq!(request_id(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_noted_with_its_time_also_where_it_is_given_up() {
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
        let (outcome, record) = record(1).keep(work).await;
        assert!(outcome.is_err());
        let calls: Vec<_> = record.calls.iter().map(|call| (call.name, call.ms, call.attempts)).collect();
        assert_eq!(calls, [("status", 70, 2), ("qr", 3000, 0)]);
        assert_eq!(record.calls[0].status, CallStatus::Http(204));
        assert_eq!(record.calls[1].status, CallStatus::Failed("given up".to_owned()));
    }

    #[tokio::test]
    async fn a_refresh_counts_more_than_the_use_of_its_token_afterwards() {
        let work = async {
            token(TokenUse::Reused, None);
            token(TokenUse::Refreshed, Some("rejected"));
            token(TokenUse::Reused, None);
        };
        let ((), record) = record(1).keep(work).await;
        assert_eq!((record.token, record.token_why), (Some(TokenUse::Refreshed), Some("rejected")));
    }

    #[tokio::test]
    async fn a_session_is_noted_by_its_digest_as_sha256sum_writes_it() {
        let ((), record) = record(1).keep(async { session("0000000000004") }).await;
        assert_eq!(record.session.unwrap(), "e6644332");
    }

    #[test]
    fn without_a_request_nothing_is_noted() {
        state(State::Connected, Source::Live);
        drop(call("secret", deadline()));
        assert_eq!((request_id(), trace_headers()), (None, HeaderMap::new()));
    }
}
