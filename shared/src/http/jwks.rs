//! The project's public keys, fetched when needed and kept.
//!
//! A known key costs no network call while the set is young. Whatever arrives, the set is fetched again at most once in
//! [`KEY_REFETCH_INTERVAL`], so that made-up key ids cost the project little. An old set serves for as long as no new one can
//! be had.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Url;
use serde_json::Value;

use crate::clock::UnixMs;
use crate::deadline::Deadline;
use crate::error::{AuthError, KEY_REFETCH_INTERVAL};
use crate::secret::Secret;
use crate::upstream::{Content, Upstream};

mod key;
#[cfg(test)]
mod tests;

use key::Key;

/// The age at which a set is due for renewal: as long as Supabase's edge keeps it.
const FRESH_FOR: Duration = Duration::from_secs(600);

/// The shortest time between two fetches while there is no set at all. It is short, since no user with a key of the set is admitted until
/// then.
const FIRST_FETCH_INTERVAL: Duration = Duration::from_secs(1);

/// The time for one fetch, repetitions included: one on a connection that died in silence, and one on a new one.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest set read, in bytes; a real one has a few keys of some hundred bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The keys of one project.
pub(crate) struct Jwks {
    url: String,
    apikey: Secret,
    upstream: Upstream,
    /// Held for moments only, never over a fetch: a known key never waits for someone's unknown one.
    cache: Mutex<KeyCache>,
    /// Held over a fetch.
    fetching: tokio::sync::Mutex<()>,
}

impl Jwks {
    /// Makes the set of the project at `supabase_url`, whose gateway may require `apikey` before it shows the keys.
    pub(crate) fn new(supabase_url: &Url, apikey: Secret, upstream: Upstream) -> Self {
        let project = supabase_url.as_str().trim_end_matches('/');
        let url = format!("{project}/auth/v1/.well-known/jwks.json");
        Self { url, apikey, upstream, cache: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// Returns the key that verifies a token with this header.
    ///
    /// Without a `kid`, the set must have exactly one key for `algorithm`.
    pub(crate) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: UnixMs,
    ) -> Result<Arc<DecodingKey>, AuthError> {
        let (need, found, fetches) = {
            let cache = self.cache();
            (cache.need(kid, now), cache.find(kid, algorithm, now), cache.fetches)
        };
        let _fetching = match need {
            Need::Nothing => return found,
            Need::Renewal => match self.fetching.try_lock() {
                Ok(guard) => guard,
                Err(_) => return found,
            },
            Need::Keys => self.fetching.lock().await,
        };
        // A request that has waited for a fetch shares its outcome.
        let due = {
            let mut cache = self.cache();
            cache.fetches == fetches && cache.begin(kid, now)
        };
        if due {
            let fetched = self.fetch().await;
            self.cache().finish(fetched, now);
        }
        self.cache().find(kid, algorithm, now)
    }

    fn cache(&self) -> MutexGuard<'_, KeyCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the keys and returns the readable ones, or `None` if there is no set. An error holds no text of the answer.
    async fn fetch(&self) -> Result<Option<Vec<Key>>, String> {
        let request = self.upstream.http().get(&self.url).header("apikey", self.apikey.expose());
        let request = request.build().map_err(|_| "no request can be made")?;
        let sent = self.upstream.send("jwks", request, FETCH_TIMEOUT, Deadline::within(FETCH_TIMEOUT)).await;
        let reply = sent.map_err(|failure| failure.to_string())?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if reply.status != StatusCode::OK {
            return Err(format!("status {}", reply.status.as_u16()));
        }
        if reply.body.len() > BODY_LIMIT {
            return Err(format!("more than {BODY_LIMIT} bytes"));
        }
        let Content::Object(mut set) = reply.content() else { return Err("not a set of keys".to_owned()) };
        let Some(Value::Array(keys)) = set.remove("keys") else { return Err("not a set of keys".to_owned()) };
        // A key that cannot be read must not cost us the others.
        Ok(Some(keys.into_iter().filter_map(Key::from_jwk).collect()))
    }
}

/// What is known of the keys at one moment.
#[derive(Default)]
struct KeyCache {
    keys: Vec<Key>,
    /// When they were fetched; nothing while there was no set yet.
    fetched_at: Option<UnixMs>,
    /// When a refetch was last begun or, while there is no set, a fetch failed.
    refetched_at: Option<UnixMs>,
    /// Fetches ended, well or badly.
    fetches: u64,
}

/// What a token asks of the network.
#[derive(PartialEq)]
enum Need {
    Nothing,
    /// What is held will do, though it is time for a new set.
    Renewal,
    /// Nothing held will do.
    Keys,
}

impl KeyCache {
    fn need(&self, kid: Option<&str>, now: UnixMs) -> Need {
        let Some(fetched_at) = self.fetched_at else { return Need::Keys };
        if kid.is_some_and(|kid| !self.has(kid)) {
            Need::Keys
        } else if fetched_at.apart(now) >= FRESH_FOR {
            Need::Renewal
        } else {
            Need::Nothing
        }
    }

