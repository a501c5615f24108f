#![doc = include_str!("../README.md")]

pub mod backoff;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod error;
pub mod http;
pub mod number;
pub mod platform;
#[cfg(test)]
mod properties;
pub mod record;
pub mod secret;
pub mod sentence;
pub mod store;
pub mod token;
pub mod upstream;

use config::Config;
use platform::Platform;
use store::Store;
use token::single_flight::SingleFlight;
use upstream::Upstream;

/// What a sandbox holds for all its requests. Nothing in it belongs to one of them alone.
pub struct App {
    /// The environment's word.
    pub config: Config,
    /// The database.
    pub store: Store,
    /// The platform.
    pub platform: Platform,
    /// The refreshes of tokens that are under way.
    pub single_flight: SingleFlight,
    /// Tells who is calling.
    pub verifier: http::auth::Verifier,
}

impl App {
    /// Builds the clients, once for a sandbox.
    pub fn new(config: Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let upstream = Upstream::new(config.upstream_timeout)?;
        Ok(Self {
            store: Store::new(config.supabase_url.as_str(), &config.service_key, upstream.clone()),
            verifier: http::auth::Verifier::new(&config, upstream.clone()),
            single_flight: SingleFlight::default(),
            platform: Platform::new(config.wpp_base_url.clone(), upstream.for_another_host()),
            config,
        })
    }
}
