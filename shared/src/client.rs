//! The platform client of the plan: calls are made with the token at hand, and a new one is fetched and kept when that
//! one no longer serves. [`crate::life`] decides; this module does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use uuid::Uuid;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::flight::{Flights, Landing, Turn};
use crate::life::{Event, FetchFailure, Life, Step, Trouble};
use crate::secret::Secret;
use crate::store::{ClaimOutcome, Lease, Number, ReleaseOutcome, Released, Saved, Store, StoreError};
use crate::token::{Spread, Token};
use crate::upstream::Upstream;
use crate::wpp::{Platform, PlatformError};

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

/// What a client is made of, as the plan names it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the platform is.
    pub base_url: Url,
    /// Fetches tokens.
    pub api_key: Option<Secret>,
    /// The session whose calls are made.
    pub session: String,
    /// A token at hand: used directly while it is fresh.
    pub jwt_token: Option<Secret>,
    /// Its end; without it, the token's own `exp` counts.
    pub jwt_expires_at: Option<UnixMs>,
    /// The longest that one attempt at a call may take.
    pub timeout: Duration,
}

/// Where a new token goes, and who may fetch one.
#[derive(Clone)]
enum Keeper {
    /// The number's row: shared with every other sandbox and with the sibling functions.
    Row { store: Store, flights: Flights, lease: Lease },
    /// Whoever uses the client, alone.
    Owner { api_key: Option<Secret>, on_token: Arc<dyn Fn(&Token) + Send + Sync> },
}

/// What a platform call needs.
#[derive(Clone, Debug)]
pub struct Access {
    /// The number in the path.
    pub session: String,
    /// The bearer.
    pub jwt: Secret,
}

/// A platform client for one number.
#[derive(Clone)]
pub struct Client {
    platform: Platform,
    keeper: Keeper,
    spread: Spread,
    session: String,
    token: Option<Token>,
    early_taken: bool,
}

impl Client {
    /// A client without a database. `on_token` learns of every new token.
    pub fn new(
        options: Options,
        upstream: Upstream,
        on_token: impl Fn(&Token) + Send + Sync + 'static,
    ) -> Self {
        let expires_at = options.jwt_expires_at.map(|at| at.0.into());
        Self {
            platform: Platform::new(options.base_url, upstream, options.timeout),
            spread: Spread::of(&options.session),
            token: options.jwt_token.map(|jwt| Token::stored(jwt, expires_at.as_ref())),
            session: options.session,
            early_taken: false,
            keeper: Keeper::Owner { api_key: options.api_key, on_token: Arc::new(on_token) },
        }
    }

    /// A client for a row: its token is used, and a new one saved in it.
    ///
    /// # Errors
    /// [`Error::NumberNotFound`] where the row has no session yet.
    pub fn of_number(app: &App, number: &Number) -> Result<Self, Error> {
        let lease = Lease {
            organization_id: number.organization_id,
            integration_id: number.integration_id,
            holder: Uuid::new_v4(),
        };
        Ok(Self {
            platform: app.platform.clone(),
            spread: Spread::of(&number.integration_id),
            session: number.settings.session().ok_or(Error::NumberNotFound)?.to_owned(),
            token: number.settings.token(),
            early_taken: number.early_taken,
            keeper: Keeper::Row { store: app.store.clone(), flights: app.flights.clone(), lease },
        })
    }

