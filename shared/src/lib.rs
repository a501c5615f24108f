#![doc = include_str!("../README.md")]

pub mod ask;
pub mod backoff;
pub mod caller;
pub mod client;
pub mod clock;
pub mod config;
pub mod creation;
pub mod deadline;
pub mod edge;
pub mod error;
mod event;
#[cfg(test)]
mod fuzz;
pub mod hint;
mod jwks;
mod jwt_ring;
mod logs;
pub mod number;
mod refusal;
pub mod secret;
pub mod sentence;
pub mod settings;
pub mod store;
pub mod token;
pub mod upstream;
pub mod view;
pub mod wpp;

use config::Config;
use store::Store;
use token::single_flight::SingleFlight;
use upstream::Upstream;
use wpp::Platform;

/// What a sandbox holds for all its requests. Nothing in it belongs to one of them alone.
#[derive(Debug)]
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
    pub verifier: caller::Verifier,
}

impl App {
    /// Builds the clients, once for a sandbox.
    ///
    /// # Errors
    /// What the TLS library says; it depends on nothing outside this crate.
    pub fn new(config: Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let upstream = Upstream::new()?;
        let supabase = config.supabase_url.as_str();
        Ok(Self {
            store: Store::new(supabase, &config.service_key, upstream.clone(), config.upstream_timeout),
            verifier: caller::Verifier::new(&config, upstream.clone()),
            single_flight: SingleFlight::default(),
            platform: Platform::new(
                config.wpp_base_url.clone(),
                upstream.for_another_host(),
                config.upstream_timeout,
            ),
            config,
        })
    }
}
