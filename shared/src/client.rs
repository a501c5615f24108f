//! The platform client of the plan: calls are made with the token at hand, and a new one is fetched and kept when that
//! one no longer serves. [`crate::life`] decides; this module calls, and `refresh` brings the new token.

mod refresh;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use uuid::Uuid;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::flight::Flights;
use crate::life::{Event, Life, Step};
use crate::secret::Secret;
use crate::store::{Lease, Number, Store};
use crate::token::{Spread, Token};
use crate::upstream::Upstream;
use crate::wpp::{Platform, PlatformError};

use refresh::Progress;

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
        let mut progress = Progress::new(deadline, now);
        let mut life = Life::new(self.spread).leave_early(self.early_taken);
        let mut answer = None;
        let mut step = life.next(Event::Row { token: self.token.clone(), now });
        loop {
            let event = match step {
                Step::Call(token) => {
                    progress.turn = None;
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
                Step::End(Err(trouble)) => return Err(progress.error(trouble)),
                step => self.refresh(&mut progress, step).await?,
            };
            step = life.next(event);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.session).finish_non_exhaustive()
    }
}
