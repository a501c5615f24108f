//! The database, through PostgREST: one method for each SQL function of `migrations/`. Those about a token are in [`TokenRow`].
//! Each is safe to repeat, and names the organization (or the verified user) whose rows it may use.

mod errors;
mod records;
pub mod settings;
mod token_row;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use postgrest::Builder;
use reqwest::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::clock::{UnixMs, millis};
use crate::deadline::Deadline;
use crate::secrets::ServiceKey;
use crate::upstream::{CallError, Reply, Upstream};
use crate::wpp::api::Credentials;

pub use errors::{StoreError, StoreResult};
use errors::{is_over_in_a_moment, refusal};
pub use records::*;
pub use token_row::TokenRow;
#[cfg(test)]
pub(crate) use token_row::lease_outcome;

/// The timeout of one attempt; a query by an index takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(8);

/// The schema of the functions of `migrations/`. A project may expose another schema first, and a call that does not name the
/// schema would go there.
const SCHEMA: &str = "public";

/// The pause before the one retry of a call whose token PostgREST considers to be issued in the future: its clock has whole seconds.
const CLOCKS_DIFFER_PAUSE: Duration = Duration::from_secs(1);

/// The PostgREST of one Supabase project, used with the service role. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    url: String,
    headers: HeaderMap,
    /// Whether the service key is a JWT, so that PostgREST can refuse it as a token.
    key_is_jwt: bool,
    upstream: Upstream,
}

