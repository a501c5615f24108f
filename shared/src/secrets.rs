//! The function's own secrets: from the environment, or from AWS Secrets Manager. An operator can replace them there while the function
//! runs.

use std::collections::BTreeMap;
use std::iter::zip;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;
use serde_json::Value;

use crate::clock::UnixMs;
use crate::config::{ConfigError, NOT_SET, refuse, trimmed};
use crate::deadline::Deadline;
use crate::request_log;
use crate::secret::Secret;
use crate::upstream::Upstream;

mod manager;
#[cfg(test)]
mod tests;
mod values;

pub use manager::ReadError;
use manager::SecretRef;
pub use values::{SecretValues, ServiceKey};
use values::{checked, is_private};

/// The secret that the platform's `create` requires.
pub const WPP_SECRET: &str = "WPP_SECRET";

/// The service key, which can access every row.
pub const SERVICE_KEY: &str = "SUPABASE_SERVICE_ROLE_KEY";

/// The secret that signs legacy user tokens.
pub const JWT_SECRET: &str = "SUPABASE_JWT_SECRET";

/// The interval between two regular reads of the secrets.
const READ_INTERVAL: Duration = Duration::from_secs(300);

/// The interval after a regular read with a problem, and between two reads after refusals. A stranger can cause such a read with a
/// wrong signature.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The timeout of the first read, which requests wait for: enough for one attempt on a dead connection and one on a new connection.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout of a later read, which one request waits for.
const REREAD_TIMEOUT: Duration = Duration::from_millis(1500);

/// The time between the first refusal of an environment secret and one that confirms it: longer than a gateway's temporary fault.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);

/// Which secrets a function needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededSecrets {
    /// The project's secrets, which every function needs.
    Supabase,
    /// Also the platform's, which `wpp-create` needs.
    SupabaseAndWpp,
}

/// The current secrets, by the names of their variables.
type Values = BTreeMap<&'static str, Secret>;

/// Why a secret in Secrets Manager cannot be used. Names the variable, and never contains a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read now.
    #[error("the secret that {variable} names cannot be read: {why}")]
    Unavailable {
        /// The variable that names it.
        variable: &'static str,
        /// How the call failed.
        why: ReadError,
    },
    /// It was read, but a key in it cannot be used.
    #[error("the secret that {variable} names cannot be used: {problem}")]
    Unusable {
        /// The variable that names it.
        variable: &'static str,
        /// Which key, and what is wrong with it.
        problem: ConfigError,
    },
}

/// The source of the secrets. An environment variable overrides Secrets Manager.
#[derive(Clone, Debug)]
pub struct SecretSource {
    given: Values,
    /// What is read from Secrets Manager; empty if the environment has everything.
    refs: Vec<SecretRef>,
    /// Whether the project is reachable only from this machine or its network. A demo value is then harmless.
    is_private: bool,
}

impl SecretSource {
    /// Reads the variables. Secrets Manager is not asked yet.
    pub fn read(
        source: impl Fn(&str) -> Option<String>,
        needs: NeededSecrets,
        supabase_url: &Url,
    ) -> Result<Self, ConfigError> {
        let get = |name: &str| trimmed(source(name));
        let (mut given, is_private) = (Values::new(), is_private(supabase_url));
        for name in [WPP_SECRET, SERVICE_KEY, JWT_SECRET] {
            if let Some(text) = get(name) {
                given.insert(name, checked(name, text, is_private)?);
            }
        }
        let mut refs = Vec::new();
        for (variable, keys, is_needed) in [
            ("SUPABASE_SECRET_ARN", &[SERVICE_KEY, JWT_SECRET][..], true),
            ("WPP_SECRET_ARN", &[WPP_SECRET], needs == NeededSecrets::SupabaseAndWpp),
        ] {
            let missing = keys.iter().copied().filter(|key| is_needed && !given.contains_key(key));
            let missing: Vec<_> = missing.collect();
            match (missing.first(), get(variable)) {
                (Some(_), Some(arn)) => refs.push(SecretRef::read(variable, missing, arn, get)?),
                (Some(&key), None) if key != JWT_SECRET => return refuse(key, NOT_SET),
                _ => {}
            }
        }
        Ok(Self { given, refs, is_private })
    }