    /// Whether a fetch is to be made now; if so, it counts as begun.
    fn begin(&mut self, kid: Option<&str>, now: UnixMs) -> bool {
        let has_set = self.fetched_at.is_some();
        let interval = if has_set { KEY_REFETCH_INTERVAL } else { FIRST_FETCH_INTERVAL };
        let may_fetch = self.refetched_at.is_none_or(|begun| begun.apart(now) >= interval);
        let due = may_fetch && self.need(kid, now) != Need::Nothing;
        if due && has_set {
            self.refetched_at = Some(now);
        }
        due
    }

    /// Takes in the outcome of a fetch. A failure leaves the keys as they are. If there are keys, so do a 404 and an empty set: a gateway
    /// may have sent them. Without keys, a 404 means a project without keys of this kind.
    fn finish(&mut self, fetched: Result<Option<Vec<Key>>, String>, now: UnixMs) {
        self.fetches += 1;
        let serving_old_keys = self.fetched_at.is_some();
        if !serving_old_keys {
            self.refetched_at = fetched.is_err().then_some(now);
        }
        let error = match fetched {
            Ok(Some(keys)) if !keys.is_empty() || self.keys.is_empty() => {
                (self.keys, self.fetched_at) = (keys, Some(now));
                return;
            }
            Ok(None) if self.keys.is_empty() => {
                self.fetched_at = Some(now);
                return;
            }
            Ok(Some(_)) => "no key that can be read".to_owned(),
            Ok(None) => "status 404".to_owned(),
            Err(error) => error,
        };
        tracing::warn!(%error, serving_old_keys, "the project's keys could not be fetched");
    }

    fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: UnixMs,
    ) -> Result<Arc<DecodingKey>, AuthError> {
        let fetched_at = self.fetched_at.ok_or(AuthError::KeysUnavailable)?;
        let fits = |key: &&Key| key.algorithm == algorithm;
        let key = match kid {
            Some(kid) if self.has(kid) => self.named(kid).find(fits).ok_or(AuthError::WrongAlgorithm)?,
            // A set that is older than this has not been renewed because it could not be: the key may be a new one.
            Some(_) if fetched_at.apart(now) >= KEY_REFETCH_INTERVAL => {
                return Err(AuthError::KeysUnavailable);
            }
            Some(_) => return Err(AuthError::UnknownKey),
            None => {
                let mut fitting = self.keys.iter().filter(fits);
                let only = fitting.next().filter(|_| fitting.next().is_none());
                only.ok_or(AuthError::UnknownKey)?
            }
        };
        Ok(Arc::clone(&key.decoding))
    }

    fn named(&self, kid: &str) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| key.kid.as_deref() == Some(kid))
    }

    fn has(&self, kid: &str) -> bool {
        self.named(kid).next().is_some()
    }
}
