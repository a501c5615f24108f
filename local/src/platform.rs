//! A simulator of the WPP Platform: its HTTP API, its rules and its failures.

use std::collections::VecDeque;
use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::fault_injector::FaultInjector;
use crate::server::{Server, behind_firewall};

mod accounts;
mod behavior;
mod control;
mod routes;
mod session;

use accounts::{Accounts, NO_QR};
pub use accounts::{Refusal, session_for};
pub use behavior::{AcceptedTokens, Behavior, FieldValue, QrForm, RepeatedCreate};

/// How many requests are remembered.
const SEEN_LIMIT: usize = 1000;

/// The settings of a platform.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The secret that `create` requires (`WPP_SECRET`).
    pub secret: String,
    /// The JSON file that keeps its accounts for the next start; without a file, they are only in memory.
    pub file: Option<PathBuf>,
    /// Its initial behavior.
    pub behavior: Behavior,
}

impl Default for Settings {
    fn default() -> Self {
        Self { port: 0, secret: "local-wpp-secret".to_owned(), file: None, behavior: Behavior::default() }
    }
}

/// A request that the platform received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The fault injector's name for the endpoint.
    pub endpoint: &'static str,
    /// The path as it was sent, still percent-encoded.
    pub path: String,
    /// The token or the secret; empty without one.
    pub bearer: String,
    /// The body.
    pub body: String,
}

/// A running platform. The fault injector knows its endpoints as `create`, `token`, `status`, `qr`, `start`, `webhook` and `stop`.
/// All other requests are `unknown`.
pub struct Platform {
    /// The server, which can close and refuse connections.
    pub server: Server,
    simulator: Arc<Simulator>,
}

impl Platform {
    /// Starts a platform without clients, or with the clients in its file.
    pub async fn start(settings: Settings) -> crate::Result<Self> {
        let Settings { port, secret, file, behavior } = settings;
        let accounts = match file.as_ref().filter(|file| file.exists()) {
            None => Accounts::new(behavior),
            Some(file) => {
                let kept = serde_json::from_slice::<Accounts>(&fs::read(file)?);
                let mut accounts = kept.map_err(|error| format!("{}: {error}", file.display()))?;
                accounts.behavior = behavior;
                accounts
            }
        };
        let simulator = Arc::new(Simulator {
            faults: FaultInjector::default(),
            secret: Mutex::new(secret),
            file,
            accounts: Mutex::new(accounts),
            seen: Mutex::default(),
        });
        let router = routes::routes().merge(control::routes()).with_state(simulator.clone());
        let router = behind_firewall(router.layer(from_fn_with_state(simulator.clone(), keeping)));
        Ok(Self { server: Server::start(port, router).await?, simulator })
    }

    /// Returns its base URL, without a trailing slash.
    pub fn url(&self) -> String {
        self.server.url()
    }
}

impl Deref for Platform {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}

/// A platform without its server, for tests to inspect and control.
///
/// Its clock is the machine's, until [`Simulator::advance`] moves it forward.
pub struct Simulator {
    /// Counts, faults and holds of the endpoints.
    pub faults: FaultInjector,
    secret: Mutex<String>,
    file: Option<PathBuf>,
    accounts: Mutex<Accounts>,
    seen: Mutex<VecDeque<Seen>>,
}

