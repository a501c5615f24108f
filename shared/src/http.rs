//! From Lambda's event to an answer: what is the same for all functions.

pub mod accept;
pub mod auth;
pub mod auth_error;
pub(crate) mod event;
pub(crate) mod jwks;
mod jwt_ring;
pub mod logs;
pub mod request;
pub mod run;
