//! Carries out what [`super::protocol`] decides: with the permit of the sandbox, under the lease of the row.

use std::time::Duration;

use uuid::Uuid;

use super::Token;
use super::protocol::{Event, Why};
use super::single_flight::Permit;
use super::store::{Answer, Outcome, StoreCall, TokenState, TokenStore, failure_noted_as, word_for};
use crate::backoff::Backoff;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::platform::PlatformError;
use crate::record::{self, TokenUse};
use crate::secret::Secret;
use crate::token::client::Client;
use crate::upstream::CallError;

/// A lease and its last part, which is kept for the saving. Both are counted from before the claim is sent, so that
/// nothing is done under a lease that has ended.
struct Limits {
    lease: Duration,
    save: Duration,
    /// Whether the lease is given back after a failure, or left to end by itself.
    release: bool,
}

/// The longest that a crowd waits for a holder that has died.
static NEEDED: Limits = Limits { lease: Duration::from_secs(8), save: Duration::from_secs(3), release: true };

/// The longest that a request is delayed by a token that is due. A refresh that fails leaves this lease to end by itself:
/// until then nobody else tries, and whoever needs a token waits no longer.
static DUE: Limits =
    Limits { lease: Duration::from_millis(1500), save: Duration::from_millis(500), release: false };

/// What giving a lease back may take, beyond the request's own time.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Nobody asks for a token again so soon after a failure: a poll's rhythm, so that each poll tries once.
const COOL_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A dead key stays dead until somebody recreates it.
const COOL_AFTER_REJECTION: Duration = Duration::from_secs(30);

/// The pauses of whoever waits for another holder's token.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Past the end of another holder's lease, so that the next claim finds it ended.
const AFTER_LEASE: Duration = Duration::from_millis(10);

impl Why {
    /// As the log has it.
    fn word(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Expired => "expired",
            Self::Missing => "missing",
            Self::Rejected => "rejected",
        }
    }
}

/// One call's refresh.
pub(crate) struct Refresh<'a, S> {
    pub(crate) client: &'a mut Client<S>,
    deadline: Deadline,
    /// Every call asks in its own name: what an earlier one was granted gives this one no right.
    holder: Uuid,
    permit: Option<Permit>,
    limits: &'static Limits,
    /// When the lease has only the time for a save left.
    fetch_by: Deadline,
    backoff: Backoff,
    /// Why the lease was asked for.
    begun: Option<Why>,
    /// Whether a token was fetched and sent to the row.
    has_saved: bool,
}

