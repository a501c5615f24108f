//! The database and the platform, each with the delays of the network in both directions.

use std::future::pending;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::from_value;
use tokio::time::sleep;
use uuid::Uuid;

use super::fleet::{Fleet, around};
use crate::clock::UnixMs;
use crate::config::UPSTREAM_TIMEOUT;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::store::{self, StoreError, StoreResult, lease_outcome};
use crate::upstream::{CallError, Failure};
use crate::wpp::protocol::tests::model::Lease;
use crate::wpp::token::tests::stored_number::{StoreCall, StoredNumber, TestStore, number_of};
use crate::wpp::token::{Age, Token};
use crate::wpp::{
    LeaseOutcome, PlatformError, PlatformResult, SessionAuth, TokenSource, WppMsgClientOptions,
};

/// The delay in one direction.
const TO_DATABASE: Duration = Duration::from_millis(4);
const TO_PLATFORM: Duration = Duration::from_millis(30);

/// A number, in the database and at the platform.
pub struct Number {
    pub stored: StoredNumber,
    /// The platform rejects all tokens before this one.
    first_good: u32,
    /// The token in the row when the platform last issued one.
    replaced: Option<u32>,
}

impl Number {
    pub fn with_token(end: UnixMs) -> Self {
        Self { stored: StoredNumber::with_token(end), first_good: 0, replaced: None }
    }

    /// Makes the platform forget all its tokens.
    pub fn forget(&mut self) {
        self.first_good = u32::try_from(self.stored.ends.len()).unwrap();
    }

    fn takes(&self, token: u32, now: UnixMs) -> bool {
        token >= self.first_good && self.stored.ends[&token] > now
    }

    /// Returns what a token's age means. A token that the platform does not accept counts as expired.
    pub fn age(&self, token: u32, now: UnixMs) -> Age {
        let end = self.stored.ends[&token];
        if self.takes(token, now) { Token::stored(Secret::new(""), Some(end)).age(now) } else { Age::Expired }
    }
}

/// A number as a sandbox reaches it.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    pub fleet: &'a Fleet,
    pub number: &'a Mutex<Number>,
}

impl Reach<'_> {
    /// Calls `wpp_find_number`.
    pub async fn find(self, deadline: Deadline) -> StoreResult<WppMsgClientOptions> {
        let read = |number: &mut Number, now| (number.stored.number(now), now);
        let (number, now) = self.database("wpp_find_number", deadline, read).await?;
        Ok(from_value::<store::Number>(number).unwrap().client_options(now).unwrap())
    }

    /// Makes a call that needs a token.
    pub async fn status(self, auth: SessionAuth, deadline: Deadline) -> PlatformResult<()> {
        let check = |number: &mut Number, now| {
            let is_taken = number.takes(number_of(&auth.jwt), now);
            is_taken.then_some(()).ok_or(PlatformError::TokenRejected)
        };
        let checked = self.platform(deadline, check).await;
        checked.flatten().map_err(|why| CallError { call: "status", why })
    }

    async fn platform<T>(
        self,
        deadline: Deadline,
        work: impl FnOnce(&mut Number, UnixMs) -> T,
    ) -> Result<T, PlatformError> {
        let outage = &self.fleet.scenario.platform_outage;
        self.travel(TO_PLATFORM, outage, deadline, work).await.map_err(PlatformError::from)
    }

    async fn database<T>(
        self,
        call: &'static str,
        deadline: Deadline,
        work: impl FnOnce(&mut Number, UnixMs) -> T,
    ) -> StoreResult<T> {
        let outage = &self.fleet.scenario.database_outage;
        let answer = self.travel(TO_DATABASE, outage, deadline, work).await;
        answer.map_err(|failure| CallError { call, why: StoreError::from(failure) })
    }

    /// Delays a request to the upstream, where the work is done at once, and its answer. In an outage, half of the requests are
    /// refused, and the others get no answer.
    async fn travel<T>(
        self,
        way: Duration,
        outage: &Range<Duration>,
        deadline: Deadline,
        work: impl FnOnce(&mut Number, UnixMs) -> T,
    ) -> Result<T, Failure> {
        let travel = async {
            sleep(around(way)).await;
            if outage.contains(&self.fleet.passed()) {
                return if fastrand::bool() { Err(Failure::Connection) } else { pending().await };
            }
            let answer = work(&mut self.number.lock().unwrap(), self.fleet.now());
            sleep(around(way)).await;
            Ok(answer)
        };
        deadline.at_most(UPSTREAM_TIMEOUT).bound(travel).await.unwrap_or(Err(Failure::TimedOut))
    }
}

impl TokenSource for Reach<'_> {
    async fn fetch_token(&self, _: &Secret, asked_at: UnixMs, deadline: Deadline) -> PlatformResult<Token> {
        self.fleet.tally().ask(self.fleet.passed());
        let issue = |number: &mut Number, now| {
            let held = number.stored.row.token;
            let is_fresh = held.is_some_and(|held| number.age(held, now) == Age::Fresh);
            self.fleet.tally().give(is_fresh || number.replaced == held);
            number.replaced = held;
            if self.fleet.scenario.newest_only {
                number.forget();
            }
            number.stored.issue(asked_at)
        };
        self.platform(deadline, issue).await.map_err(|why| CallError { call: "auth/token", why })
    }
}

impl TestStore for Reach<'_> {
    async fn ask(&self, holder: Uuid, call: StoreCall<'_>, deadline: Deadline) -> StoreResult<LeaseOutcome> {
        let answer = |number: &mut Number, now| {
            let row = &mut number.stored.row;
            if !self.fleet.scenario.has_lease {
                row.lease = Some(Lease { holder, held: true, cooldown: None, key: row.key, saved: None });
            }
            number.stored.answer(holder, call, now)
        };
        Ok(lease_outcome(self.database("refresh", deadline, answer).await?))
    }
}
