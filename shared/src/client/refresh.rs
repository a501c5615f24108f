//! How a refresh is carried out, step by step as [`crate::life`] decides: in the sandbox's turn and under the row's lease.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::flight::{Landing, Turn};
use crate::life::{Event, FetchFailure, Step, Trouble};
use crate::secret::Secret;
use crate::store::{ClaimOutcome, Number, ReleaseOutcome, Released, Saved, StoreError};
use crate::token::Token;
use crate::wpp::PlatformError;

use super::{Client, Keeper};

/// The right to refresh ends by itself after this: the longest that a crowd waits for a holder that has died.
const LEASE: Duration = Duration::from_secs(8);

/// A fetch ends well before the lease does, so that its token is saved under it, also where the database is slow.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// A save that takes longer has failed: the lease is over then, and the token serves without it.
const SAVE_TIME: Duration = Duration::from_secs(3);

/// What an early refresh may add to a request that has already been served, but for the noting of what it came to.
const EARLY_TIME: Duration = Duration::from_millis(500);

/// The right to refresh early ends sooner: its holder gives up sooner.
const EARLY_LEASE: Duration = Duration::from_secs(2);

/// What saving an early refresh's token may take beyond that, and noting any refresh's failure beyond its own time.
const NOTE_TIME: Duration = Duration::from_secs(1);

/// Nobody asks for a token again so soon after a failure: a poll's rhythm, so that each poll tries once.
const COOL_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A dead key stays dead until somebody recreates it.
const COOL_AFTER_REJECTION: Duration = Duration::from_secs(30);

impl Client {
    /// Carries out one step of a refresh, in this sandbox's turn. An early one that takes too long is given up.
    pub(super) async fn refresh(&mut self, progress: &mut Progress, step: Step) -> Result<Event, Error> {
        let event = match step {
            Step::Claim { replaced, early } => {
                if early {
                    progress.early_until = Some(progress.deadline.at_most(EARLY_TIME));
                    self.early_taken = true;
                }
                if let Some(event) = self.take_turn(progress, replaced.as_ref(), early).await? {
                    return Ok(event);
                }
                let event = self.claim(progress, replaced.as_ref(), early).await;
                progress.replaced = replaced;
                event
            }
            Step::Wait(at_most) => {
                let pause = at_most.mul_f64(0.5 + 0.5 * fastrand::f64());
                if progress.deadline.sleep(pause).await {
                    Event::Waited
                } else {
                    return Err(Error::DeadlineExceeded);
                }
            }
            Step::Fetch => self.fetch(progress).await,
            Step::Save { token, replaced } => self.save(progress, token, replaced.as_ref()).await,
            Step::Release { failure, early } => {
                let event = self.release(progress, failure, early).await;
                if event == Event::Released {
                    self.land(progress, &Event::Cooling(failure));
                }
                event
            }
            Step::Call(_) | Step::End(_) => return Err(Error::TokenRejected),
        };
        self.land(progress, &event);
        Ok(event)
    }

    /// Waits for this sandbox's turn at the number's refresh, but not with one that can be let be. Answers what another
    /// request has heard meanwhile; nothing where this one is to ask.
    async fn take_turn(
        &mut self,
        progress: &mut Progress,
        replaced: Option<&Secret>,
        early: bool,
    ) -> Result<Option<Event>, Error> {
        let Keeper::Row { flights, lease, .. } = &self.keeper else { return Ok(None) };
        if progress.turn.is_some() {
            return Ok(None);
        }
        let turn = if early {
            let Some(turn) = flights.free_turn(lease.integration_id) else {
                return Ok(Some(Event::Busy(Duration::ZERO)));
            };
            turn
        } else {
            let turn = flights.turn(lease.integration_id);
            progress.deadline.bound(turn).await.map_err(|_| Error::DeadlineExceeded)?
        };
        let Some(landing) = turn.landed(replaced) else {
            progress.turn = Some(turn);
            return Ok(None);
        };
        self.session = landing.session;
        progress.platform = landing.platform;
        progress.database = landing.database;
        Ok(Some(landing.event))
    }

