//! The [`App`] with the function's keys as they are now. Keys that are kept in Secrets Manager may be replaced while the
//! function runs. Then there is another `App`, and requests that are under way keep theirs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::App;
use crate::clock::{self, UnixMs};
use crate::config::{Config, KeptKeys, KeySource, Keys};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::record;
use crate::secrets_manager::{self, SecretError};
use crate::upstream::Upstream;

/// How long keys are used without asking for them again.
const FRESH_FOR: Duration = Duration::from_secs(300);

/// The shortest time from a reading that failed, or that a refusal gave rise to, until keys that are held are read again:
/// anybody can send a token with a wrong signature.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The time for a first reading, repetitions included: one on a connection that died in silence, and one on a new one.
const READ_TIME: Duration = Duration::from_secs(5);

/// The time for another one, while there are keys to go on with.
const REREAD_TIME: Duration = Duration::from_millis(1500);

/// What a sandbox has for as long as it lives.
pub struct Rotation {
    /// The environment's word.
    pub config: Arc<Config>,
    apps: Apps,
}

enum Apps {
    /// The environment has given all keys: this one serves for ever.
    Given(Arc<App>),
    Kept(Box<Reader>),
}

/// Reads the keys that are kept, and holds the app that has them.
struct Reader {
    config: Arc<Config>,
    kept: KeptKeys,
    /// For the apps.
    upstream: Upstream,
    /// For Secrets Manager.
    secrets_manager: Upstream,
    /// Held for moments only, never over a reading.
    state: Mutex<State>,
    /// Held over a reading.
    reading: tokio::sync::Mutex<()>,
}

/// What is known at one moment.
#[derive(Default)]
struct State {
    /// With the keys that were read last.
    held: Option<Held>,
    /// When keys were last asked for in vain, or because of a refusal.
    retried_at: Option<UnixMs>,
    /// Readings begun so far.
    begun: u64,
    /// The last one that failed, by its number.
    failed: Option<(u64, SecretError)>,
}

struct Held {
    app: Arc<App>,
    read_at: UnixMs,
}

impl Rotation {
    /// For a function with this configuration. No input makes it fail.
    pub fn new(config: Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let upstream = Upstream::new(config.upstream_timeout, &config.extra_roots)?;
        let config = Arc::new(config);
        let apps = match &config.keys {
            KeySource::Given(keys) => Apps::Given(Arc::new(App::new(config.clone(), keys.clone(), upstream))),
            KeySource::Kept(kept) => Apps::Kept(Box::new(Reader {
                config: config.clone(),
                kept: kept.clone(),
                secrets_manager: upstream.for_another_host(),
                upstream,
                state: Mutex::default(),
                reading: tokio::sync::Mutex::default(),
            })),
        };
        Ok(Self { config, apps })
    }

    /// [`Rotation::new`], and reads kept keys while the function goes on to its first request.
    pub(crate) fn start(config: Config) -> Result<Arc<Self>, Box<dyn std::error::Error + Send + Sync>> {
        let rotation = Arc::new(Self::new(config)?);
        if matches!(rotation.apps, Apps::Kept(_)) {
            let rotation = rotation.clone();
            tokio::spawn(async move {
                if let Err(error) = rotation.app(clock::now(), Deadline::within(READ_TIME)).await {
                    tracing::warn!(%error, "the keys could not be read before the first request");
                }
            });
        }
        Ok(rotation)
    }

    /// The app for a request that came at `now`. Its keys are fresh, or cannot be had fresher.
    pub async fn app(&self, now: UnixMs, deadline: Deadline) -> Result<Arc<App>, SecretError> {
        match &self.apps {
            Apps::Given(app) => Ok(app.clone()),
            Apps::Kept(reader) => reader.app(now, deadline).await,
        }
    }

    /// Serves a request that came at `now`. Where one of our keys is refused and there is another by now, it is served once
    /// more with that: every request is safe to repeat.
    pub async fn serve<W, A>(
        &self,
        now: UnixMs,
        deadline: Deadline,
        request: impl Fn(Arc<App>) -> W,
    ) -> Result<A, Error>
    where
        W: Future<Output = Result<A, Error>>,
    {
        let app = self.app(now, deadline).await?;
        let outcome = request(app.clone()).await;
        if let (Apps::Kept(reader), Err(error)) = (&self.apps, &outcome)
            && error.doubts_our_keys()
            && let Some(newer) = reader.newer_than(&app, now, deadline).await
        {
            return request(newer).await;
        }
        outcome
    }
}

