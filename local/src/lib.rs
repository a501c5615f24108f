//! Runs the functions and the systems around them on one machine: for `make dev`, the tests and the bench.

pub mod bench;
pub mod child;
pub mod clock;
mod cluster;
pub mod dev;
pub mod events;
pub mod fault_injector;
pub mod http;
pub mod http_gateway;
pub mod lambda;
pub mod other_functions;
pub mod page;
pub mod platform;
pub mod postgres;
pub mod postgrest;
pub mod schema_variants;
pub mod secrets_manager;
pub mod server;
pub mod service;
pub mod stack;
pub mod supabase;
pub mod test_app;
pub mod tls;
pub mod users;

/// The names of the three functions, and of their binaries.
pub const FUNCTIONS: [&str; 3] = ["wpp-create", "wpp-qr", "wpp-status"];

/// Any error of this crate, with a text for the developer who runs it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
