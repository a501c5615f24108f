//! Carries out what [`super::protocol`] decides: with the sandbox's permit, and under the lease in the row.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::client::{ClientError, WppMsgClient, WppMsgClientOptions};
use super::protocol::{Event, Why};
use super::token::Token;
use crate::backoff::Backoff;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::request_log::{self, TokenUse};
use crate::secret::Secret;
use crate::upstream::CallError;
use crate::wpp::api::{PlatformError, PlatformResult};

/// Issues a token for an API key: the platform.
pub trait TokenSource {
    /// Asks for a token. `now` is the time of the request.
    fn fetch_token(
        &self,
        api_key: &Secret,
        now: UnixMs,
        deadline: Deadline,
    ) -> impl Future<Output = PlatformResult<Token>> + Send;
}

/// Stores a number's token, and grants one request at a time the lease to refresh it: the database. Every call is safe to repeat.
pub trait TokenStore {
    /// Why a call failed: the database did not answer, or refused.
    type Error: Clone + PartialEq + fmt::Display + Send;

    /// Asks for the lease to replace this token, if there is one. `is_rejected`: the platform rejected it.
    fn claim(
        &self,
        holder: Uuid,
        replaces: Option<&Secret>,
        is_rejected: bool,
        lease: Duration,
        deadline: Deadline,
    ) -> impl Future<Output = Result<LeaseOutcome, Self::Error>> + Send;

    /// Saves a token that was fetched with this API key, in place of another one, and ends the lease.
    fn save(
        &self,
        holder: Uuid,
        token: &Token,
        api_key: Option<&Secret>,
        replaces: Option<&Secret>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<LeaseOutcome, Self::Error>> + Send;

    /// Ends the lease after a failure. No request gets another one until the cooldown is over.
    fn release(
        &self,
        holder: Uuid,
        failure: &'static str,
        cooldown: Duration,
        deadline: Deadline,
    ) -> impl Future<Output = Result<LeaseOutcome, Self::Error>> + Send;
}

/// The result of a claim, a save or a release.
#[derive(Debug)]
pub enum LeaseOutcome {
    /// The lease is granted, or the token or the failure is saved. Holds the row afterwards, if it may be needed.
    Done(Option<WppMsgClientOptions>),
    /// The row has another token or API key, or the lease has another holder. Holds the row.
    Changed(WppMsgClientOptions),
    /// Another holder has the lease, for at most this long.
    Busy(Duration),
    /// The last refresh failed a moment ago, with this code.
    Cooldown(String),
    /// The number was deleted.
    Gone,
}

/// How long a lease lasts, and how much of its end is kept for the save. The time is counted from before the claim is sent, so that
/// nothing is done after the lease has ended.
struct Limits {
    lease: Duration,
    save: Duration,
    /// Whether a failed save releases the lease. Otherwise it is left until it expires.
    is_released: bool,
}

/// For a needed token. A dead holder blocks the others for this long.
static NEEDED: Limits =
    Limits { lease: Duration::from_secs(8), save: Duration::from_secs(3), is_released: true };

/// For a due token: a request is delayed by no more than this. After a failure, the lease is left to expire; until then, no other
/// request tries or waits.
static DUE: Limits =
    Limits { lease: Duration::from_millis(1500), save: Duration::from_millis(500), is_released: false };

/// How long a release may take, beyond the request's own time.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The cooldown after a failed fetch: shorter than the shortest poll interval, so that each poll tries once.
const FAILURE_COOLDOWN: Duration = Duration::from_secs(1);

/// The cooldown after the platform refused the API key: it stays refused until a person connects the number again.
const REFUSED_KEY_COOLDOWN: Duration = Duration::from_secs(30);

/// The first and the longest pause of a request that waits for another one's token.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Added to the time that another holder's lease has left, which limits the pause before the next claim.
const LEASE_WAIT_MARGIN: Duration = Duration::from_millis(10);

/// The permit to refresh a number's token within a sandbox, with the row as its last holder left it.
pub type RefreshPermit = tokio::sync::Mutex<Option<WppMsgClientOptions>>;

/// The permits of a sandbox, by number. Requests of one sandbox take turns: the first asks for the lease, and the next ones start with
/// the row that it left. The permit is dropped with the last request about the number.
#[derive(Clone, Debug, Default)]
pub struct SingleFlight(Arc<Mutex<HashMap<Uuid, Weak<RefreshPermit>>>>);

impl SingleFlight {
    /// Returns the permit of a number.
    pub(crate) fn of(&self, number: Uuid) -> Arc<RefreshPermit> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permit) = permits.get(&number).and_then(Weak::upgrade) {
            return permit;
        }
        permits.retain(|_, permit| permit.strong_count() > 0);
        let permit = Arc::default();
        permits.insert(number, Arc::downgrade(&permit));
        permit
    }
}