impl Reader {
    async fn app(&self, now: UnixMs, deadline: Deadline) -> Result<Arc<App>, SecretError> {
        let (held, begun) = {
            let state = self.state();
            match &state.held {
                Some(held) if !state.is_due(now) => return Ok(held.app.clone()),
                held => (held.as_ref().map(|held| held.app.clone()), state.begun),
            }
        };
        let _reading = match held {
            None => self.reading.lock().await,
            // Old keys serve whoever comes while new ones are read.
            Some(app) => match self.reading.try_lock() {
                Ok(reading) => reading,
                Err(_) => return Ok(app),
            },
        };
        {
            let state = self.state();
            match (&state.held, &state.failed) {
                (Some(held), _) if !state.is_due(now) => return Ok(held.app.clone()),
                // Shared by all who were here before it began. An earlier one may have failed because it was frozen.
                (None, Some((number, error))) if *number > begun => return Err(error.clone()),
                _ => {}
            }
        }
        self.read(now, deadline).await
    }

    /// Another app than one whose keys were refused, if there is one or its keys have changed.
    async fn newer_than(&self, app: &Arc<App>, now: UnixMs, deadline: Deadline) -> Option<Arc<App>> {
        let is_newer = |other: &Arc<App>| !Arc::ptr_eq(other, app);
        let _reading = self.reading.lock().await;
        {
            let mut state = self.state();
            if let Some(held) = state.held.as_ref().filter(|held| is_newer(&held.app)) {
                return Some(held.app.clone());
            }
            if !state.may_retry(now) {
                return None;
            }
            state.retried_at = Some(now);
        }
        self.read(now, deadline).await.ok().filter(is_newer)
    }

    /// Reads the keys; to be called by the one who holds `reading`.
    async fn read(&self, now: UnixMs, deadline: Deadline) -> Result<Arc<App>, SecretError> {
        let (number, held) = {
            let mut state = self.state();
            state.begun += 1;
            (state.begun, state.held.as_ref().map(|held| held.app.keys.clone()))
        };
        let deadline = deadline.at_most(if held.is_some() { REREAD_TIME } else { READ_TIME });
        let unusable = |(variable, problem)| SecretError::Unusable { variable, problem };
        let read = secrets_manager::read(&self.kept, &self.secrets_manager, now, deadline).await;
        match read.and_then(|keys| keys.replacing(held.as_ref()).map_err(unusable)) {
            Ok(keys) => Ok(self.state().hold(keys, now, |keys| {
                Arc::new(App::new(self.config.clone(), keys, self.upstream.clone()))
            })),
            Err(error) => self.state().fail(number, error, now),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_due(&self, now: UnixMs) -> bool {
        self.held.as_ref().is_some_and(|held| held.read_at.apart(now) >= FRESH_FOR) && self.may_retry(now)
    }

    fn may_retry(&self, now: UnixMs) -> bool {
        self.retried_at.is_none_or(|at| at.apart(now) >= RETRY_INTERVAL)
    }

    /// Keys were read at `now`. The same ones go on with the app that has them.
    fn hold(&mut self, keys: Keys, now: UnixMs, app: impl FnOnce(Keys) -> Arc<App>) -> Arc<App> {
        let same = self.held.take().filter(|held| held.app.keys == keys);
        let app = same.map_or_else(|| app(keys), |held| held.app);
        self.held = Some(Held { app: app.clone(), read_at: now });
        app
    }

    /// No keys were read; those that are held stay in use.
    fn fail(&mut self, number: u64, error: SecretError, now: UnixMs) -> Result<Arc<App>, SecretError> {
        let Some(held) = &self.held else {
            self.failed = Some((number, error.clone()));
            return Err(error);
        };
        record::secret_failed(&error);
        self.retried_at = Some(now);
        Ok(held.app.clone())
    }
}

#[cfg(test)]
mod tests;