impl Store {
    /// Makes a store for the project at `supabase_url`.
    pub fn new(supabase_url: &str, key: &ServiceKey, upstream: Upstream) -> Self {
        let bearer = key.bearer().map(|bearer| format!("Bearer {}", bearer.expose()));
        let headers = [("apikey", Some(key.secret().expose())), ("authorization", bearer.as_deref())];
        let headers = headers.into_iter().filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(value?).ok()?))
        });
        Self {
            key_is_jwt: key.bearer().is_some(),
            url: format!("{}/rest/v1/rpc/", supabase_url.trim_end_matches('/')),
            headers: headers.collect(),
            upstream,
        }
    }

    /// Returns the number that the request names, with the database's time. A failure never means that there is no number.
    pub async fn find(
        &self,
        user_id: Uuid,
        selector: &NumberSelector,
        deadline: Deadline,
    ) -> StoreResult<Found> {
        let mut params = json!(selector);
        params["user_id"] = json!(user_id);
        let found: Found = self.rpc("wpp_find_number", params, deadline).await?;
        match &found.number {
            Some(number) if !number.is_readable => {
                Err(CallError { call: "wpp_find_number", why: StoreError::SettingsUnreadable })
            }
            _ => Ok(found),
        }
    }

    /// Saves the state of a session at `at`, unless a newer one is saved. Without `may_insert`, a session without a
    /// snapshot gets none. Returns the snapshot afterwards, if the session has one.
    #[allow(clippy::too_many_arguments, reason = "each is a column of the snapshot")]
    pub async fn save_snapshot(
        &self,
        organization_id: Uuid,
        session: &str,
        state: State,
        qr: Option<&str>,
        may_insert: bool,
        at: UnixMs,
        deadline: Deadline,
    ) -> StoreResult<Option<Snapshot>> {
        let params = json!({
            "organization_id": organization_id, "session": session, "status": state.stored(), "qr": qr,
            "may_insert": may_insert, "at_ms": at,
        });
        self.rpc("wpp_save_snapshot", params, deadline).await
    }

    /// Asks for the right to register a number's webhook again. The database grants it once per `every`.
    pub(crate) async fn claim_webhook(
        &self,
        number: &Number,
        every: Duration,
        deadline: Deadline,
    ) -> StoreResult<bool> {
        let params = json!({
            "organization_id": number.organization_id, "integration_id": number.integration_id,
            "every_ms": millis(every),
        });
        self.rpc("wpp_claim_webhook", params, deadline).await
    }

    /// Notes that the webhook of a number's session is registered at `url`, or that it is not.
    pub(crate) async fn save_webhook(
        &self,
        number: &Number,
        url: Option<&str>,
        deadline: Deadline,
    ) -> StoreResult<()> {
        let params = json!({
            "organization_id": number.organization_id, "integration_id": number.integration_id,
            "session": number.settings.session, "url": url,
        });
        self.call("wpp_save_webhook", params, deadline).await.map(drop)
    }

    /// Begins, resumes or joins a creation.
    pub(crate) async fn begin_creation(&self, attempt: &Attempt, deadline: Deadline) -> StoreResult<Begun> {
        self.rpc("wpp_begin_creation", json!(attempt), deadline).await
    }

    /// Saves the platform's credentials in the number's row.
    pub(crate) async fn save_credentials(
        &self,
        lease: &CreationLease,
        credentials: &Credentials,
        deadline: Deadline,
    ) -> StoreResult<SaveOutcome> {
        let mut params = json!(lease);
        params["api_key"] = json!(credentials.api_key);
        params["session"] = json!(credentials.session);
        self.rpc("wpp_save_credentials", params, deadline).await
    }

    /// Gives a creation another platform id.
    pub(crate) async fn assign_platform_id(
        &self,
        lease: &CreationLease,
        deadline: Deadline,
    ) -> StoreResult<AssignOutcome> {
        self.rpc("wpp_assign_platform_id", json!(lease), deadline).await
    }

    /// Lets the next caller take over a creation at once.
    pub(crate) async fn release_creation(
        &self,
        lease: &CreationLease,
        deadline: Deadline,
    ) -> StoreResult<()> {
        self.call("wpp_release_creation", json!(lease), deadline).await.map(drop)
    }

    /// Calls a function and reads its result. Each of `params` is the parameter of the same name with the prefix `p_`.
    pub(crate) async fn rpc<T: DeserializeOwned>(
        &self,
        function: &'static str,
        params: Value,
        deadline: Deadline,
    ) -> StoreResult<T> {
        #[derive(Deserialize)]
        struct Refusal {
            outcome: String,
        }
        let reply = self.call(function, params, deadline).await?;
        serde_json::from_slice(&reply.body).map_err(|_| {
            let refusal = serde_json::from_slice(&reply.body);
            let why = match refusal {
                Ok(Refusal { outcome }) if outcome == "unreadable" => StoreError::SettingsUnreadable,
                _ => StoreError::BadAnswer,
            };
            CallError { call: function, why }
        })
    }

    async fn call(&self, function: &'static str, params: Value, deadline: Deadline) -> StoreResult<Reply> {
        let ask = async || {
            let request = self.request(function, &params).ok_or(StoreError::BadAnswer)?;
            self.upstream.send(function, request, TIMEOUT, deadline).await.map_err(StoreError::from)
        };
        let answer = async {
            let mut reply = ask().await?;
            if !reply.status.is_success() && is_over_in_a_moment(&reply) {
                // If a call has less time left, such as the save of a due token, it pauses for less.
                let pause =
                    Backoff::new(CLOCKS_DIFFER_PAUSE, CLOCKS_DIFFER_PAUSE).pause(deadline.remaining() / 2);
                if deadline.sleep(pause).await {
                    reply = ask().await?;
                }
            }
            if reply.status.is_success() { Ok(reply) } else { Err(refusal(&reply, self.key_is_jwt)) }
        };
        answer.await.map_err(|why| CallError { call: function, why })
    }

    /// Builds the query with `postgrest`; [`Upstream`] sends it, under its limits. Null parameters are left out, because the SQL
    /// functions have defaults for them.
    fn request(&self, function: &str, params: &Value) -> Option<Request> {
        let given = params.as_object()?.iter().filter(|(_, value)| !value.is_null());
        let named: Value = given.map(|(name, value)| (format!("p_{name}"), value.clone())).collect();
        let (url, client) = (format!("{}{function}", self.url), self.upstream.http().clone());
        Builder::new(url, Some(SCHEMA.to_owned()), self.headers.clone(), client)
            .rpc(named.to_string())
            .build()
            .build()
            .ok()
    }
}

#[cfg(test)]
mod tests;
