//! From Lambda's event to a handler and back to an answer, the same for all three functions.

pub mod accept;
pub mod auth;
mod event;
pub(crate) mod jwks;
mod jwt_ring;
pub(crate) mod logs;
pub mod request;
pub mod response;
pub mod service;

pub use http::Method;
pub use service::run;