/// Returns the code under which a failed fetch is saved with the lease, for requests during the cooldown.
pub(crate) fn failure_code(failure: CallError<PlatformError>) -> &'static str {
    match failure.why {
        PlatformError::KeyRefused => "api_key_rejected",
        PlatformError::KeyNotActive => "api_key_not_active",
        _ => "platform",
    }
}

/// Returns the failure that a code stands for. The log must not name a call that this request did not make.
pub(crate) fn failure_of(code: &str) -> CallError<PlatformError> {
    let why = match code {
        "api_key_rejected" => PlatformError::KeyRefused,
        "api_key_not_active" => PlatformError::KeyNotActive,
        "token_rejected" => PlatformError::TokenRejected,
        _ => PlatformError::Unavailable,
    };
    CallError { call: "auth/token (cooldown)", why }
}

/// The refresh of one call.
pub(super) struct Refresh<'a, S, P> {
    pub(super) client: &'a mut WppMsgClient<S, P>,
    deadline: Deadline,
    /// Identifies this call: another call's lease gives it no right.
    holder: Uuid,
    permit: Option<OwnedMutexGuard<Option<WppMsgClientOptions>>>,
    limits: &'static Limits,
    /// When the lease has only enough time left for a save.
    fetch_by: Deadline,
    backoff: Backoff,
    /// Why the lease was asked for.
    why: Option<Why>,
}

