//! The protocol by which one request comes by a usable token, as a pure decision: no clock, no network, no database.
//!
//! The caller tells what just happened ([`Event`]) and does what comes back ([`Step`]). The product runs this very
//! machine (see [`crate::client`]), and a test walks every interleaving of it.
//!
//! ```text
//!            ┌─ fresh ──────────────────────────────▶ Call ─▶ served ─▶ End
//!   Row ─────┼─ soon ───▶ Call ─▶ served ─▶ Claim early: refresh, or let it be ─▶ End
//!            └─ unusable, or refused by the platform ─▶ Claim ─┬─ granted ─▶ Fetch ─▶ Save ─▶ Call
//!                                         ▲                    ├─ moved ───▶ Row
//!                                         └──────── Wait ◀─────┴─ busy
//! ```

use std::time::Duration;

use crate::clock::UnixMs;
use crate::secret::Secret;
use crate::token::{Freshness, Spread, Token};

/// The first look for another holder's token comes after this at the latest; the pauses double.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// The longest pause between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(800);

/// Past the end of another holder's lease, so that the next look finds it ended.
const AFTER_LEASE: Duration = Duration::from_millis(10);

/// What just happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The row was read: at first, or by a claim or a release that found another token or another key there.
    Row {
        /// The token in it.
        token: Option<Token>,
        /// When that was.
        now: UnixMs,
    },
    /// The platform took the token.
    Served,
    /// The platform refused the token.
    Refused,
    /// The right to refresh is ours.
    Granted,
    /// It is somebody else's, for at most this long.
    Busy(Duration),
    /// Somebody's refresh has just failed.
    Cooling(FetchFailure),
    /// The number is no longer there.
    Gone,
    /// The database did not answer the claim.
    ClaimFailed,
    /// The pause is over.
    Waited,
    /// The platform gave a token.
    Fetched(Token),
    /// It gave none.
    FetchFailed(FetchFailure),
    /// The failure is noted, or cannot be.
    Released,
    /// The row holds the new token.
    Saved,
    /// The row holds another token, which stands.
    Superseded {
        /// That token.
        token: Option<Token>,
        /// When that was.
        now: UnixMs,
    },
    /// The database did not answer the save.
    SaveFailed,
}

/// What the request does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make the platform call with this token.
    Call(Token),
    /// Ask for the right to replace this token (nothing: there is none).
    Claim {
        /// The token to replace.
        replaced: Option<Secret>,
        /// Whether it still serves, so that this can wait.
        early: bool,
    },
    /// Pause for at most this long, then go on.
    Wait(Duration),
    /// Ask the platform for a token.
    Fetch,
    /// Put this token in the place of the replaced one.
    Save {
        /// The new token.
        token: Token,
        /// What it replaces.
        replaced: Option<Secret>,
    },
    /// Note that the refresh failed, and give the right to it back.
    Release {
        /// Why.
        failure: FetchFailure,
        /// Whether it was given little time, so that it says nothing of one that is given more.
        early: bool,
    },
    /// Nothing more: the call was served, or this is why not.
    End(Result<(), Trouble>),
}

/// Why `/auth/token` gave no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FetchFailure {
    /// The API key is refused for good.
    KeyRejected,
    /// The API key is refused, and so new that it may not be active yet.
    KeyNotActive,
    /// The platform is busy, away, or beside itself.
    Platform,
}

/// Why a request ends without having been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The platform refused a token and the one fetched in its place.
    TokenRejected,
    /// No token was to be had.
    NoToken(FetchFailure),
    /// The number is no longer there.
    Gone,
    /// The database did not answer.
    Database,
}

/// One request's dealings with one number's token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    spread: Spread,
    /// Whether somebody else sees to an early refresh.
    early_taken: bool,
    /// The token of the last call.
    current: Option<Token>,
    /// Whether that token is to be replaced once the call is served.
    soon: bool,
    /// The token that a claim is to replace.
    replaced: Option<Secret>,
    /// Whether the claim, fetch and save under way can be let be.
    early: bool,
    /// The token that the platform refused; a second refusal ends the request.
    refused: Option<Secret>,
    looks: u32,
    failure: Option<FetchFailure>,
    fetched: Option<Token>,
}