    /// Leaves what this request has heard to the others of its sandbox, where they would hear the same.
    fn land(&self, progress: &mut Progress, event: &Event) {
        let event = match event {
            Event::Row { .. } => event.clone(),
            // Also one that could not be saved is good.
            Event::Saved | Event::SaveFailed => Event::Row { token: self.token.clone(), now: progress.now },
            // What fails for want of time may yet work for them.
            _ if progress.early_until.is_some() || progress.is_over() => return,
            Event::Cooling(_) | Event::ClaimFailed | Event::Gone => event.clone(),
            _ => return,
        };
        let landing = Landing {
            replaced: progress.replaced.clone(),
            event,
            session: self.session.clone(),
            platform: progress.platform,
            database: progress.database.clone(),
        };
        if let Some(turn) = &mut progress.turn {
            turn.land(landing);
        }
    }

    async fn claim(&mut self, progress: &mut Progress, replaced: Option<&Secret>, early: bool) -> Event {
        let (store, lease) = match &self.keeper {
            Keeper::Row { store, lease, .. } => (store, *lease),
            Keeper::Owner { api_key, .. } => {
                progress.api_key.clone_from(api_key);
                return Event::Granted;
            }
        };
        let time = if early { EARLY_LEASE } else { LEASE };
        let claim = match store.claim_refresh(lease, replaced, early, time, progress.patience()).await {
            Ok(claim) => claim,
            Err(error) => {
                progress.database = Some(error);
                return Event::ClaimFailed;
            }
        };
        progress.now = claim.now;
        match claim.outcome {
            ClaimOutcome::Granted { number } => {
                progress.api_key = number.settings.api_key();
                progress.key_is_new = number.key_is_new(claim.now);
                self.adopt(&number);
                Event::Granted
            }
            ClaimOutcome::Moved { number } => self.found(&number, claim.now),
            ClaimOutcome::Busy { wait_ms } => Event::Busy(Duration::from_millis(wait_ms)),
            ClaimOutcome::Cooling { failure } => Event::Cooling(from_word(failure.as_deref())),
            ClaimOutcome::Gone => Event::Gone,
        }
    }

    async fn fetch(&self, progress: &mut Progress) -> Event {
        let Some(api_key) = &progress.api_key else {
            return Event::FetchFailed(FetchFailure::KeyRejected);
        };
        let deadline = progress.patience().at_most(FETCH_TIME);
        match self.platform.token(api_key, progress.now, deadline).await {
            Ok(token) => Event::Fetched(token),
            Err(PlatformError::KeyRefused) if progress.key_is_new => {
                Event::FetchFailed(FetchFailure::KeyNotActive)
            }
            Err(PlatformError::KeyRefused) => Event::FetchFailed(FetchFailure::KeyRejected),
            Err(error) => {
                progress.platform = Some(error);
                Event::FetchFailed(FetchFailure::Platform)
            }
        }
    }

    async fn save(&mut self, progress: &mut Progress, token: Token, replaced: Option<&Secret>) -> Event {
        let (store, lease) = match &self.keeper {
            Keeper::Row { store, lease, .. } => (store, *lease),
            Keeper::Owner { on_token, .. } => {
                on_token(&token);
                self.token = Some(token);
                self.early_taken = false;
                return Event::Saved;
            }
        };
        let Some(api_key) = progress.api_key.as_ref() else { return Event::SaveFailed };
        let time = if progress.early_until.is_some() { NOTE_TIME } else { SAVE_TIME };
        let deadline = progress.deadline.at_most(time);
        let saved = store.save_token(lease, api_key, replaced, &token, deadline).await;
        self.token = Some(token);
        match saved {
            Ok(Saved::Saved { .. }) => Event::Saved,
            Ok(Saved::Superseded { number: Some(number) }) => {
                // The token of a key that was replaced meanwhile is of no use to the number that the row holds now.
                if number.settings.api_key() == progress.api_key {
                    self.adopt(&number);
                    Event::Superseded { token: number.settings.token(), now: progress.now }
                } else {
                    self.found(&number, progress.now)
                }
            }
            Ok(Saved::Superseded { number: None } | Saved::Gone) => {
                Event::Superseded { token: None, now: progress.now }
            }
            Err(error) => {
                tracing::warn!(%error, "a new token serves this request but could not be saved");
                // So that the next request need not wait to save another.
                self.give_back("save", Duration::ZERO).await;
                Event::SaveFailed
            }
        }
    }

