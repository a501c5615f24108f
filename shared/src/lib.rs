#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod error;
mod function;
pub mod http;
pub mod number;
pub mod platform;
#[cfg(test)]
mod properties;
pub mod record;
pub mod secret;
pub mod secrets;
pub mod sentence;
pub mod store;
pub mod token;
pub mod upstream;

use std::sync::Arc;

pub use function::Function;

use config::Config;
use number::guess::Guesses;
use platform::Platform;
use secrets::{SecretValues, Secrets};
use store::Store;
use token::single_flight::SingleFlight;
use upstream::Upstream;

/// What was built: `git describe` at a build for deployment, otherwise the crate's version.
pub(crate) const VERSION: &str = match option_env!("WPP_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// What requests work with for as long as the function's secrets stay the same. Nothing in it belongs to one of them alone.
pub struct App {
    /// Everything but the secrets.
    pub config: Arc<Config>,
    /// The function's own secrets.
    pub secrets: SecretValues,
    /// The database.
    pub store: Store,
    /// The platform.
    pub platform: Platform,
    /// The refreshes of tokens that are under way.
    pub single_flight: SingleFlight,
    /// Numbers to ask the platform about before their row is read.
    pub guesses: Guesses,
    /// Tells who is calling.
    pub verifier: http::auth::Verifier,
}

impl App {
    /// Reads the environment of a function that needs these secrets.
    pub fn from_env(secrets: Secrets) -> Result<Function, lambda_runtime::Error> {
        Function::read(|name| std::env::var(name).ok(), secrets)
    }

    /// Builds the clients around the sandbox's one HTTP client.
    pub fn new(config: Arc<Config>, secrets: SecretValues, upstream: Upstream) -> Self {
        Self {
            store: Store::new(config.supabase_url.as_str(), &secrets.service_key, upstream.clone()),
            verifier: http::auth::Verifier::new(&config, &secrets, upstream.clone()),
            single_flight: SingleFlight::default(),
            guesses: Guesses::default(),
            platform: Platform::new(config.wpp_base_url.clone(), upstream.for_another_host()),
            secrets,
            config,
        }
    }
}
