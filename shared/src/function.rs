//! A running function: its configuration, and the [`App`] with its current secrets. If an operator replaces them, a new `App` is
//! built; requests that are under way keep the old one.

use std::sync::Arc;

use crate::App;
use crate::clock::UnixMs;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::request_log;
use crate::secrets::{Loaded, NeededSecrets, SERVICE_KEY, SecretCell, SecretError, SecretSource, WPP_SECRET};
use crate::upstream::Upstream;

#[cfg(test)]
mod tests;

/// What a sandbox keeps between requests.
pub struct Function {
    /// Everything but the secrets.
    pub config: Arc<Config>,
    pub(crate) secrets: SecretCell<App>,
}

impl Function {
    /// Reads the configuration from the environment. Fails with the name of the first variable that is missing or malformed.
    pub fn from_env(secrets: NeededSecrets) -> Result<Self, lambda_http::Error> {
        Self::read(|name| std::env::var(name).ok(), secrets)
    }

    /// Reads the configuration from any source of variables.
    pub fn read(
        source: impl Fn(&str) -> Option<String>,
        secrets: NeededSecrets,
    ) -> Result<Self, lambda_http::Error> {
        let config = Arc::new(Config::read(&source)?);
        let secrets = SecretSource::read(&source, secrets, &config.supabase_url)?;
        let upstream = Upstream::new(config.upstream_timeout, &config.extra_roots)?;
        let (of_app, secrets_manager) = (config.clone(), upstream.for_another_host());
        let build = move |values| App::new(of_app.clone(), values, upstream.clone());
        Ok(Self { config, secrets: SecretCell::new(secrets, secrets_manager, build) })
    }

    /// Returns the app for a request that arrived at `now`.
    pub async fn app(&self, now: UnixMs, deadline: Deadline) -> Result<Arc<App>, SecretError> {
        Ok(self.secrets.current(now, deadline).await?.built.clone())
    }

    /// Serves a request that arrived at `now`. If a system refuses a secret, reads the secrets again, once, and serves the request
    /// again: every request is safe to repeat.
    pub async fn serve<W, A>(
        &self,
        now: UnixMs,
        deadline: Deadline,
        request: impl Fn(Arc<App>) -> W,
    ) -> Result<A, Error>
    where
        W: Future<Output = Result<A, Error>>,
    {
        let loaded = self.secrets.current(now, deadline).await?;
        let budget = deadline.remaining();
        let is_confirmed = |loaded: &Loaded<App>, outcome: &Result<A, Error>| {
            let refused = outcome.as_ref().err().and_then(Error::refused_secret);
            for (secret, calls) in [(SERVICE_KEY, "wpp_"), (WPP_SECRET, "create")] {
                if refused != Some(secret) && request_log::is_answered(calls) {
                    self.secrets.accepted(secret);
                }
            }
            let refused_at = now.plus(budget.saturating_sub(deadline.remaining()));
            refused.is_some_and(|secret| self.secrets.is_refusal_confirmed(secret, loaded, now, refused_at))
        };
        let mut outcome = request(loaded.built.clone()).await;
        let mut is_evident = is_confirmed(&loaded, &outcome);
        if let Err(error) = &outcome
            && error.may_need_new_secrets()
            && let Some(later) = self.secrets.reread(&loaded, error.refused_secret(), now, deadline).await
            // With unchanged secrets, a refused user token is refused again. But the refusal of a function's secret may have been
            // temporary.
            && (error.refused_secret().is_some() || !Arc::ptr_eq(&later.built, &loaded.built))
        {
            outcome = request(later.built.clone()).await;
            is_evident = is_confirmed(&later, &outcome);
        }
        if is_evident {
            request_log::own_key_rejected();
        }
        outcome
    }
}