impl<'a, S: TokenStore, P: TokenSource> Refresh<'a, S, P> {
    pub(super) fn new(client: &'a mut WppMsgClient<S, P>, deadline: Deadline) -> Self {
        let (holder, backoff) = (Uuid::new_v4(), Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        let limits = &NEEDED;
        Self { client, deadline, holder, permit: None, limits, fetch_by: deadline, backoff, why: None }
    }

    /// Asks for the lease, once this call has the permit of its sandbox.
    pub(super) async fn claim(&mut self, replaces: Option<Secret>, why: Why) -> Event<S::Error> {
        self.why.get_or_insert(why);
        self.limits = if why == Why::Due { &DUE } else { &NEEDED };
        if self.permit.is_none() {
            let permit = self.client.permit.clone();
            let permit = match why {
                Why::Due => permit.try_lock_owned().map_err(|_| Event::Busy(Duration::ZERO)),
                _ => self.deadline.bound(permit.lock_owned()).await.map_err(|_| Event::OutOfTime),
            };
            let permit = match permit {
                Ok(permit) => self.permit.insert(permit),
                Err(event) => return event,
            };
            // The permit's last holder may have read the row after this request did.
            if let Some(last) = permit.as_ref().filter(|last| last.read_at >= self.client.options.read_at) {
                last.clone_into(&mut self.client.options);
                return self.client.row_event();
            }
        }
        self.fetch_by = self.deadline.at_most(self.limits.lease - self.limits.save);
        let (is_rejected, lease) = (why == Why::Rejected, self.limits.lease);
        let claim =
            self.client.store.claim(self.holder, replaces.as_ref(), is_rejected, lease, self.fetch_by);
        match claim.await {
            Ok(answer) => self.apply(answer, Event::Granted),
            Err(error) => Event::ClaimFailed(error),
        }
    }

    pub(super) async fn wait(&mut self, left: Duration) -> Event<S::Error> {
        let pause = self.backoff.pause(left + LEASE_WAIT_MARGIN);
        if self.deadline.sleep(pause).await { Event::Waited } else { Event::OutOfTime }
    }

    pub(super) async fn fetch(&self) -> Event<S::Error> {
        let options = &self.client.options;
        let Some(api_key) = &options.api_key else {
            return Event::FetchFailed(CallError { call: "auth/token", why: PlatformError::KeyRefused });
        };
        match self.client.platform.fetch_token(api_key, options.read_at, self.fetch_by).await {
            Ok(token) => Event::Fetched(token),
            Err(CallError { call, why: PlatformError::KeyRefused }) if options.api_key_is_new => {
                Event::FetchFailed(CallError { call, why: PlatformError::KeyNotActive })
            }
            Err(error) => Event::FetchFailed(error),
        }
    }

    pub(super) async fn save(&mut self, token: Token, replaces: Option<Secret>) -> Event<S::Error> {
        let deadline = self.deadline.at_most(self.limits.save);
        let api_key = self.client.options.api_key.as_ref();
        let saved = self.client.store.save(self.holder, &token, api_key, replaces.as_ref(), deadline);
        match saved.await {
            Ok(answer) => self.apply(answer, Event::Saved(token)),
            Err(error) => {
                // The token can be used anyway, also by the other requests of this sandbox.
                let (jwt_token, jwt_expires_at) = (Some(token.jwt.clone()), Some(token.expires_at));
                self.set(WppMsgClientOptions { jwt_token, jwt_expires_at, ..self.client.options.clone() });
                if self.limits.is_released {
                    let _ = self.end_lease("save", Duration::ZERO).await;
                }
                // The lost save may still arrive. It must not end a lease that this call gets later.
                self.holder = Uuid::new_v4();
                Event::SaveFailed(token, error)
            }
        }
    }

    pub(super) async fn release(&mut self, failure: CallError<PlatformError>) -> Event<S::Error> {
        let cooldown = match failure.why {
            PlatformError::KeyRefused => REFUSED_KEY_COOLDOWN,
            // A request with more time may succeed.
            _ if self.deadline.remaining().is_zero() => Duration::ZERO,
            _ => FAILURE_COOLDOWN,
        };
        let noted = Event::FailureNoted(failure);
        match self.end_lease(failure_code(failure), cooldown).await {
            Ok(answer) => self.apply(answer, noted),
            Err(_) => noted,
        }
    }

    /// Frees the permit for the next request, and notes in the request's log how this call got its token and why.
    pub(super) fn end(&mut self, last: &Event<S::Error>, outcome: Result<(), &ClientError<S::Error>>) {
        self.permit = None;
        let Some(why) = self.why.take() else {
            if outcome.is_ok() {
                request_log::token(TokenUse::Reused, None);
            }
            return;
        };
        let used = match (last, outcome) {
            (Event::Saved(_) | Event::SaveFailed(..), _) => TokenUse::Refreshed,
            (Event::Row { .. }, Ok(())) => TokenUse::Reused,
            (_, Ok(())) => TokenUse::Kept,
            (_, Err(_)) => TokenUse::Failed,
        };
        request_log::token(used, Some(why.word()));
        // Another request's failure is in that request's log line, and only the organization can replace a refused API key.
        match last {
            Event::FetchFailed(error) | Event::FailureNoted(error) if !is_about_key(error) => {
                request_log::refresh_failed(format!("platform {error}"));
            }
            Event::ClaimFailed(error) | Event::SaveFailed(_, error) => {
                request_log::refresh_failed(format!("database {error}"));
            }
            _ if outcome == Err(&ClientError::TooManySteps) => {
                request_log::refresh_failed(ClientError::<S::Error>::TooManySteps);
            }
            _ => {}
        }
    }

    /// Handles an answer of the store; `done` is the event on success.
    fn apply(&mut self, answer: LeaseOutcome, done: Event<S::Error>) -> Event<S::Error> {
        match answer {
            LeaseOutcome::Done(None) => done,
            LeaseOutcome::Done(Some(row)) => {
                self.set(row);
                done
            }
            LeaseOutcome::Changed(row) => {
                self.set(row);
                self.client.row_event()
            }
            LeaseOutcome::Busy(left) => Event::Busy(left),
            LeaseOutcome::Cooldown(code) => Event::Cooldown(failure_of(&code)),
            LeaseOutcome::Gone => Event::Gone,
        }
    }

    /// Continues with the newly read row, also for the requests that wait for the permit.
    fn set(&mut self, row: WppMsgClientOptions) {
        row.clone_into(&mut self.client.options);
        if let Some(permit) = &mut self.permit {
            **permit = Some(row);
        }
    }

    /// Ends the lease. If this fails too, the lease expires.
    async fn end_lease(&self, failure: &'static str, cooldown: Duration) -> Result<LeaseOutcome, S::Error> {
        self.client.store.release(self.holder, failure, cooldown, Deadline::within(RELEASE_TIMEOUT)).await
    }
}

impl Why {
    /// Returns its word in the log.
    fn word(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Missing => "missing",
            Self::Rejected => "rejected",
        }
    }
}

/// Whether the platform has refused the number's API key: its organization has to act, not the operator.
fn is_about_key(error: &CallError<PlatformError>) -> bool {
    matches!(error.why, PlatformError::KeyRefused | PlatformError::KeyNotActive)
}

#[cfg(test)]
mod tests;
