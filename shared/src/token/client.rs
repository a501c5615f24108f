//! The platform client of the plan: calls are made with the token at hand, and a new one is fetched and kept when that
//! one no longer serves. [`crate::token::protocol`] decides, `token::refresh` carries it out.

use std::sync::Arc;

use crate::App;
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::platform::{PlatformError, PlatformResult, SessionAuth};
use crate::secret::Secret;
use crate::store::{Number, StoreError};
use crate::token::protocol::{Event, RefreshProtocol, Step};
use crate::token::refresh::{FIRST_PAUSE, Refresh};
use crate::token::single_flight::Flight;
use crate::token::store::{TokenRow, TokenState, TokenStore};
use crate::upstream::CallError;

#[cfg(test)]
mod tests;

/// The most steps on a call's way to a token. With a rejected token, and one more that another request has saved, it takes
/// a dozen. A wait for a lease is no such step: it takes time, and that is bounded.
const MOST_STEPS: u32 = 20;

/// A platform client for one number, for the length of one request.
pub struct Client<S = TokenRow> {
    pub(crate) store: S,
    pub(crate) flight: Arc<Flight>,
    pub(crate) state: TokenState,
    /// Whether the lease was asked for: a token that is due is tried once in a request.
    has_claimed: bool,
}

impl Client {
    /// A client for a row that was read at `now`: its token is used, and a new one saved in it.
    pub fn of_number(app: &App, number: &Number, now: UnixMs) -> Result<Self, Error> {
        let state = TokenState::of(number, now).ok_or(Error::NumberNotFound)?;
        let store = TokenRow {
            store: app.store.clone(),
            platform: app.platform.clone(),
            organization_id: number.organization_id,
            integration_id: number.integration_id,
        };
        Ok(Self::new(store, app.single_flight.of(number.integration_id), state))
    }
}

impl<S: TokenStore> Client<S> {
    /// A client whose tokens come from `store` and are kept there. `state` is what it holds now, and `flight` is shared with
    /// the sandbox's other clients of that number.
    pub fn new(store: S, flight: Arc<Flight>, state: TokenState) -> Self {
        Self { store, flight, state, has_claimed: false }
    }

    /// The session whose calls are made.
    pub fn session(&self) -> &str {
        &self.state.session
    }

    /// What a call is made with at present.
    pub(crate) fn auth(&self) -> Option<SessionAuth> {
        let jwt = self.state.token.as_ref()?.jwt.clone();
        Some(SessionAuth { session: self.state.session.clone(), jwt })
    }

    /// A token that serves: the one at hand, else a new one.
    pub async fn get_token(&mut self, deadline: Deadline) -> Result<Secret, Error> {
        self.call(deadline, |auth| std::future::ready(Ok(auth.jwt))).await
    }

    /// Makes a platform call with a token that serves; once more with a new one if the platform rejects that. Ends after
    /// [`MOST_STEPS`], whatever the database answers.
    pub async fn call<T, F, W>(&mut self, deadline: Deadline, mut work: F) -> Result<T, Error>
    where
        F: FnMut(SessionAuth) -> W,
        W: Future<Output = PlatformResult<T>>,
    {
        let mut protocol = RefreshProtocol::new(self.has_claimed);
        let mut event = self.state.as_read();
        let mut refresh = Refresh::new(self, deadline);
        let mut steps = 0;
        loop {
            let step = protocol.next(event.clone());
            let takes_time =
                event == Event::Waited || matches!(step, Step::Wait(left) if left >= FIRST_PAUSE);
            steps += u32::from(!takes_time);
            if steps > MOST_STEPS {
                let error = CallError { call: "wpp_claim_refresh", why: StoreError::BadAnswer };
                refresh.end(&Event::ClaimFailed(error.clone()), false);
                return Err(error.into());
            }
            event = match step {
                Step::Call(token) => {
                    refresh.end(&event, true);
                    let session = refresh.client.state.session.clone();
                    let auth = SessionAuth { session, jwt: token.jwt.clone() };
                    match work(auth).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) if error.why == PlatformError::TokenRejected => {
                            Event::Rejected(token.jwt, error)
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Step::Fail(error) => {
                    refresh.end(&event, false);
                    return Err(error);
                }
                Step::Claim { replaces, why } => {
                    refresh.client.has_claimed = true;
                    refresh.claim(replaces, why).await
                }
                Step::Wait(left) => refresh.wait(left).await,
                Step::Fetch => refresh.fetch().await,
                Step::Save { token, replaces } => refresh.save(token, replaces).await,
                Step::Release(failure) => refresh.fail(failure).await,
            };
        }
    }
}
