//! A number in memory that answers like the SQL functions: the walk's model of its row, with a clock. Its platform issues the
//! tokens `t1`, `t2`, ...

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::store::{StoreError, StoreResult};
use crate::upstream::CallError;
use crate::wpp::protocol::tests::model::{Claimed, Row};
use crate::wpp::refresh::{failure_code, failure_of};
use crate::wpp::{LeaseOutcome, Token, TokenStore};

const HOUR: Duration = Duration::from_secs(3600);

/// The limits of `wpp_claim_refresh`.
const NEW_TOKEN_AGE: Duration = Duration::from_secs(60);
const REJECTION_COOLDOWN: Duration = Duration::from_secs(30);

/// A call of a [`TokenStore`].
#[derive(Clone, Copy)]
pub(crate) enum StoreCall<'a> {
    Claim { replaces: Option<&'a Secret>, is_rejected: bool, lease: Duration },
    Save { token: &'a Token, api_key: Option<&'a Secret>, replaces: Option<&'a Secret> },
    Release { failure: &'static str, cooldown: Duration },
}

/// A store for tests: one method for all calls.
pub(crate) trait TestStore: Sync {
    fn ask(
        &self,
        holder: Uuid,
        call: StoreCall<'_>,
        deadline: Deadline,
    ) -> impl Future<Output = StoreResult<LeaseOutcome>> + Send;
}

impl<S: TestStore> TokenStore for S {
    type Error = CallError<StoreError>;

    async fn claim(
        &self,
        holder: Uuid,
        replaces: Option<&Secret>,
        is_rejected: bool,
        lease: Duration,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        self.ask(holder, StoreCall::Claim { replaces, is_rejected, lease }, deadline).await
    }

    async fn save(
        &self,
        holder: Uuid,
        token: &Token,
        api_key: Option<&Secret>,
        replaces: Option<&Secret>,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        self.ask(holder, StoreCall::Save { token, api_key, replaces }, deadline).await
    }

    async fn release(
        &self,
        holder: Uuid,
        failure: &'static str,
        cooldown: Duration,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        self.ask(holder, StoreCall::Release { failure, cooldown }, deadline).await
    }
}

pub(crate) struct StoredNumber {
    pub row: Row<Uuid, u32>,
    pub session: &'static str,
    pub key_is_new: bool,
    /// When each token ends.
    pub ends: BTreeMap<u32, UnixMs>,
    /// When the lease and the pause after a failure end.
    pub held_until: UnixMs,
    pub cool_until: UnixMs,
    /// When the last token was saved.
    pub saved_at: UnixMs,
}

impl StoredNumber {
    /// Makes a number with the token `t0`.
    pub fn with_token(end: UnixMs) -> Self {
        Self {
            row: Row { key: 0, token: Some(0), lease: None },
            session: "first",
            key_is_new: false,
            ends: BTreeMap::from([(0, end)]),
            held_until: UnixMs(0),
            cool_until: UnixMs(0),
            saved_at: UnixMs(0),
        }
    }

    /// Ends what has expired by now.
    pub fn at(&mut self, now: UnixMs) -> &mut Self {
        if let Some(lease) = &mut self.row.lease {
            lease.held &= self.held_until > now;
            lease.cooldown = lease.cooldown.filter(|_| self.cool_until > now);
            lease.saved = lease.saved.filter(|_| self.saved_at.plus(NEW_TOKEN_AGE) > now);
        }
        self
    }

    /// Issues a new token, for a request that was sent at `asked_at`.
    pub fn issue(&mut self, asked_at: UnixMs) -> Token {
        let number = u32::try_from(self.ends.len()).unwrap();
        let token = Token::issued(Secret::new(format!("t{number}")), None, asked_at);
        self.ends.insert(number, token.expires_at);
        token
    }

    /// Returns the number as `number` in `migrations/` shows it.
    pub fn number(&self, now: UnixMs) -> Value {
        let saved_at = if self.key_is_new { now } else { now.minus(HOUR) };
        let mut settings =
            json!({"wppApiKey": format!("key{}", self.row.key), "wppAccountNumber": self.session});
        if let Some(token) = self.row.token {
            settings["wppJwtToken"] = json!(format!("t{token}"));
            settings["wppJwtExpiresAt"] = json!(self.ends[&token].0);
        }
        json!({
            "integration_id": Uuid::nil(), "organization_id": Uuid::nil(), "settings": settings,
            "credentials_saved_at_ms": saved_at.0, "first_connected_at_ms": null, "newly_connected": false,
            "is_readable": true, "ignored": [], "snapshot": null,
        })
    }

    /// Answers like the SQL functions.
    pub fn answer(&mut self, holder: Uuid, call: StoreCall<'_>, now: UnixMs) -> Value {
        let row = &mut self.at(now).row;
        let outcome = match call {
            StoreCall::Claim { replaces, is_rejected, lease } => {
                let had_saved = row.lease.as_ref().is_some_and(|lease| lease.saved.is_some());
                match row.claim(holder, replaces.map(number_of), is_rejected) {
                    Claimed::Granted => {
                        self.held_until = now.plus(lease);
                        "granted"
                    }
                    Claimed::Changed => "changed",
                    Claimed::Busy => {
                        let wait_ms = now.until(self.held_until).as_millis();
                        return json!({"now_ms": now.0, "outcome": "busy", "wait_ms": wait_ms});
                    }
                    Claimed::Cooldown(failure) => {
                        if had_saved && failure == "token_rejected" {
                            self.cool_until = now.plus(REJECTION_COOLDOWN);
                        }
                        return json!({"now_ms": now.0, "outcome": "cooldown", "failure": failure});
                    }
                }
            }
            StoreCall::Save { token, api_key, replaces } => {
                let key = api_key.unwrap().expose()[3..].parse().unwrap();
                let saved = row.save(holder, key, replaces.map(number_of), number_of(&token.jwt));
                self.saved_at = now;
                if saved { "saved" } else { "changed" }
            }
            StoreCall::Release { failure, cooldown } => {
                let word = failure_code(failure_of(failure));
                let changed = row.fail(holder, Some(word).filter(|_| !cooldown.is_zero()));
                self.cool_until = now.plus(cooldown);
                if changed { "changed" } else { return json!({"now_ms": now.0, "outcome": "saved"}) }
            }
        };
        json!({"now_ms": now.0, "outcome": outcome, "number": self.number(now)})
    }

    /// Does what `force_recreate` does.
    pub fn recreate(&mut self) {
        self.row.recreate();
        self.session = "second";
    }
}

/// Returns the number of a token of the platform in memory.
pub(crate) fn number_of(jwt: &Secret) -> u32 {
    jwt.expose()[1..].parse().unwrap()
}