impl Simulator {
    /// Returns the secret that `create` requires.
    pub fn secret(&self) -> String {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the secret that `create` requires.
    pub fn replace_secret(&self, secret: &str) {
        secret.clone_into(&mut self.secret.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Changes its behavior: `platform.behave(|behavior| behavior.opaque_tokens = true)`.
    pub fn behave(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.accounts().behavior);
    }

    /// Moves its clock forward: tokens expire, QRs rotate.
    pub fn advance(&self, by: Duration) {
        self.accounts().clock_offset_ms += i64::try_from(by.as_millis()).unwrap_or_default();
    }

    /// Refuses every token issued so far, as a restarted platform does.
    pub fn forget_tokens(&self) {
        self.accounts().tokens.clear();
    }

    /// Revokes the API key. Its tokens stay valid.
    pub fn revoke_key(&self, api_key: &str) {
        self.accounts().revoke_key(api_key);
    }

    /// Denies that the session exists, until it is created again.
    pub fn forget_session(&self, session: &str) {
        self.accounts().sessions.entry(session.to_owned()).and_modify(session::Session::forget);
    }

    /// Scans the session's QR with a phone.
    pub fn scan(&self, session: &str) -> Result<(), Refusal> {
        if self.accounts().session(session)?.scan() { Ok(()) } else { Err(NO_QR) }
    }

    /// Puts the session into the state that `status` names, and makes the platform answer with exactly that word. Unknown words
    /// mean that a QR is needed.
    pub fn set_status(&self, session: &str, status: &str) -> Result<(), Refusal> {
        let mut accounts = self.accounts();
        let now_ms = accounts.now_ms();
        accounts.session(session)?.set_status(status, now_ms);
        Ok(())
    }

    /// Milliseconds since 1970 by its clock.
    pub fn now_ms(&self) -> i64 {
        self.accounts().now_ms()
    }

    /// How many platform ids `create` was called with.
    pub fn clients(&self) -> usize {
        self.accounts().sessions_by_platform_id.len()
    }

    /// The successful `create` calls, including repeated ones.
    pub fn create_calls(&self) -> u64 {
        self.accounts().creates
    }

    /// Returns the session of a platform id.
    pub fn session_of(&self, platform_id: &str) -> Option<String> {
        self.accounts().sessions_by_platform_id.get(platform_id).cloned()
    }

    /// Returns the current API key of a platform id.
    pub fn key_of(&self, platform_id: &str) -> Option<String> {
        let session = self.session_of(platform_id)?;
        self.accounts().sessions.get(&session).map(|session| session.key.clone())
    }

    /// Returns the current API key of a session.
    pub fn key_of_session(&self, session: &str) -> String {
        self.accounts().sessions.get(session).map_or_else(String::new, |session| session.key.clone())
    }

    /// Returns the tokens issued for an API key.
    pub fn tokens_issued(&self, api_key: &str) -> u64 {
        self.accounts().keys.get(api_key).map_or(0, |key| key.tokens_issued)
    }

    /// Returns the tokens accepted for a session now, the oldest first.
    pub fn tokens_of(&self, session: &str) -> Vec<String> {
        let accounts = self.accounts();
        let (tokens, now_ms) = (accounts.tokens.iter(), accounts.now_ms());
        let accepted = tokens.filter(|token| token.session == session && token.expires_ms > now_ms);
        accepted.map(|token| token.text.clone()).collect()
    }

    /// Returns the status word that the platform would answer for a session, or `None` if there is no such session.
    pub fn status_of(&self, session: &str) -> Option<String> {
        self.accounts().session(session).ok().map(|session| session.status().to_owned())
    }

    /// Returns the QR that a session shows now.
    pub fn qr_of(&self, session: &str) -> Option<String> {
        self.accounts().qr_of(session)
    }

    /// Returns the session's current webhook.
    pub fn webhook_of(&self, session: &str) -> Option<String> {
        self.accounts().sessions.get(session)?.webhook.clone()
    }

    /// Returns the last requests, the oldest first, including those with a fault.
    pub fn requests(&self) -> Vec<Seen> {
        self.seen().iter().cloned().collect()
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, request: Seen) {
        let mut seen = self.seen();
        if seen.len() == SEEN_LIMIT {
            seen.pop_front();
        }
        seen.push_back(request);
    }

    /// Writes the accounts to the file, so that it is always complete.
    fn keep(&self) -> crate::Result<()> {
        if let Some(file) = &self.file {
            let accounts = self.accounts();
            let new = file.with_extension("new");
            fs::write(&new, serde_json::to_vec_pretty(&*accounts)?)?;
            fs::rename(new, file)?;
        }
        Ok(())
    }
}

/// Answers after the request's changes are saved.
async fn keeping(State(simulator): State<Arc<Simulator>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    match simulator.keep() {
        Ok(()) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;
