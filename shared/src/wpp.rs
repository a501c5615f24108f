//! The WPP Platform: its HTTP API, and a client for one number that keeps a usable token.

pub mod api;
pub mod client;
pub mod protocol;
pub(crate) mod refresh;
pub mod token;

pub use api::{
    Credentials, PlatformError, PlatformResult, SessionAuth, SessionState, Status, WppApi, is_session,
};
pub use client::{ClientError, WppMsgClient, WppMsgClientOptions};
pub use refresh::{LeaseOutcome, SingleFlight, TokenSource, TokenStore};
pub use token::Token;
