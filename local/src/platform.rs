//! A simulator of the WPP Platform: its HTTP API with its rules and its moods, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Result;
use crate::fault_injector::FaultInjector;
use crate::server::Server;

mod accounts;
mod behavior;
mod control;
mod key_factory;
mod routes;
mod session;

use accounts::{Accounts, Refused};
pub use behavior::{
    AcceptedTokens, Behavior, FieldValue, LetterCase, QrField, QrForm, RepeatedCreate, StartAnswer,
};
use key_factory::KeyFactory;

/// How many requests are remembered.
const SEEN_LIMIT: usize = 1000;

/// What a platform starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// What a create must bear (`WPP_SECRET`).
    pub secret: String,
    /// Derives keys, sessions and signatures from the secret and the organisation's id, so that those of before a
    /// restart are good after it. A session of before a restart counts as linked.
    pub deterministic: bool,
    /// How it behaves at first.
    pub behavior: Behavior,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            secret: "local-wpp-secret".to_owned(),
            deterministic: false,
            behavior: Behavior::default(),
        }
    }
}

impl Settings {
    /// The session that a deterministic platform gives an organisation id; `None` when it is left to chance.
    pub fn session_of(&self, organization_id: &str) -> Option<String> {
        self.deterministic.then(|| KeyFactory::from_secret(&self.secret).session(organization_id))
    }
}

/// A request that the platform has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The gate's name for the endpoint.
    pub endpoint: &'static str,
    /// The path as it was sent, percent-encoding and all.
    pub path: String,
    /// The token or the secret; empty without one.
    pub bearer: String,
    /// The body.
    pub body: String,
}

/// A running platform. Its endpoints are called `create`, `token`, `status`, `qr`, `start`, `webhook` and `stop` at
/// the fault injector, and a request to no endpoint at all is `unknown` there.
///
/// Its clock is the machine's until [`Platform::advance`] moves it ahead.
pub struct Platform {
    /// Counts, faults and holds of the endpoints.
    pub faults: FaultInjector,
    shared: Arc<Shared>,
    /// What listens: it can close connections, and refuse them.
    pub server: Server,
}

struct Shared {
    faults: FaultInjector,
    secret: String,
    accounts: Mutex<Accounts>,
    seen: Mutex<VecDeque<Seen>>,
}

impl Platform {
    /// Starts a platform that knows nobody yet.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(settings: Settings) -> Result<Self> {
        let key_factory = if settings.deterministic {
            KeyFactory::from_secret(&settings.secret)
        } else {
            KeyFactory::random()
        };
        let accounts = Accounts::new(settings.behavior, key_factory, settings.deterministic);
        let faults = FaultInjector::default();
        let shared = Arc::new(Shared {
            faults: faults.clone(),
            secret: settings.secret,
            accounts: Mutex::new(accounts),
            seen: Mutex::default(),
        });
        let router = routes::routes().merge(control::routes()).with_state(shared.clone());
        let server = Server::start(settings.port, router).await?;
        Ok(Self { faults, shared, server })
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What a create must bear.
    pub fn secret(&self) -> &str {
        &self.shared.secret
    }

    /// Changes its behavior: `platform.behave(|behavior| behavior.opaque_tokens = true)`.
    pub fn behave(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.shared.accounts().behavior);
    }

    /// Moves its clock ahead: tokens expire, QRs rotate.
    pub fn advance(&self, by: Duration) {
        self.shared.accounts().advance(by);
    }

    /// Refuses every token issued so far, as a restarted platform does.
    pub fn forget_tokens(&self) {
        self.shared.accounts().forget_tokens();
    }

    /// Refuses the key for good. Tokens that it was given stay valid.
    pub fn revoke_key(&self, api_key: &str) {
        self.shared.accounts().revoke_key(api_key);
    }

    /// Denies that the session exists, until it is created again.
    pub fn forget_session(&self, session: &str) {
        self.shared.accounts().forget_session(session);
    }

    /// A phone scans the session's QR.
    ///
    /// # Errors
    /// When there is no such session or it shows no QR.
    pub fn scan(&self, session: &str) -> Result<()> {
        self.shared.accounts().scan(session).map_err(sentence)
    }

    /// Puts the session where `status` says and has it say exactly that word; one that the platform does not know
    /// itself stands for a QR that is needed.
    ///
    /// # Errors
    /// When there is no such session.
    pub fn set_status(&self, session: &str, status: &str) -> Result<()> {
        self.shared.accounts().set_status(session, status).map_err(sentence)
    }

    /// Milliseconds since 1970 by its clock.
    pub fn now_ms(&self) -> i64 {
        self.shared.accounts().now_ms()
    }

    /// Organisations that ever created a client.
    pub fn clients(&self) -> usize {
        self.shared.accounts().clients()
    }

    /// Creates that were carried out, repeated ones included.
    pub fn create_calls(&self) -> u64 {
        self.shared.accounts().creates
    }

    /// The session of an organisation id.
    pub fn session_of(&self, organization_id: &str) -> Option<String> {
        self.shared.accounts().session_of(organization_id)
    }

    /// The present key of an organisation id.
    pub fn key_of(&self, organization_id: &str) -> Option<String> {
        self.shared.accounts().key_of(organization_id)
    }

    /// Tokens that a key was given.
    pub fn tokens_issued(&self, api_key: &str) -> u64 {
        self.shared.accounts().tokens_issued(api_key)
    }

    /// The tokens accepted for a session now, the oldest first.
    pub fn tokens_of(&self, session: &str) -> Vec<String> {
        self.shared.accounts().tokens_of(session)
    }

    /// The word for a session's state, as it would be said; `None` for a session that is not there.
    pub fn status_of(&self, session: &str) -> Option<String> {
        self.shared.accounts().status_of(session)
    }

    /// The QR that a session shows now.
    pub fn qr_of(&self, session: &str) -> Option<String> {
        self.shared.accounts().qr_of(session)
    }

    /// The webhook that a session was given last.
    pub fn webhook_of(&self, session: &str) -> Option<String> {
        self.shared.accounts().webhook_of(session)
    }

    /// The last requests, the oldest first, those that met a fault included.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen().iter().cloned().collect()
    }
}

impl Shared {
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
}

fn sentence((_, error): Refused) -> Box<dyn std::error::Error + Send + Sync> {
    error.into()
}

#[cfg(test)]
mod tests;