    /// Reads Secrets Manager. If there is a problem with one key, it keeps its old value, and the others get their new values.
    async fn values(
        &self,
        mut values: Values,
        upstream: &Upstream,
        now: UnixMs,
        deadline: Deadline,
    ) -> (Values, Vec<SecretError>) {
        let read = join_all(self.refs.iter().map(|secret| secret.json(upstream, now, deadline))).await;
        let mut problems = Vec::new();
        for (SecretRef { variable, keys, .. }, json) in zip(&self.refs, read) {
            match json {
                Ok(json) => problems.extend(keys.iter().filter_map(|key| {
                    let problem = self.take(key, json.get(*key), &mut values).err()?;
                    Some(SecretError::Unusable { variable, problem })
                })),
                Err(problem) => problems.push(problem),
            }
        }
        (values, problems)
    }

    /// Applies what the secret holds for one key.
    fn take(&self, key: &'static str, json: Option<&Value>, values: &mut Values) -> Result<(), ConfigError> {
        match json.map(|json| json.as_str().map(str::trim)) {
            None if values.contains_key(key) => refuse(key, "is missing, and its old value stays in use"),
            None if key != JWT_SECRET => refuse(key, NOT_SET),
            None => Ok(()),
            Some(None) => refuse(key, "is not a text"),
            // The other two can be replaced but not removed.
            Some(Some("")) if key != JWT_SECRET => refuse(key, "is empty"),
            Some(Some("")) => {
                values.remove(key);
                Ok(())
            }
            Some(Some(text)) => {
                values.insert(key, checked(key, text.to_owned(), self.is_private)?);
                Ok(())
            }
        }
    }
}

/// What was built with the secrets of one read.
pub struct Loaded<T> {
    /// Stays the same while the secrets do.
    pub built: Arc<T>,
    values: Values,
    /// Counts the successful reads.
    reading: u64,
}

/// The secrets of a running function, and what was built with them.
pub struct SecretCell<T> {
    source: SecretSource,
    upstream: Upstream,
    build: Box<dyn Fn(SecretValues) -> T + Send + Sync>,
    /// Locked while the secrets are read.
    schedule: tokio::sync::Mutex<Schedule>,
    /// Locked for moments only.
    state: Mutex<State<T>>,
}

#[derive(Default)]
struct Schedule {
    /// The time of the last regular read, and how long after it the next one is due.
    regular: Option<(UnixMs, Duration)>,
    /// The time of the last read after a refusal. It does not delay a regular read.
    reread_at: Option<UnixMs>,
}

struct State<T> {
    loaded: Option<Arc<Loaded<T>>>,
    /// The failure of the last first read, for the requests that waited for it.
    failure: Option<Arc<SecretError>>,
    /// When a secret was first refused since it was last accepted, and after which read.
    refusals: BTreeMap<&'static str, (UnixMs, u64)>,
}

impl<T> SecretCell<T> {
    /// Makes a cell that reads Secrets Manager through `upstream`, and calls `build` again when the secrets have changed.
    pub fn new(
        source: SecretSource,
        upstream: Upstream,
        build: impl Fn(SecretValues) -> T + Send + Sync + 'static,
    ) -> Self {
        let (schedule, build) = (tokio::sync::Mutex::default(), Box::new(build));
        let state = Mutex::new(State { loaded: None, failure: None, refusals: BTreeMap::new() });
        let cell = Self { source, upstream, build, schedule, state };
        if cell.source.refs.is_empty() {
            cell.load(cell.source.given.clone(), 0);
        }
        cell
    }

    /// Reads the secrets before the first request, which waits for this. After a failure, that request reads them itself, because
    /// the sandbox may have been frozen.
    pub(crate) async fn read_early(&self, now: UnixMs) -> Result<(), SecretError> {
        let mut schedule = self.schedule.lock().await;
        if self.state().loaded.is_none() {
            self.read_regularly(&mut schedule, now, Deadline::within(READ_TIMEOUT)).await?;
        }
        Ok(())
    }

    /// Returns what a request that arrived at `now` uses.
    pub async fn current(&self, now: UnixMs, deadline: Deadline) -> Result<Arc<Loaded<T>>, SecretError> {
        let (loaded, old_failure) = self.outcome();
        if let Some(loaded) = loaded {
            return match self.schedule.try_lock() {
                Ok(mut schedule) if self.is_due(&schedule, now) => {
                    self.read_regularly(&mut schedule, now, deadline.at_most(REREAD_TIMEOUT)).await
                }
                // Even while another request reads them, this one does not wait.
                _ => Ok(loaded),
            };
        }
        let mut schedule = self.schedule.lock().await;
        match self.outcome() {
            (Some(loaded), _) => return Ok(loaded),
            // This request waited for another request's read, and shares its failure.
            (None, Some(failure)) if !old_failure.is_some_and(|old| Arc::ptr_eq(&old, &failure)) => {
                return Err(SecretError::clone(&failure));
            }
            _ => {}
        }
        let read = self.read_regularly(&mut schedule, now, deadline.at_most(READ_TIMEOUT)).await;
        self.state().failure = read.as_ref().err().cloned().map(Arc::new);
        read
    }