impl<'a, S: TokenStore> Refresh<'a, S> {
    pub(crate) fn new(client: &'a mut Client<S>, deadline: Deadline) -> Self {
        let (holder, backoff) = (Uuid::new_v4(), Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        Self {
            client,
            deadline,
            holder,
            permit: None,
            limits: &NEEDED,
            fetch_by: deadline,
            backoff,
            begun: None,
            has_saved: false,
        }
    }

    /// Asks for the lease, once this sandbox's permit is ours.
    pub(crate) async fn claim(&mut self, replaces: Option<Secret>, why: Why) -> Event {
        self.begun.get_or_insert(why);
        self.limits = if why == Why::Due { &DUE } else { &NEEDED };
        if self.permit.is_none() {
            let flight = self.client.flight.clone();
            let permit = match why {
                Why::Due => flight.try_lock_owned().map_err(|_| Event::Busy(Duration::ZERO)),
                _ => self.deadline.bound(flight.lock_owned()).await.map_err(|_| Event::OutOfTime),
            };
            let permit = match permit {
                Ok(permit) => self.permit.insert(permit),
                Err(event) => return event,
            };
            // The last one to have it may have read the row since this request did.
            if let Some(last) = permit.as_ref().filter(|last| last.now >= self.client.state.now) {
                last.clone_into(&mut self.client.state);
                return last.as_read();
            }
        }
        self.fetch_by = self.deadline.at_most(self.limits.lease - self.limits.save);
        let (replaces, is_rejected) = (replaces.as_ref(), why == Why::Rejected);
        let call = StoreCall::Claim { replaces, is_rejected, lease: self.limits.lease };
        match self.client.store.ask(self.holder, call, self.fetch_by).await {
            Ok(answer) => self.hear(answer, Event::Granted),
            Err(error) => Event::ClaimFailed(error),
        }
    }

    pub(crate) async fn wait(&mut self, left: Duration) -> Event {
        let pause = self.backoff.pause(left + AFTER_LEASE);
        if self.deadline.sleep(pause).await { Event::Waited } else { Event::OutOfTime }
    }

    pub(crate) async fn fetch(&self) -> Event {
        let state = &self.client.state;
        let Some(api_key) = &state.api_key else {
            return Event::FetchFailed(CallError { call: "auth/token", why: PlatformError::KeyRefused });
        };
        match self.client.store.fetch(api_key, state.now, self.fetch_by).await {
            Ok(token) => Event::Fetched(token),
            Err(CallError { call, why: PlatformError::KeyRefused }) if state.key_is_new => {
                Event::FetchFailed(CallError { call, why: PlatformError::KeyNotActive })
            }
            Err(error) => Event::FetchFailed(error),
        }
    }

    pub(crate) async fn save(&mut self, token: Token, replaces: Option<Secret>) -> Event {
        self.has_saved = true;
        let deadline = self.deadline.at_most(self.limits.save);
        let state = &self.client.state;
        let call =
            StoreCall::Save { token: &token, api_key: state.api_key.as_ref(), replaces: replaces.as_ref() };
        match self.client.store.ask(self.holder, call, deadline).await {
            Ok(answer) => self.hear(answer, Event::Saved(token)),
            Err(error) => {
                // It is good all the same, also for the others of this sandbox.
                self.go_on_with(TokenState { token: Some(token.clone()), ..state.clone() });
                if self.limits.release {
                    self.release("save", Duration::ZERO).await;
                }
                // That save may still be on its way. It must not end a lease that this call is granted later.
                self.holder = Uuid::new_v4();
                Event::SaveFailed(token, error)
            }
        }
    }

    pub(crate) async fn fail(&mut self, failure: CallError<PlatformError>) -> Event {
        let cool = match failure.why {
            PlatformError::KeyRefused => COOL_AFTER_REJECTION,
            PlatformError::KeyNotActive => COOL_AFTER_FAILURE,
            // What fails for want of time may yet work for others.
            _ if self.deadline.remaining().is_zero() => Duration::ZERO,
            _ => COOL_AFTER_FAILURE,
        };
        let noted = Event::FailureNoted(failure);
        match self.release(word_for(failure), cool).await {
            Some(answer) => self.hear(answer, noted),
            None => noted,
        }
    }

    /// The protocol has decided after `last`: the permit is free for the next one, and the request's record says how and why.
    pub(crate) fn end(&mut self, last: &Event, has_token: bool) {
        self.permit = None;
        let Some(why) = self.begun.take() else {
            if has_token {
                record::token(TokenUse::Reused, None);
            }
            return;
        };
        let used = match last {
            Event::Saved(_) => TokenUse::Refreshed,
            Event::SaveFailed(..) => TokenUse::Unsaved,
            Event::Row { .. } if self.has_saved => TokenUse::Lost,
            Event::Row { .. } => TokenUse::Waited,
            _ if has_token => TokenUse::Kept,
            Event::FailureNoted(error) | Event::Cooling(error) if is_about_key(error) => TokenUse::Refused,
            _ => TokenUse::Failed,
        };
        record::token(used, Some(why.word()));
        // What another one has failed with is in that one's line.
        match last {
            Event::FetchFailed(error) | Event::FailureNoted(error) if !is_about_key(error) => {
                record::refresh_failed(Error::from(*error));
            }
            Event::ClaimFailed(error) | Event::SaveFailed(_, error) => {
                record::refresh_failed(Error::from(error.clone()))
            }
            _ => {}
        }
    }

    /// What an answer of the database means; `done` if all went well.
    fn hear(&mut self, answer: Answer, done: Event) -> Event {
        let (number, event) = match answer.outcome {
            Outcome::Done { number: None } => return done,
            Outcome::Done { number: Some(number) } => (number, Some(done)),
            Outcome::Moved { number } => (number, None),
            Outcome::Busy { wait_ms } => return Event::Busy(Duration::from_millis(wait_ms)),
            Outcome::Cooling { failure } => return Event::Cooling(failure_noted_as(&failure)),
            Outcome::Gone => return Event::Gone,
        };
        let Some(state) = TokenState::of(&number, answer.now) else { return Event::Gone };
        self.go_on_with(state);
        event.unwrap_or_else(|| self.client.state.as_read())
    }

    /// The row was read again: for this request, and for those who wait for its permit.
    fn go_on_with(&mut self, state: TokenState) {
        state.clone_into(&mut self.client.state);
        if let Some(permit) = &mut self.permit {
            **permit = Some(state);
        }
    }

    /// Where this fails too, the lease ends by itself.
    async fn release(&self, failure: &str, cool: Duration) -> Option<Answer> {
        let call = StoreCall::Release { failure, cool };
        self.client.store.ask(self.holder, call, Deadline::within(RELEASE_TIME)).await.ok()
    }
}

/// Whether the platform has refused the number's API key: a matter of its organisation, and no failure of ours.
fn is_about_key(error: &CallError<PlatformError>) -> bool {
    matches!(error.why, PlatformError::KeyRefused | PlatformError::KeyNotActive)
}

#[cfg(test)]
mod tests;
