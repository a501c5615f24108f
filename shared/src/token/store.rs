//! Where a number's token is kept, and where a new one comes from.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::Token;
use super::protocol::{Event, FetchFailure};
use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::secret::Secret;
use crate::store::{Number, Store, StoreError};
use crate::wpp::{Platform, PlatformError};

/// A number's credentials and token, as they were in its row.
#[derive(Clone, Debug)]
pub struct TokenState {
    /// The platform's session.
    pub session: String,
    /// Fetches tokens.
    pub api_key: Option<Secret>,
    /// Whether the key is so new that the platform may not take it yet.
    pub key_is_new: bool,
    /// The token, used directly while it is fresh.
    pub token: Option<Token>,
    /// When the row was read, by the database's clock.
    pub now: UnixMs,
}

impl TokenState {
    /// What a row says that was read at `now`; nothing where it has no session.
    pub fn of(number: &Number, now: UnixMs) -> Option<Self> {
        Some(Self {
            session: number.settings.session()?.to_owned(),
            api_key: number.settings.api_key(),
            key_is_new: number.key_is_new(now),
            token: number.settings.token(),
            now,
        })
    }

    pub(crate) fn as_read(&self) -> Event {
        Event::Row { token: self.token.clone(), now: self.now }
    }
}

/// The four calls of a refresh. Each may be repeated; `holder` names the one who makes them.
pub trait TokenStore {
    /// Asks for the lease, to replace this token with another one.
    fn claim(
        &self,
        holder: Uuid,
        replaced: Option<&Secret>,
        lease: Duration,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Answer, StoreError>> + Send;

    /// Asks the platform for a token. `now` is when it is asked.
    fn fetch(
        &self,
        api_key: &Secret,
        now: UnixMs,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Token, PlatformError>> + Send;

    /// Saves a token that was fetched with this key in the place of the one it replaces, and ends the lease.
    fn save(
        &self,
        holder: Uuid,
        api_key: Option<&Secret>,
        replaced: Option<&Secret>,
        token: &Token,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Answer, StoreError>> + Send;

    /// Ends the lease after a failure; nobody is to ask again for `cool`.
    fn release(
        &self,
        holder: Uuid,
        failure: &str,
        cool: Duration,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Answer, StoreError>> + Send;
}

/// The database's answer to a claim, a save or a release.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// The database's clock.
    #[serde(rename = "now_ms")]
    pub now: UnixMs,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// See `wpp_claim_refresh`, `wpp_save_token` and `wpp_fail_refresh` in `migrations/`.
#[derive(Debug, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The lease is granted, the token saved or the failure noted.
    #[serde(alias = "granted", alias = "saved", alias = "noted")]
    Done {
        /// The row now, where a token or a key may be needed of it.
        number: Option<Number>,
    },
    /// The row has moved on: another token, another key, or another holder of the lease.
    Moved {
        /// The row now.
        number: Number,
    },
    /// Somebody else has the lease.
    Busy {
        /// For at most this many milliseconds more.
        wait_ms: u64,
    },
    /// The last refresh failed moments ago.
    Cooling {
        /// With this word.
        failure: String,
    },
    /// The organisation has no such number.
    Gone,
}

/// A number's row, with the platform that its tokens are for: what the functions use.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// The database.
    pub store: Store,
    /// The platform.
    pub platform: Platform,
    /// Whose number it is.
    pub organization_id: Uuid,
    /// The number's row.
    pub integration_id: Uuid,
}

impl TokenStore for TokenRow {
    async fn claim(
        &self,
        holder: Uuid,
        replaced: Option<&Secret>,
        lease: Duration,
        deadline: Deadline,
    ) -> Result<Answer, StoreError> {
        let params = json!({
            "p_organization_id": self.organization_id, "p_integration_id": self.integration_id,
            "p_holder": holder, "p_replaced": replaced, "p_lease_ms": ms(lease),
        });
        self.store.rpc("wpp_claim_refresh", &params, deadline).await
    }

    async fn fetch(&self, api_key: &Secret, now: UnixMs, deadline: Deadline) -> Result<Token, PlatformError> {
        self.platform.token(api_key, now, deadline).await
    }

    async fn save(
        &self,
        holder: Uuid,
        api_key: Option<&Secret>,
        replaced: Option<&Secret>,
        token: &Token,
        deadline: Deadline,
    ) -> Result<Answer, StoreError> {
        let params = json!({
            "p_organization_id": self.organization_id, "p_integration_id": self.integration_id,
            "p_holder": holder, "p_api_key": api_key, "p_replaced": replaced,
            "p_token": token.jwt, "p_expires_at_ms": token.expires_at.0,
        });
        self.store.rpc("wpp_save_token", &params, deadline).await
    }

    async fn release(
        &self,
        holder: Uuid,
        failure: &str,
        cool: Duration,
        deadline: Deadline,
    ) -> Result<Answer, StoreError> {
        let params = json!({
            "p_organization_id": self.organization_id, "p_integration_id": self.integration_id,
            "p_holder": holder, "p_failure": failure, "p_cool_ms": ms(cool),
        });
        self.store.rpc("wpp_fail_refresh", &params, deadline).await
    }
}

impl FetchFailure {
    /// How the lease notes it, for those who come while it is recent.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::KeyRejected => "api_key_rejected",
            Self::KeyNotActive => "api_key_not_active",
            Self::Platform(_) => "platform",
        }
    }

    pub(crate) fn of_word(word: &str) -> Self {
        match word {
            "api_key_rejected" => Self::KeyRejected,
            "api_key_not_active" => Self::KeyNotActive,
            _ => Self::Platform(PlatformError::Unavailable),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
