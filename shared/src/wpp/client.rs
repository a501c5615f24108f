//! The platform client of the plan, for one number and one request. It calls with the stored token. If that is due, expired or
//! rejected, it fetches and saves a new one. [`crate::wpp::protocol`] decides, `wpp::refresh` carries it out.

use std::future::ready;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::upstream::CallError;
use crate::wpp::api::{PlatformError, PlatformResult, SessionAuth, WppApi};
use crate::wpp::protocol::{Event, RefreshProtocol, Step};
use crate::wpp::refresh::{FIRST_PAUSE, Refresh, RefreshPermit, TokenSource, TokenStore};
use crate::wpp::token::Token;

#[cfg(test)]
mod tests;

/// The limit on steps until a call has its token. With a rejected token, and another one that a second request has saved, it takes
/// a dozen. Waiting for a lease does not count as a step: the deadline limits it.
const MOST_STEPS: u32 = 20;

/// The start of a client: a number's credentials and token, as read from its row.
#[derive(Clone, Debug)]
pub struct WppMsgClientOptions {
    /// The platform's session.
    pub session: String,
    /// Fetches tokens. `None`: a refresh fails with [`PlatformError::KeyRefused`] without a call.
    pub api_key: Option<Secret>,
    /// Whether the API key is so new that it may not be active yet.
    pub api_key_is_new: bool,
    /// Used until it expires.
    pub jwt_token: Option<Secret>,
    /// The expiry of `jwt_token`, in milliseconds since 1970. `None`: the token's own `exp` counts.
    pub jwt_expires_at: Option<UnixMs>,
    /// When the row was read, by the database's clock.
    pub read_at: UnixMs,
}

impl WppMsgClientOptions {
    /// Returns the stored token.
    pub fn token(&self) -> Option<Token> {
        self.jwt_token.as_ref().map(|jwt| Token::stored(jwt.clone(), self.jwt_expires_at))
    }
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClientError<E> {
    /// The platform failed, or refused a call.
    #[error("platform {0}")]
    Platform(CallError<PlatformError>),
    /// The store failed, and there is no token that could be used without it.
    #[error("{0}")]
    Store(E),
    /// The number was deleted.
    #[error("no such number")]
    NumberGone,
    /// The time for the request ran out.
    #[error("the time for the request ran out")]
    OutOfTime,
    /// The limit on steps was reached.
    #[error("the token refresh did not end")]
    TooManySteps,
}

/// A platform client for one number. `S` stores its token, `P` issues new ones.
pub struct WppMsgClient<S, P = WppApi> {
    pub(super) platform: P,
    pub(super) store: S,
    pub(super) permit: Arc<RefreshPermit>,
    pub(super) options: WppMsgClientOptions,
    /// Whether this request has already asked for the lease: it tries only once to replace a due token.
    has_claimed: bool,
}

impl<S: TokenStore, P: TokenSource> WppMsgClient<S, P> {
    /// Makes a client. `permit` is shared with the sandbox's other clients of the number.
    pub fn new(platform: P, store: S, permit: Arc<RefreshPermit>, options: WppMsgClientOptions) -> Self {
        Self { platform, store, permit, options, has_claimed: false }
    }

    /// Returns the session that the calls are made for.
    pub fn session(&self) -> &str {
        &self.options.session
    }

    /// Returns the session and the stored token, whatever its age. Returns `None` if no token is stored.
    pub(crate) fn auth(&self) -> Option<SessionAuth> {
        let jwt = self.options.jwt_token.clone()?;
        Some(SessionAuth { session: self.options.session.clone(), jwt })
    }

    /// Returns a usable token: the stored one, or a new one if that is due or expired.
    pub async fn get_token(&mut self, deadline: Deadline) -> Result<Secret, ClientError<S::Error>> {
        self.call(deadline, |auth| ready(Ok(auth.jwt))).await
    }

    /// Makes a platform call with a usable token. If the platform rejects the token, tries once more with a new one. Ends after
    /// `MOST_STEPS`, whatever the store answers.
    pub async fn call<T, F, W>(&mut self, deadline: Deadline, mut call: F) -> Result<T, ClientError<S::Error>>
    where
        F: FnMut(SessionAuth) -> W,
        W: Future<Output = PlatformResult<T>>,
    {
        let mut protocol = RefreshProtocol::new(self.has_claimed);
        let mut event = self.row_event();
        let mut refresh = Refresh::new(self, deadline);
        let mut steps = 0;
        loop {
            let is_waited = event == Event::Waited;
            let step = protocol.next(event.clone());
            let takes_time = is_waited || matches!(step, Step::Wait(left) if left >= FIRST_PAUSE);
            steps += u32::from(!takes_time);
            if steps > MOST_STEPS {
                refresh.end(&event, Err(&ClientError::TooManySteps));
                return Err(ClientError::TooManySteps);
            }
            event = match step {
                Step::Call(token) => {
                    refresh.end(&event, Ok(()));
                    let session = refresh.client.options.session.clone();
                    match call(SessionAuth { session, jwt: token.jwt.clone() }).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) if error.why == PlatformError::TokenRejected => {
                            Event::Rejected(token.jwt, error)
                        }
                        Err(error) => return Err(ClientError::Platform(error)),
                    }
                }
                Step::Fail(error) => {
                    refresh.end(&event, Err(&error));
                    return Err(error);
                }
                Step::Claim { replaces, why } => {
                    refresh.client.has_claimed = true;
                    refresh.claim(replaces, why).await
                }
                Step::Wait(left) => refresh.wait(left).await,
                Step::Fetch => refresh.fetch().await,
                Step::Save { token, replaces } => refresh.save(token, replaces).await,
                Step::Release(failure) => refresh.release(failure).await,
            };
        }
    }

    pub(super) fn row_event(&self) -> Event<S::Error> {
        Event::Row { token: self.options.token(), now: self.options.read_at }
    }
}
