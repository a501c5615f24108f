#![doc = include_str!("../README.md")]

mod backoff;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod error;
mod function;
pub mod http;
pub mod messages;
pub mod number;
#[cfg(test)]
mod properties;
mod request_log;
pub mod secret;
pub mod secrets;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod upstream;
pub mod wpp;

use std::sync::Arc;

pub use function::Function;

use config::Config;
use number::prefetch::PrefetchMemory;
use secrets::SecretValues;
use store::Store;
use upstream::Upstream;
use wpp::{SingleFlight, WppApi};

/// The version: `git describe` in a build for deployment, otherwise the crate's version.
pub(crate) const VERSION: &str = match option_env!("WPP_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// What all requests share while the function's secrets stay the same.
pub struct App {
    /// Everything but the secrets.
    pub config: Arc<Config>,
    /// The function's own secrets.
    pub secrets: SecretValues,
    /// The database.
    pub store: Store,
    /// The platform.
    pub wpp: WppApi,
    /// The token refreshes that are under way.
    pub single_flight: SingleFlight,
    /// The session and token of each user's last answer, with which a prefetch starts before the row is read.
    pub prefetches: PrefetchMemory,
    /// Verifies users' access tokens.
    pub verifier: http::auth::Verifier,
}

impl App {
    /// Builds the clients around the sandbox's one HTTP client.
    pub fn new(config: Arc<Config>, secrets: SecretValues, upstream: Upstream) -> Self {
        Self {
            store: Store::new(config.supabase_url.as_str(), &secrets.service_key, upstream.clone()),
            verifier: http::auth::Verifier::new(&config, &secrets, upstream.clone()),
            single_flight: SingleFlight::default(),
            prefetches: PrefetchMemory::default(),
            wpp: WppApi::new(config.wpp_base_url.clone(), upstream.for_another_host()),
            secrets,
            config,
        }
    }
}