    /// After the refusal of `secret` or of a user's token, returns the result of a read that is newer than `loaded`. Reads the
    /// secrets for this, unless a refusal has already caused a read within `RETRY_INTERVAL`.
    pub(crate) async fn reread(
        &self,
        loaded: &Loaded<T>,
        secret: Option<&'static str>,
        now: UnixMs,
        deadline: Deadline,
    ) -> Option<Arc<Loaded<T>>> {
        let given = &self.source.given;
        if self.source.refs.is_empty() || secret.is_some_and(|secret| given.contains_key(secret)) {
            return None;
        }
        let is_later = |later: &Arc<Loaded<T>>| later.reading > loaded.reading;
        let mut schedule = self.schedule.lock().await;
        let later = self.outcome().0.filter(is_later);
        if later.is_some() || schedule.reread_at.is_some_and(|at| at.apart(now) < RETRY_INTERVAL) {
            return later;
        }
        schedule.reread_at = Some(now);
        let (loaded, _) = self.read(now, deadline.at_most(REREAD_TIMEOUT)).await.ok()?;
        Some(loaded).filter(is_later)
    }

    /// Notes that a secret was refused at `refused_at`, for a request that arrived at `now`. Returns whether this is evidence that
    /// a person must replace it. It is, if the secret was read again after its first refusal. An environment secret is never read
    /// again; for it, the request must have arrived `CONFIRM_INTERVAL` later.
    pub(crate) fn is_refusal_confirmed(
        &self,
        secret: &'static str,
        loaded: &Loaded<T>,
        now: UnixMs,
        refused_at: UnixMs,
    ) -> bool {
        let mut state = self.state();
        let (first_at, reading) = *state.refusals.entry(secret).or_insert((refused_at, loaded.reading));
        if self.source.given.contains_key(secret) {
            first_at.until(now) >= CONFIRM_INTERVAL
        } else {
            loaded.reading > reading
        }
    }

    /// Notes that a secret was accepted: an earlier refusal was a temporary fault.
    pub fn accepted(&self, secret: &'static str) {
        self.state().refusals.remove(secret);
    }

    fn is_due(&self, schedule: &Schedule, now: UnixMs) -> bool {
        let is_over = |(at, pause): (UnixMs, Duration)| at.apart(now) >= pause;
        !self.source.refs.is_empty() && schedule.regular.is_none_or(is_over)
    }

    async fn read_regularly(
        &self,
        schedule: &mut Schedule,
        now: UnixMs,
        deadline: Deadline,
    ) -> Result<Arc<Loaded<T>>, SecretError> {
        let (loaded, problems) = self.read(now, deadline).await?;
        schedule.regular = Some((now, if problems.is_empty() { READ_INTERVAL } else { RETRY_INTERVAL }));
        Ok(loaded)
    }

    /// Reads the secrets. The request's log line names the problems. In the first read, a problem is an error.
    async fn read(
        &self,
        now: UnixMs,
        deadline: Deadline,
    ) -> Result<(Arc<Loaded<T>>, Vec<SecretError>), SecretError> {
        let before = self.outcome().0;
        let values = before.as_ref().map_or(&self.source.given, |loaded| &loaded.values).clone();
        let (values, problems) = self.source.values(values, &self.upstream, now, deadline).await;
        if let (None, Some(problem)) = (&before, problems.first()) {
            return Err(problem.clone());
        }
        if !problems.is_empty() {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            request_log::secret_failed(problems.join("; "));
        }
        let is_unread = problems.iter().any(|problem| matches!(problem, SecretError::Unavailable { .. }));
        let reading = before.map_or(0, |loaded| loaded.reading) + u64::from(!is_unread);
        Ok((self.load(values, reading), problems))
    }

    /// Makes these the secrets of the function.
    fn load(&self, values: Values, reading: u64) -> Arc<Loaded<T>> {
        let mut state = self.state();
        let same = state.loaded.take().filter(|loaded| loaded.values == values);
        let built = same.map(|loaded| loaded.built.clone());
        let built = built.unwrap_or_else(|| Arc::new((self.build)(SecretValues::of(&values))));
        let loaded = Arc::new(Loaded { built, values, reading });
        state.loaded = Some(loaded.clone());
        loaded
    }

    fn outcome(&self) -> (Option<Arc<Loaded<T>>>, Option<Arc<SecretError>>) {
        let state = self.state();
        (state.loaded.clone(), state.failure.clone())
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