impl Life {
    /// For a request about the row with this `spread`. Its first event is [`Event::Row`].
    pub fn new(spread: Spread) -> Self {
        Self {
            spread,
            early_taken: false,
            current: None,
            soon: false,
            replaced: None,
            early: false,
            refused: None,
            looks: 0,
            failure: None,
            fetched: None,
        }
    }

    /// Leaves an early refresh to whoever sees to it already, if `taken`: not even a question is asked then.
    pub fn leave_early(self, taken: bool) -> Self {
        Self { early_taken: taken, ..self }
    }

    /// What to do after `event`.
    pub fn next(&mut self, event: Event) -> Step {
        match event {
            Event::Served if self.soon => self.claim_early(),
            Event::Served => Step::End(Ok(())),
            Event::Refused => self.claim_after_refusal(),
            Event::Granted => Step::Fetch,
            Event::Fetched(token) => {
                self.fetched = Some(token.clone());
                Step::Save { token, replaced: self.replaced.clone() }
            }
            Event::FetchFailed(failure) => {
                self.failure = Some(failure);
                Step::Release { failure, early: self.early }
            }
            // From here on the request has been served if the refresh was early, whatever became of that.
            _ if self.early => Step::End(Ok(())),
            Event::Row { token, now } => self.use_or_replace(token, now),
            Event::Busy(left) => self.wait(left),
            Event::Waited => self.claim(),
            Event::Saved | Event::SaveFailed => self.use_fetched(),
            Event::Superseded { token: Some(token), now } if self.usable(&token, now) => {
                self.use_or_replace(Some(token), now)
            }
            Event::Superseded { .. } => self.use_fetched(),
            Event::Cooling(failure) => Step::End(Err(Trouble::NoToken(failure))),
            Event::Released => {
                Step::End(Err(Trouble::NoToken(self.failure.unwrap_or(FetchFailure::Platform))))
            }
            Event::Gone => Step::End(Err(Trouble::Gone)),
            Event::ClaimFailed => Step::End(Err(Trouble::Database)),
        }
    }

    fn use_or_replace(&mut self, token: Option<Token>, now: UnixMs) -> Step {
        match token {
            Some(token) if self.usable(&token, now) => {
                self.soon = !self.early_taken && token.freshness(now, self.spread) == Freshness::Soon;
                self.call(token)
            }
            token => {
                self.replaced = token.map(|token| token.jwt);
                self.claim()
            }
        }
    }

    fn usable(&self, token: &Token, now: UnixMs) -> bool {
        self.refused.as_ref() != Some(&token.jwt) && token.freshness(now, self.spread) != Freshness::Unusable
    }

    fn call(&mut self, token: Token) -> Step {
        self.current = Some(token.clone());
        Step::Call(token)
    }

    /// A token straight from the platform serves, however short its life.
    fn use_fetched(&mut self) -> Step {
        self.soon = false;
        match self.fetched.take() {
            Some(token) => self.call(token),
            None => Step::End(Err(Trouble::NoToken(FetchFailure::Platform))),
        }
    }

    fn claim(&self) -> Step {
        Step::Claim { replaced: self.replaced.clone(), early: self.early }
    }

    fn claim_early(&mut self) -> Step {
        self.early = true;
        self.soon = false;
        self.replaced = self.current.as_ref().map(|token| token.jwt.clone());
        self.claim()
    }

    fn claim_after_refusal(&mut self) -> Step {
        if self.refused.is_some() {
            return Step::End(Err(Trouble::TokenRejected));
        }
        self.refused = self.current.as_ref().map(|token| token.jwt.clone());
        self.replaced = self.refused.clone();
        self.claim()
    }

    fn wait(&mut self, left: Duration) -> Step {
        let pause = FIRST_LOOK.saturating_mul(1 << self.looks.min(10)).min(LONGEST_LOOK);
        self.looks += 1;
        Step::Wait(pause.min(left + AFTER_LEASE))
    }
}

#[cfg(test)]
mod tests;
