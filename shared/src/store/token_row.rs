//! Keeps a number's token in its row. The three SQL functions of the lease have one method each; [`LeaseOutcome`] explains what they
//! answer.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Number, Store, StoreError, StoreResult};
use crate::clock::{UnixMs, millis};
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::upstream::CallError;
use crate::wpp::{LeaseOutcome, Token, TokenStore, WppMsgClientOptions};

/// Keeps a number's token in its row.
#[derive(Clone)]
pub struct TokenRow {
    /// The database.
    pub store: Store,
    /// The organization that has the number.
    pub organization_id: Uuid,
    /// The number's row.
    pub integration_id: Uuid,
}

/// The answer of `wpp_claim_refresh`, `wpp_save_token` and `wpp_release_refresh`.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "now_ms")]
    now: UnixMs,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Outcome {
    #[serde(alias = "granted", alias = "saved")]
    Done {
        number: Option<Number>,
    },
    Changed {
        number: Number,
    },
    Busy {
        wait_ms: u64,
    },
    Cooldown {
        failure: String,
    },
    Gone,
}

impl Number {
    /// Returns what a platform client starts from, for a row that was read at `now`; `None` if it has no session.
    pub fn client_options(&self, now: UnixMs) -> Option<WppMsgClientOptions> {
        Some(WppMsgClientOptions {
            session: self.settings.session.clone()?,
            api_key: self.settings.api_key.clone(),
            api_key_is_new: self.key_is_new(now),
            jwt_token: self.settings.jwt_token.clone(),
            jwt_expires_at: self.settings.jwt_expires_at,
            read_at: now,
        })
    }
}

impl TokenRow {
    async fn call(
        &self,
        function: &'static str,
        holder: Uuid,
        mut params: Value,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        params["organization_id"] = json!(self.organization_id);
        params["integration_id"] = json!(self.integration_id);
        params["holder"] = json!(holder);
        Ok(outcome(self.store.rpc(function, params, deadline).await?))
    }
}

fn outcome(Answer { now, outcome }: Answer) -> LeaseOutcome {
    match outcome {
        Outcome::Done { number: None } => LeaseOutcome::Done(None),
        // A row without a session is treated like a deleted one.
        Outcome::Done { number: Some(number) } => {
            number.client_options(now).map_or(LeaseOutcome::Gone, |row| LeaseOutcome::Done(Some(row)))
        }
        Outcome::Changed { number } => {
            number.client_options(now).map_or(LeaseOutcome::Gone, LeaseOutcome::Changed)
        }
        Outcome::Busy { wait_ms } => LeaseOutcome::Busy(Duration::from_millis(wait_ms)),
        Outcome::Cooldown { failure } => LeaseOutcome::Cooldown(failure),
        Outcome::Gone => LeaseOutcome::Gone,
    }
}

/// Parses a database answer, for tests that replace the database.
#[cfg(test)]
pub(crate) fn lease_outcome(answer: Value) -> LeaseOutcome {
    outcome(serde_json::from_value(answer).unwrap())
}

impl TokenStore for TokenRow {
    type Error = CallError<StoreError>;

    async fn claim(
        &self,
        holder: Uuid,
        old_token: Option<&Secret>,
        is_rejected: bool,
        lease: Duration,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        let params = json!({"old_token": old_token, "is_rejected": is_rejected, "lease_ms": millis(lease)});
        self.call("wpp_claim_refresh", holder, params, deadline).await
    }

    async fn save(
        &self,
        holder: Uuid,
        token: &Token,
        api_key: Option<&Secret>,
        old_token: Option<&Secret>,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        let params = json!({
            "api_key": api_key, "old_token": old_token, "token": token.jwt, "expires_at_ms": token.expires_at,
        });
        self.call("wpp_save_token", holder, params, deadline).await
    }

    async fn release(
        &self,
        holder: Uuid,
        failure: &'static str,
        cooldown: Duration,
        deadline: Deadline,
    ) -> StoreResult<LeaseOutcome> {
        let params = json!({"failure": failure, "cooldown_ms": millis(cooldown)});
        self.call("wpp_release_refresh", holder, params, deadline).await
    }
}
