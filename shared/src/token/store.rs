//! Where a number's token is kept, and where a new one comes from.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::Token;
use super::protocol::Event;
use crate::clock::{UnixMs, millis};
use crate::deadline::Deadline;
use crate::platform::{Platform, PlatformError, PlatformResult};
use crate::secret::Secret;
use crate::store::{Number, Store, StoreResult};
use crate::upstream::CallError;

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
            session: number.settings.session.clone()?,
            api_key: number.settings.api_key.clone(),
            key_is_new: number.key_is_new(now),
            token: number.settings.token.clone(),
            now,
        })
    }

    pub(crate) fn as_read(&self) -> Event {
        Event::Row { token: self.token.clone(), now: self.now }
    }
}

/// Where a token is kept and a new one comes from. Every call may be repeated.
pub trait TokenStore {
    /// Asks the platform for a token. `now` is when it is asked.
    fn fetch(
        &self,
        api_key: &Secret,
        now: UnixMs,
        deadline: Deadline,
    ) -> impl Future<Output = PlatformResult<Token>> + Send;

    /// Asks the database, in the name of `holder`.
    fn ask(
        &self,
        holder: Uuid,
        call: StoreCall<'_>,
        deadline: Deadline,
    ) -> impl Future<Output = StoreResult<Answer>> + Send;
}

/// What the database is asked.
#[derive(Clone, Copy, Debug)]
pub enum StoreCall<'a> {
    /// For the lease, to replace this token with another one.
    Claim {
        /// The token; nothing where there is none.
        replaces: Option<&'a Secret>,
        /// Whether the platform has rejected it.
        is_rejected: bool,
        /// How long the lease is to last.
        lease: Duration,
    },
    /// To save a token and end the lease.
    Save {
        /// The token.
        token: &'a Token,
        /// The key that it was fetched with.
        api_key: Option<&'a Secret>,
        /// What it replaces.
        replaces: Option<&'a Secret>,
    },
    /// To end the lease after a failure.
    Release {
        /// A word for it.
        failure: &'a str,
        /// How long nobody is to ask again.
        cool: Duration,
    },
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

/// See `wpp_claim_refresh`, `wpp_save_token` and `wpp_release_refresh` in `migrations/`.
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
#[derive(Clone)]
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
    async fn fetch(&self, api_key: &Secret, now: UnixMs, deadline: Deadline) -> PlatformResult<Token> {
        self.platform.token(api_key, now, deadline).await
    }

    async fn ask(&self, holder: Uuid, call: StoreCall<'_>, deadline: Deadline) -> StoreResult<Answer> {
        let (function, mut params) = match call {
            StoreCall::Claim { replaces, is_rejected, lease } => (
                "wpp_claim_refresh",
                json!({"replaces": replaces, "is_rejected": is_rejected, "lease_ms": millis(lease)}),
            ),
            StoreCall::Save { token, api_key, replaces } => (
                "wpp_save_token",
                json!({
                    "api_key": api_key, "replaces": replaces,
                    "token": token.jwt, "expires_at_ms": token.expires_at,
                }),
            ),
            StoreCall::Release { failure, cool } => {
                ("wpp_release_refresh", json!({"failure": failure, "cooldown_ms": millis(cool)}))
            }
        };
        params["organization_id"] = json!(self.organization_id);
        params["integration_id"] = json!(self.integration_id);
        params["holder"] = json!(holder);
        self.store.rpc(function, params, deadline).await
    }
}

/// How the lease notes a failed fetch, for those who come while it is recent.
pub(crate) fn word_for(failure: CallError<PlatformError>) -> &'static str {
    match failure.why {
        PlatformError::KeyRefused => "api_key_rejected",
        PlatformError::KeyNotActive => "api_key_not_active",
        PlatformError::TokenRejected => "token_rejected",
        _ => "platform",
    }
}

/// What they take the word for.
pub(crate) fn failure_noted_as(word: &str) -> CallError<PlatformError> {
    let why = match word {
        "api_key_rejected" => PlatformError::KeyRefused,
        "api_key_not_active" => PlatformError::KeyNotActive,
        "token_rejected" => PlatformError::TokenRejected,
        _ => PlatformError::Unavailable,
    };
    CallError { call: "auth/token", why }
}
