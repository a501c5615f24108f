//! The database, through PostgREST: one method per SQL function of `migrations/`, but for those of a token, which
//! [`crate::token::store`] calls. Each is safe to repeat, and each names the organisation (or the verified user) whose rows
//! it may touch.

mod records;
mod refusal;
pub mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use postgrest::Postgrest;
use reqwest::Request;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::config::ServiceKey;
use crate::deadline::Deadline;
use crate::platform::Credentials;
use crate::upstream::{Limits, Reply, Upstream};

pub use records::*;
pub use refusal::StoreError;
use refusal::refusal;

/// PostgREST of one Supabase project, with the right of its service role. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    queries: Postgrest,
    upstream: Upstream,
    timeout: Duration,
}

impl Store {
    /// The project at `supabase_url`; one attempt at a call takes `timeout` at most.
    pub fn new(supabase_url: &str, key: &ServiceKey, upstream: Upstream, timeout: Duration) -> Self {
        let url = format!("{}/rest/v1", supabase_url.trim_end_matches('/'));
        let mut queries = Postgrest::new(url).insert_header("apikey", key.secret().expose());
        if let Some(bearer) = key.bearer() {
            queries = queries.insert_header("authorization", format!("Bearer {}", bearer.expose()));
        }
        Self { queries, upstream, timeout }
    }

    /// The number that the user means, with the database's time.
    ///
    /// # Errors
    /// What failed: never to be taken for "there is none".
    pub async fn find(
        &self,
        user_id: Uuid,
        selector: &NumberSelector,
        deadline: Deadline,
    ) -> Result<Found, StoreError> {
        let params = json!({
            "p_user_id": user_id, "p_session": selector.session, "p_integration_id": selector.integration_id,
        });
        self.rpc("wpp_find_number", &params, deadline).await
    }

    /// Mirrors what was seen of a session at `at` or later, unless somebody has seen it since. Answers the mirror as it
    /// is then; nothing where it has no room for the session.
    ///
    /// # Errors
    /// What failed.
    pub async fn save_snapshot(
        &self,
        organization_id: Uuid,
        session: &str,
        state: MirrorState<'_>,
        at: UnixMs,
        deadline: Deadline,
    ) -> Result<Option<Snapshot>, StoreError> {
        let params = json!({
            "p_organization_id": organization_id, "p_session": session,
            "p_status": state.word(), "p_qr": state.qr(), "p_at_ms": at.0,
        });
        self.rpc("wpp_save_snapshot", &params, deadline).await
    }

    /// Asks for the right to register a number's webhook once more: once in `every` for everybody.
    ///
    /// # Errors
    /// What failed.
    pub async fn claim_webhook(
        &self,
        number: &Number,
        every: Duration,
        deadline: Deadline,
    ) -> Result<bool, StoreError> {
        let params = json!({
            "p_organization_id": number.organization_id, "p_integration_id": number.integration_id,
            "p_every_ms": ms(every),
        });
        self.rpc("wpp_claim_webhook", &params, deadline).await
    }

    /// Notes that a number's webhook is registered at `url`, or is not, with the credentials that the number has here.
    ///
    /// # Errors
    /// What failed; nothing else depends on it.
    pub async fn save_webhook(
        &self,
        number: &Number,
        url: Option<&str>,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        let params = json!({
            "p_organization_id": number.organization_id, "p_integration_id": number.integration_id,
            "p_api_key": number.settings.api_key(), "p_session": number.settings.session(), "p_url": url,
        });
        self.call("wpp_save_webhook", &params, deadline).await.map(drop)
    }

    /// Begins, resumes or joins a creation.
    ///
    /// # Errors
    /// What failed; nothing has been asked of the platform.
    pub async fn begin_creation(&self, attempt: &Attempt, deadline: Deadline) -> Result<Begun, StoreError> {
        let (key, request) = attempt.idempotency.as_ref().map(|(key, request)| (key, request)).unzip();
        let params = json!({
            "p_user_id": attempt.user_id, "p_mode": attempt.mode.word(), "p_holder": attempt.holder,
            "p_lease_ms": ms(attempt.lease), "p_waited_for": attempt.waited_for, "p_rejected": attempt.rejected,
            "p_session": attempt.selector.session, "p_integration_id": attempt.selector.integration_id,
            "p_idempotency_key": key, "p_request": request,
        });
        self.rpc("wpp_begin_creation", &params, deadline).await
    }

    /// Puts the platform's credentials into the row that waits for them.
    ///
    /// # Errors
    /// What failed; the platform gives the same credentials again.
    pub async fn save_credentials(
        &self,
        organization_id: Uuid,
        creation: Uuid,
        holder: Uuid,
        credentials: &Credentials,
        deadline: Deadline,
    ) -> Result<Saved, StoreError> {
        let params = json!({
            "p_organization_id": organization_id, "p_creation": creation, "p_holder": holder,
            "p_api_key": credentials.api_key, "p_session": credentials.session,
        });
        self.rpc("wpp_save_credentials", &params, deadline).await
    }

    /// Gives a creation another id at the platform; nothing where the attempt no longer holds it.
    ///
    /// # Errors
    /// What failed.
    pub async fn assign_platform_id(
        &self,
        organization_id: Uuid,
        creation: Uuid,
        holder: Uuid,
        deadline: Deadline,
    ) -> Result<Option<String>, StoreError> {
        let params =
            json!({"p_organization_id": organization_id, "p_creation": creation, "p_holder": holder});
        self.rpc("wpp_assign_platform_id", &params, deadline).await
    }

    /// Lets the next caller take a creation over at once.
    ///
    /// # Errors
    /// What failed; the lease then ends by itself.
    pub async fn release_creation(
        &self,
        organization_id: Uuid,
        creation: Uuid,
        holder: Uuid,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        let params =
            json!({"p_organization_id": organization_id, "p_creation": creation, "p_holder": holder});
        self.call("wpp_release_creation", &params, deadline).await.map(drop)
    }

    pub(crate) async fn rpc<T: DeserializeOwned>(
        &self,
        function: &str,
        params: &Value,
        deadline: Deadline,
    ) -> Result<T, StoreError> {
        let reply = self.call(function, params, deadline).await?;
        serde_json::from_slice(&reply.body).map_err(|_| StoreError::BadAnswer)
    }

    /// What is null is left out: the SQL functions have a default for it.
    async fn call(&self, function: &str, params: &Value, deadline: Deadline) -> Result<Reply, StoreError> {
        let given = params.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let body =
            serde_json::to_string(&given.collect::<BTreeMap<_, _>>()).map_err(|_| StoreError::BadAnswer)?;
        let request = self.request(function, body).ok_or(StoreError::BadAnswer)?;
        let reply = self.upstream.send(request, Limits { timeout: self.timeout, deadline }).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(refusal(&reply)) }
    }

    /// The query that `postgrest` has built, as a request of the one client: that crate's own client is years behind.
    fn request(&self, function: &str, body: String) -> Option<Request> {
        let built = self.queries.rpc(function, body).build().build().ok()?;
        let mut request = self.upstream.http().post(built.url().as_str());
        for (name, value) in built.headers() {
            request = request.header(name.as_str(), value.as_bytes());
        }
        request.body(built.body()?.as_bytes()?.to_vec()).build().ok()
    }
}

impl fmt::Debug for Store {
    /// Without the queries: their headers hold the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
