//! How one request gets a usable token, as a pure decision: without clock, network or database.
//!
//! The caller passes in what just happened ([`Event`]) and does what comes back ([`Step`]). `E` is the error of the store that keeps
//! the token. [`crate::wpp::client`] runs this machine, and a test walks every interleaving of it.
//!
//! ```text
//!   Row ──┬─ fresh ──────────────────────────────────────────────▶ Call
//!         ├─ due ────────▶ Claim ─┬─ granted ─▶ Fetch ─▶ Save ───▶ Call with the new token
//!         │                       ├─ changed ─▶ Row
//!         │                       └─ anything else ──────────────▶ Call with the old one, which is still usable
//!         └─ expired, ───▶ Claim ─┬─ granted ─▶ Fetch ─▶ Save ───▶ Call
//!            missing or      ▲    ├─ changed ─▶ Row
//!            rejected        │    ├─ busy ────▶ Wait ─┐
//!                            │    └─ cooldown ▶ Fail  │
//!                            └────────────────────────┘
//! ```

use std::time::Duration;

use crate::clock::UnixMs;
use crate::secret::Secret;
use crate::upstream::CallError;
use crate::wpp::api::PlatformError;
use crate::wpp::client::ClientError;
use crate::wpp::token::{Age, Token};

/// What just happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event<E> {
    /// The row was read: for the first time, or again because it now holds another token or API key.
    Row {
        /// The token in it.
        token: Option<Token>,
        /// When it was read, by the database's clock.
        now: UnixMs,
    },
    /// The platform rejected this token. The error names the call.
    Rejected(Secret, CallError<PlatformError>),
    /// The lease is granted.
    Granted,
    /// Another request has the lease, for at most this long.
    Busy(Duration),
    /// Another request's refresh failed a moment ago.
    Cooldown(CallError<PlatformError>),
    /// The number was deleted.
    Gone,
    /// The claim failed.
    ClaimFailed(E),
    /// The pause is over.
    Waited,
    /// The request's time is over.
    OutOfTime,
    /// The platform gave a token.
    Fetched(Token),
    /// The platform gave no token.
    FetchFailed(CallError<PlatformError>),
    /// That failure was saved, or could not be.
    FailureNoted(CallError<PlatformError>),
    /// The row holds this new token.
    Saved(Token),
    /// The save of this token failed.
    SaveFailed(Token, E),
}

/// What the request does next.
#[derive(Debug, PartialEq)]
pub enum Step<E> {
    /// Make the platform call with this token.
    Call(Token),
    /// Ask for the lease.
    Claim {
        /// The token to replace, if there is one.
        replaces: Option<Secret>,
        /// Why.
        why: Why,
    },
    /// Pause for at most this long.
    Wait(Duration),
    /// Ask the platform for a token.
    Fetch,
    /// Save this token in place of the old one.
    Save {
        /// The new token.
        token: Token,
        /// What it replaces.
        replaces: Option<Secret>,
    },
    /// Save that the refresh failed, and release the lease.
    Release(CallError<PlatformError>),
    /// End the call with this error.
    Fail(ClientError<E>),
}

/// Why a token must be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It expires soon, and can be used until then.
    Due,
    /// It has expired.
    Expired,
    /// The row has no token.
    Missing,
    /// The platform rejected it.
    Rejected,
}

/// How one call gets its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefreshProtocol {
    /// The token that the row held when it was last read: the one to replace.
    stored: Option<Secret>,
    /// That token, while it can still be used if its refresh fails.
    fallback: Option<Token>,
    /// The token that the platform rejected; a second rejection ends the call.
    rejected: Option<Secret>,
    /// Why the lease is asked for.
    why: Why,
    /// Whether to use a due token without a refresh: a request tries only once to replace it.
    leave_due: bool,
}

impl RefreshProtocol {
    /// Makes the protocol of a call; its first event is [`Event::Row`]. `leave_due` is whether its request has asked for the lease
    /// before.
    pub fn new(leave_due: bool) -> Self {
        Self { stored: None, fallback: None, rejected: None, why: Why::Missing, leave_due }
    }

    /// Returns what to do after `event`.
    pub fn next<E>(&mut self, event: Event<E>) -> Step<E> {
        match event {
            Event::Row { token, now } => self.use_or_replace(token, now),
            Event::Rejected(_, error) if self.rejected.is_some() => Step::Fail(ClientError::Platform(error)),
            Event::Rejected(jwt, _) => {
                self.rejected = Some(jwt);
                self.claim(Why::Rejected)
            }
            Event::Granted => Step::Fetch,
            Event::Fetched(token) => Step::Save { token, replaces: self.stored.clone() },
            // Used at least once, however short its TTL, so that a wrong clock does not cause a loop.
            Event::Saved(token) | Event::SaveFailed(token, _) => {
                self.fallback = None;
                self.stored = Some(token.jwt.clone());
                Step::Call(token)
            }
            // However the refresh ended, the old token is still valid.
            _ if let Some(token) = self.fallback.take() => Step::Call(token),
            Event::Busy(left) => Step::Wait(left),
            Event::Waited => self.claim(self.why),
            Event::FetchFailed(failure) => Step::Release(failure),
            Event::FailureNoted(failure) | Event::Cooldown(failure) => {
                Step::Fail(ClientError::Platform(failure))
            }
            Event::Gone => Step::Fail(ClientError::NumberGone),
            Event::ClaimFailed(error) => Step::Fail(ClientError::Store(error)),
            Event::OutOfTime => Step::Fail(ClientError::OutOfTime),
        }
    }

    fn use_or_replace<E>(&mut self, token: Option<Token>, now: UnixMs) -> Step<E> {
        self.fallback = None;
        self.stored = token.as_ref().map(|token| token.jwt.clone());
        match token {
            None => self.claim(Why::Missing),
            Some(token) if self.rejected.as_ref() == Some(&token.jwt) => self.claim(Why::Rejected),
            Some(token) => match token.age(now) {
                Age::Expired => self.claim(Why::Expired),
                Age::Due if !self.leave_due => {
                    self.fallback = Some(token);
                    self.claim(Why::Due)
                }
                Age::Fresh | Age::Due => Step::Call(token),
            },
        }
    }

    fn claim<E>(&mut self, why: Why) -> Step<E> {
        (self.why, self.leave_due) = (why, true);
        Step::Claim { replaces: self.stored.clone(), why }
    }
}

#[cfg(test)]
pub(crate) mod tests;