    async fn release(&mut self, progress: &mut Progress, failure: FetchFailure, early: bool) -> Event {
        let cool = match failure {
            FetchFailure::KeyRejected => COOL_AFTER_REJECTION,
            // It would keep those waiting who have more time.
            FetchFailure::Platform if early || progress.is_over() => Duration::ZERO,
            FetchFailure::KeyNotActive | FetchFailure::Platform => COOL_AFTER_FAILURE,
        };
        match self.give_back(word(failure), cool).await {
            Some(Released { now, outcome: ReleaseOutcome::Moved { number } }) => {
                progress.now = now;
                self.found(&number, now)
            }
            _ => Event::Released,
        }
    }

    /// Gives the right to refresh back, also when the time of the request is over. Where this fails too, the lease ends by
    /// itself.
    async fn give_back(&self, failure: &str, cool: Duration) -> Option<Released> {
        let Keeper::Row { store, lease, .. } = &self.keeper else { return None };
        let released = store.fail_refresh(*lease, failure, cool, Deadline::within(NOTE_TIME)).await;
        released.inspect_err(|error| tracing::debug!(%error, "a failed refresh could not be noted")).ok()
    }

    /// The row was read again, at `now`.
    fn found(&mut self, number: &Number, now: UnixMs) -> Event {
        self.adopt(number);
        Event::Row { token: number.settings.token(), now }
    }

    /// The row may have got other credentials since it was read.
    fn adopt(&mut self, number: &Number) {
        if let Some(session) = number.settings.session() {
            session.clone_into(&mut self.session);
        }
    }
}

/// What one call has met on its way.
pub(super) struct Progress {
    deadline: Deadline,
    /// When a refresh that can be let be is given up.
    early_until: Option<Deadline>,
    /// The sandbox's turn at the number's refresh, from the first claim to the next call.
    pub(super) turn: Option<Turn>,
    /// The token that the last claim was to replace.
    replaced: Option<Secret>,
    now: UnixMs,
    api_key: Option<Secret>,
    key_is_new: bool,
    platform: Option<PlatformError>,
    database: Option<StoreError>,
}

impl Progress {
    pub(super) fn new(deadline: Deadline, now: UnixMs) -> Self {
        Self {
            deadline,
            early_until: None,
            turn: None,
            replaced: None,
            now,
            api_key: None,
            key_is_new: false,
            platform: None,
            database: None,
        }
    }

    fn is_over(&self) -> bool {
        self.deadline.remaining().is_zero()
    }

    fn patience(&self) -> Deadline {
        self.early_until.unwrap_or(self.deadline)
    }

    pub(super) fn error(self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::TokenRejected => Error::TokenRejected,
            Trouble::NoToken(FetchFailure::KeyRejected) => Error::ApiKeyRejected,
            Trouble::NoToken(FetchFailure::KeyNotActive) => Error::ApiKeyNotActive,
            Trouble::NoToken(FetchFailure::Platform) => {
                Error::Platform(self.platform.unwrap_or(PlatformError::Unavailable))
            }
            Trouble::Gone => Error::NumberNotFound,
            Trouble::Database => Error::Database(self.database.unwrap_or(StoreError::BadAnswer)),
        }
    }
}

/// How a failure is noted in the lease, for those who come while it is recent.
fn word(failure: FetchFailure) -> &'static str {
    match failure {
        FetchFailure::KeyRejected => "api_key_rejected",
        FetchFailure::KeyNotActive => "api_key_not_active",
        FetchFailure::Platform => "platform",
    }
}

fn from_word(word: Option<&str>) -> FetchFailure {
    match word {
        Some("api_key_rejected") => FetchFailure::KeyRejected,
        Some("api_key_not_active") => FetchFailure::KeyNotActive,
        _ => FetchFailure::Platform,
    }
}