    /// The session whose calls are made.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// A usable token: the one at hand, else a new one.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get_token(&mut self, now: UnixMs, deadline: Deadline) -> Result<Secret, Error> {
        self.call(now, deadline, |access| std::future::ready(Ok(access.jwt))).await
    }

    /// Makes a platform call with a usable token; once more with a new one where the platform refuses that.
    ///
    /// # Errors
    /// What failed: the call, or the way to a token. Never loops.
    pub async fn call<T, F, W>(&mut self, now: UnixMs, deadline: Deadline, work: F) -> Result<T, Error>
    where
        F: Fn(Access) -> W,
        W: Future<Output = Result<T, PlatformError>>,
    {
        if let Keeper::Row { lease, .. } = &mut self.keeper {
            // Every call asks in its own name: what an earlier one was granted gives this one no right.
            lease.holder = Uuid::new_v4();
        }
        let mut attempt = Attempt::new(deadline, now);
        let mut life = Life::new(self.spread).leave_early(self.early_taken);
        let mut answer = None;
        let mut step = life.next(Event::Row { token: self.token.clone(), now });
        loop {
            let event = match step {
                Step::Call(token) => {
                    attempt.turn = None;
                    let access = Access { session: self.session.clone(), jwt: token.jwt.clone() };
                    self.token = Some(token);
                    match work(access).await {
                        Ok(served) => {
                            answer = Some(served);
                            Event::Served
                        }
                        Err(PlatformError::TokenRefused) => Event::Refused,
                        Err(PlatformError::UnknownSession) => return Err(Error::SessionLost),
                        Err(error) => return Err(Error::Platform(error)),
                    }
                }
                Step::End(Ok(())) => return answer.ok_or(Error::TokenRejected),
                Step::End(Err(trouble)) => return Err(attempt.error(trouble)),
                step => self.refresh(&mut attempt, step).await?,
            };
            step = life.next(event);
        }
    }

    /// Carries out one step of a refresh, in this sandbox's turn. An early one that takes too long is given up.
    async fn refresh(&mut self, attempt: &mut Attempt, step: Step) -> Result<Event, Error> {
        let event = match step {
            Step::Claim { replaced, early } => {
                if early {
                    attempt.early_until = Some(attempt.deadline.at_most(EARLY_TIME));
                    self.early_taken = true;
                }
                if let Some(event) = self.take_turn(attempt, replaced.as_ref(), early).await? {
                    return Ok(event);
                }
                let event = self.claim(attempt, replaced.as_ref(), early).await;
                attempt.replaced = replaced;
                event
            }
            Step::Wait(at_most) => {
                let pause = at_most.mul_f64(0.5 + 0.5 * fastrand::f64());
                if attempt.deadline.sleep(pause).await {
                    Event::Waited
                } else {
                    return Err(Error::DeadlineExceeded);
                }
            }
            Step::Fetch => self.fetch(attempt).await,
            Step::Save { token, replaced } => self.save(attempt, token, replaced.as_ref()).await,
            Step::Release { failure, early } => {
                let event = self.release(attempt, failure, early).await;
                if event == Event::Released {
                    self.land(attempt, &Event::Cooling(failure));
                }
                event
            }
            Step::Call(_) | Step::End(_) => return Err(Error::TokenRejected),
        };
        self.land(attempt, &event);
        Ok(event)
    }

    /// Waits for this sandbox's turn at the number's refresh, but not with one that can be let be. Answers what another
    /// request has heard meanwhile; nothing where this one is to ask.
    async fn take_turn(
        &mut self,
        attempt: &mut Attempt,
        replaced: Option<&Secret>,
        early: bool,
    ) -> Result<Option<Event>, Error> {
        let Keeper::Row { flights, lease, .. } = &self.keeper else { return Ok(None) };
        if attempt.turn.is_some() {
            return Ok(None);
        }
        let turn = if early {
            let Some(turn) = flights.free_turn(lease.integration_id) else {
                return Ok(Some(Event::Busy(Duration::ZERO)));
            };
            turn
        } else {
            let turn = flights.turn(lease.integration_id);
            attempt.deadline.bound(turn).await.map_err(|_| Error::DeadlineExceeded)?
        };
        let Some(landing) = turn.landed(replaced) else {
            attempt.turn = Some(turn);
            return Ok(None);
        };
        self.session = landing.session;
        attempt.platform = landing.platform;
        attempt.database = landing.database;
        Ok(Some(landing.event))
    }

    /// Leaves what this request has heard to the others of its sandbox, where they would hear the same.
    fn land(&self, attempt: &mut Attempt, event: &Event) {
        let event = match event {
            Event::Row { .. } => event.clone(),
            // Also one that could not be saved is good.
            Event::Saved | Event::SaveFailed => Event::Row { token: self.token.clone(), now: attempt.now },
            // What fails for want of time may yet work for them.
            _ if attempt.early_until.is_some() || attempt.is_over() => return,
            Event::Cooling(_) | Event::ClaimFailed | Event::Gone => event.clone(),
            _ => return,
        };
        let landing = Landing {
            replaced: attempt.replaced.clone(),
            event,
            session: self.session.clone(),
            platform: attempt.platform,
            database: attempt.database.clone(),
        };
        if let Some(turn) = &mut attempt.turn {
            turn.land(landing);
        }
    }

    async fn claim(&mut self, attempt: &mut Attempt, replaced: Option<&Secret>, early: bool) -> Event {
        let (store, lease) = match &self.keeper {
            Keeper::Row { store, lease, .. } => (store, *lease),
            Keeper::Owner { api_key, .. } => {
                attempt.api_key.clone_from(api_key);
                return Event::Granted;
            }
        };
        let time = if early { EARLY_LEASE } else { LEASE };
        let claim = match store.claim_refresh(lease, replaced, early, time, attempt.patience()).await {
            Ok(claim) => claim,
            Err(error) => {
                attempt.database = Some(error);
                return Event::ClaimFailed;
            }
        };
        attempt.now = claim.now;
        match claim.outcome {
            ClaimOutcome::Granted { number } => {
                attempt.api_key = number.settings.api_key();
                attempt.key_is_new = number.key_is_new(claim.now);
                self.adopt(&number);
                Event::Granted
            }
            ClaimOutcome::Moved { number } => {
                self.adopt(&number);
                Event::Row { token: number.settings.token(), now: claim.now }
            }
            ClaimOutcome::Busy { wait_ms } => Event::Busy(Duration::from_millis(wait_ms)),
            ClaimOutcome::Cooling { failure } => Event::Cooling(from_word(failure.as_deref())),
            ClaimOutcome::Gone => Event::Gone,
        }
    }

    async fn fetch(&self, attempt: &mut Attempt) -> Event {
        let Some(api_key) = &attempt.api_key else {
            return Event::FetchFailed(FetchFailure::KeyRejected);
        };
        let deadline = attempt.patience().at_most(FETCH_TIME);
        match self.platform.token(api_key, attempt.now, deadline).await {
            Ok(token) => Event::Fetched(token),
            Err(PlatformError::KeyRefused) if attempt.key_is_new => {
                Event::FetchFailed(FetchFailure::KeyNotActive)
            }
            Err(PlatformError::KeyRefused) => Event::FetchFailed(FetchFailure::KeyRejected),
            Err(error) => {
                attempt.platform = Some(error);
                Event::FetchFailed(FetchFailure::Platform)
            }
        }
    }

    async fn save(&mut self, attempt: &mut Attempt, token: Token, replaced: Option<&Secret>) -> Event {
        let (store, lease) = match &self.keeper {
            Keeper::Row { store, lease, .. } => (store, *lease),
            Keeper::Owner { on_token, .. } => {
                on_token(&token);
                self.token = Some(token);
                self.early_taken = false;
                return Event::Saved;
            }
        };
        let Some(api_key) = attempt.api_key.as_ref() else { return Event::SaveFailed };
        let time = if attempt.early_until.is_some() { NOTE_TIME } else { SAVE_TIME };
        let deadline = attempt.deadline.at_most(time);
        let saved = store.save_token(lease, api_key, replaced, &token, deadline).await;
        self.token = Some(token);
        match saved {
            Ok(Saved::Saved { .. }) => Event::Saved,
            Ok(Saved::Superseded { number: Some(number) }) => {
                self.adopt(&number);
                let (token, now) = (number.settings.token(), attempt.now);
                // The token of a key that was replaced meanwhile is of no use to the number that the row holds now.
                if number.settings.api_key() == attempt.api_key {
                    Event::Superseded { token, now }
                } else {
                    Event::Row { token, now }
                }
            }
            Ok(Saved::Superseded { number: None } | Saved::Gone) => {
                Event::Superseded { token: None, now: attempt.now }
            }
            Err(error) => {
                tracing::warn!(%error, "a new token serves this request but could not be saved");
                // So that the next request need not wait to save another.
                self.give_back("save", Duration::ZERO).await;
                Event::SaveFailed
            }
        }
    }

    async fn release(&mut self, attempt: &mut Attempt, failure: FetchFailure, early: bool) -> Event {
        let cool = match failure {
            FetchFailure::KeyRejected => COOL_AFTER_REJECTION,
            // It would keep those waiting who have more time.
            FetchFailure::Platform if early || attempt.is_over() => Duration::ZERO,
            FetchFailure::KeyNotActive | FetchFailure::Platform => COOL_AFTER_FAILURE,
        };
        match self.give_back(word(failure), cool).await {
            Some(Released { now, outcome: ReleaseOutcome::Moved { number } }) => {
                attempt.now = now;
                self.adopt(&number);
                Event::Row { token: number.settings.token(), now }
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

    /// The row may have got other credentials since it was read.
    fn adopt(&mut self, number: &Number) {
        if let Some(session) = number.settings.session() {
            session.clone_into(&mut self.session);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.session).finish_non_exhaustive()
    }
}

/// What one call has met on its way.
struct Attempt {
    deadline: Deadline,
    /// When a refresh that can be let be is given up.
    early_until: Option<Deadline>,
    /// The sandbox's turn at the number's refresh, from the first claim to the next call.
    turn: Option<Turn>,
    /// The token that the last claim was to replace.
    replaced: Option<Secret>,
    now: UnixMs,
    api_key: Option<Secret>,
    key_is_new: bool,
    platform: Option<PlatformError>,
    database: Option<StoreError>,
}

impl Attempt {
    fn new(deadline: Deadline, now: UnixMs) -> Self {
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

    fn error(self, trouble: Trouble) -> Error {
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
